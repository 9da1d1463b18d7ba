"""Boxes beyond a volume: what `numpy.pad` puts around the whole of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otzi.box import Box
from otzi.collection import create_collection
from otzi.errors import UsageError
from otzi.store.padding import Padding

if TYPE_CHECKING:
    from otzi.tomogram import Tomogram

RNG = np.random.default_rng(8)
MARGIN = 40


@pytest.fixture(scope="module", params=[(9, 20, 17), (1, 2, 30)], ids=str)
def tomo(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tomogram:
    tomo = create_collection(tmp_path_factory.mktemp("padding") / "c").add("ts_001")
    for name, channels in (("raw", None), ("probs/net", ("a", "b"))):
        volume = RNG.integers(1, 200, (*([2] if channels else []), *request.param)).astype(np.uint8)
        with tomo.write(
            name,
            dtype=np.uint8,
            shape=request.param,
            spacing_angstrom=(1.0,) * 3,
            channels=channels,
            chunk_voxels=8,
            recipe={},
        ) as writer:
            writer[tuple(slice(n) for n in volume.shape)] = volume
    return tomo


@settings(deadline=None, max_examples=60)
@given(
    product=st.sampled_from(["raw", "probs/net"]),
    pad=st.sampled_from(get_args(Padding)),
    start=st.tuples(*[st.integers(-MARGIN, 30)] * 3),
    extent=st.tuples(*[st.integers(1, MARGIN - 20)] * 3),
)
def test_a_box_is_that_of_the_padded_volume(
    tomo: Tomogram, product: str, pad: Padding, start: Any, extent: Any
) -> None:
    whole = np.asarray(tomo.lazy(product))
    margins = [(0, 0)] * (whole.ndim - 3) + [(MARGIN, MARGIN + 30)] * 3
    padded = np.pad(whole, margins, mode=pad)
    z, y, x = (a + n for a, n in zip(start, extent, strict=True))
    box = Box(start, (z, y, x))
    found = tomo.read(product, box, pad=pad)
    np.testing.assert_array_equal(found, padded[(..., *box.shift((MARGIN,) * 3).slices)])
    assert found.dtype == whole.dtype


@pytest.mark.parametrize("pad", [None, "wrap"])
def test_a_box_beyond_the_volume_is_refused_without_padding(tomo: Tomogram, pad: Any) -> None:
    z, y, x = tomo.shape
    with pytest.raises(UsageError, match=r"beyond a volume of .* 'reflect', 'edge', 'constant'"):
        tomo.read("raw", Box((-1, 0, 0), (z, y, x)), pad=pad)
    np.testing.assert_array_equal(tomo.read("raw", Box.whole(tomo.shape)), tomo.raw)
