"""The image that exists chunk by chunk is, voxel for voxel, what the product would be."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import pytest
import zarr

from otzi.errors import ConfigurationError, NotFoundError
from otzi.viewable import viewing_problems
from otzi_pipelines.view_product import build_view
from otzi_viewers.segmentation import (
    Segmentation,
    hard_labels,
    soft_products,
    usual_segmentation,
)
from otzi_viewers.stacked import StackedImage

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from otzi.tomogram import Tomogram

SHAPE = (20, 150, 230)


@pytest.fixture
def tomo(add_tomogram: Callable[..., Tomogram]) -> Tomogram:
    return add_tomogram(np.random.default_rng(0).normal(5, 400, SHAPE).astype(np.int16))


def _segment(
    tomo: Tomogram, product: str, names: tuple[str, ...] | None = None, dtype: str = "u1"
) -> np.ndarray:
    names = names or tomo.classes.names
    values = np.random.default_rng(1).random((len(names), *SHAPE)).astype(np.float32)
    values /= values.sum(0)
    stored = np.rint(values * 255).astype("u1") if dtype == "u1" else values.astype(dtype)
    with tomo.write(product, dtype=dtype, recipe={}, channels=names) as writer:
        da.store(da.from_array(stored, chunks=(1, 64, 64, 64)), writer, lock=False)
    return stored


def _unpacked(image: StackedImage, folder: Path) -> Any:
    """Write all files of an image, and open it with zarr-python."""
    for path in ("zarr.json", "overview/zarr.json"):
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(image.file(path) or b"")
    for path in ("0", "1", "overview/0"):
        metadata = image.file(f"{path}/zarr.json")
        assert metadata is not None
        document = json.loads(metadata)
        chunk = document["chunk_grid"]["configuration"]["chunk_shape"]
        grid = [-(-n // c) for n, c in zip(document["shape"], chunk, strict=True)]
        (folder / path).mkdir(exist_ok=True)
        (folder / path / "zarr.json").write_bytes(metadata)
        for index in np.ndindex(*grid):
            name = "/".join(map(str, ("c", *index)))
            target = folder / path / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(image.file(f"{path}/{name}") or b"")
    return zarr.open_group(folder, mode="r")


@pytest.mark.parametrize("dtype", ["u1", "f2", "f4"])
def test_beside_a_view_it_is_the_view_of_another_product(
    tomo: Tomogram, tmp_path: Path, dtype: str
) -> None:
    _segment(tomo, "probs/net", dtype=dtype)
    _segment(tomo, "labels/other", dtype="u1")
    build_view(tomo, "net")
    shown = Segmentation.of(tomo, "labels/other")
    assert not shown.is_stored
    assert Segmentation.of(tomo, "probs/net").is_stored
    group = _unpacked(StackedImage(tomo, shown), tmp_path / "image")
    for level in (0, 1):
        expected = tomo.array("view", level)[...]
        found = group[str(level)][:]
        np.testing.assert_array_equal(found[0], expected[0])
        np.testing.assert_array_equal(found[1:], tomo.array("labels/other", level)[...])
        if dtype == "u1":
            np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(group["overview/0"][:], group[str(shown.overview_level)][:])
    assert shown.overview_level == 1


def test_without_a_view_the_density_is_raw_and_matter_bright(
    tomo: Tomogram, tmp_path: Path
) -> None:
    probs = _segment(tomo, "probs/net", dtype="f4")
    shown = usual_segmentation(tomo)
    assert shown is not None
    assert (shown.product, shown.is_stored) == ("probs/net", False)
    group = _unpacked(StackedImage(tomo, shown), tmp_path / "image")
    raw = tomo.array("raw")[...].astype(float)
    percentiles = tomo.attributes("raw")["statistics"]["percentiles"]
    low, high = percentiles["0.5"], percentiles["99.5"]
    expected = np.clip((high - raw) / (high - low), 0, 1) * 255
    assert np.abs(group["0"][0] - expected).max() <= 0.51
    assert np.abs(group["0"][1:] - probs * 255.0).max() <= 0.51
    axes = json.loads((tmp_path / "image" / "zarr.json").read_text())["attributes"]["ome"]
    for path in ("0", "1", "overview/0"):
        array = json.loads((tmp_path / "image" / path / "zarr.json").read_text())
        assert viewing_problems(array, axes["multiscales"][0]["axes"]) == []


def test_channels_are_in_the_order_of_the_table(tomo: Tomogram) -> None:
    stored = _segment(tomo, "probs/net", ("lumen", "background", "membrane"))
    shown = Segmentation.of(tomo, "probs/net")
    assert shown.channels == ("density", "background", "membrane", "lumen")
    content = StackedImage(tomo, shown).file("0/c/0/0/0/0")
    assert content is not None
    chunk = np.frombuffer(content, np.uint8).reshape(4, 64, 64, 64)
    np.testing.assert_array_equal(chunk[1:, :20], stored[[1, 2, 0], :20, :64, :64])
    assert not chunk[:, 20:].any()


def test_other_classes_have_colours_of_their_own(tomo: Tomogram) -> None:
    _segment(tomo, "probs/net", ("ice", "ribosome"))
    shown = Segmentation.of(tomo, "probs/net")
    assert [c.name for c in shown.classes] == ["ice", "ribosome"]
    assert len({c.color for c in shown.classes}) == 2


def test_products_are_told_apart(tomo: Tomogram) -> None:
    _segment(tomo, "labels/a")
    _segment(tomo, "probs/z")
    with tomo.write("labels/hard", dtype="u1", recipe={}, downsample="mode") as writer:
        writer[:, :, :] = np.zeros(SHAPE, np.uint8)
    assert soft_products(tomo) == ("probs/z", "labels/a")
    assert hard_labels(tomo) == ("labels/hard",)
    with pytest.raises(NotFoundError, match="no probabilities of classes: there are probs/z, lab"):
        Segmentation.of(tomo, "labels/hard")
    with pytest.raises(NotFoundError, match="has no probs/none"):
        Segmentation.of(tomo, "probs/none")


def test_another_shape_is_refused(tomo: Tomogram) -> None:
    with tomo.write(
        "probs/net", dtype="u1", recipe={}, channels=tomo.classes.names, shape=(8, 8, 8)
    ) as writer:
        writer[:, :, :, :] = np.zeros((3, 8, 8, 8), np.uint8)
    with pytest.raises(ConfigurationError, match=r"is \(8, 8, 8\), raw is \(20, 150, 230\)"):
        Segmentation.of(tomo, "probs/net")


def test_ramps_are_those_of_the_product(tomo: Tomogram) -> None:
    _segment(tomo, "probs/net")
    with tomo.stage("ramps/net", recipe={}, parents=("probs/net",)) as staging:
        staging.attributes["ramps"] = {name: {"low": 0.25} for name in tomo.classes.names}
    assert Segmentation.of(tomo, "probs/net").lows == dict.fromkeys(tomo.classes.names, 0.25)
