"""What is published reads the same in libraries that know nothing of otzi."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import xarray as xr
import zarr

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from otzi.tomogram import Tomogram

RNG = np.random.default_rng(17)
SHAPE = (70, 66, 130)
PRODUCTS = {
    "raw": "float32",  # lz4
    "probs/half": "float16",  # zstd-1
    "labels/hard": "uint8",  # zstd-3
    "labels/soft": "uint8",  # lz4hc
}


@pytest.fixture
def tomo(add_tomogram: Callable[..., Tomogram]) -> Tomogram:
    """Every encoding; one chunk of each product holds nothing."""
    tomo = add_tomogram(_volume(SHAPE, "float32"))
    for product in ("probs/half", "labels/hard", "labels/soft"):
        channels = None if product == "labels/hard" else ("a", "b")
        shape = SHAPE if channels is None else (2, *SHAPE)
        with tomo.write(
            product,
            dtype=PRODUCTS[product],
            channels=channels,
            downsample="mode" if channels is None else "mean",
            recipe={},
        ) as writer:
            writer[tuple(slice(n) for n in shape)] = _volume(shape, PRODUCTS[product])
    return tomo


def _volume(shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    volume = RNG.normal(20, 5, shape).astype(dtype)
    volume[..., :64, :64, :64] = 0
    return volume


@pytest.mark.filterwarnings("ignore:Object at manifest.json is not recognized")
@pytest.mark.parametrize("product", PRODUCTS)
def test_xarray_and_zarr_read_every_level(tomo: Tomogram, product: str) -> None:
    path, image = tomo.path(product), tomo.image(product)
    levels = [str(level) for level in range(image.n_levels)]
    group = zarr.open_group(path, mode="r")
    assert sorted(name for name, _ in group.arrays()) == levels
    for level in levels:
        # Levels have the same axes and other lengths: xarray takes them one at a time.
        others = [name for name in levels if name != level]
        with xr.open_zarr(path, consolidated=False, drop_variables=others) as opened:
            assert opened[level].dims == image.axes
            assert opened.attrs["ome"]["version"] == "0.5"
            ours = tomo.array(product, int(level))[...]
            np.testing.assert_array_equal(opened[level], ours)
            np.testing.assert_array_equal(group[level], ours)


@pytest.mark.parametrize("product", PRODUCTS)
def test_tensorstore_reads_every_level(
    tomo: Tomogram, product: str, require: Callable[[str, str], None]
) -> None:
    if importlib.util.find_spec("tensorstore") is None:
        require("tensorstore", "tensorstore is not installed")
    import tensorstore

    for level in range(tomo.image(product).n_levels):
        folder = tomo.path(product) / str(level)
        spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(folder)}}
        theirs = tensorstore.open(spec, read=True).result()
        np.testing.assert_array_equal(theirs.read().result(), tomo.array(product, level)[...])
