"""What is measured does not depend on how the volume is cut."""

from __future__ import annotations

from functools import reduce

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from otzi.box import Box, tile
from otzi.store.moments import Moments
from otzi_pipelines.ingest.measure import Measured

SHAPE = (5, 6, 7)


@settings(deadline=None, max_examples=40)
@given(
    voxels=st.lists(st.tuples(*[st.integers(0, n - 1) for n in SHAPE]), max_size=4),
    block=st.tuples(*[st.integers(1, n) for n in SHAPE]),
    value=st.sampled_from([np.nan, np.inf, -np.inf]),
)
def test_the_box_holds_all_that_is_not_finite(
    voxels: list[tuple[int, int, int]], block: tuple[int, int, int], value: float
) -> None:
    volume = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    for voxel in voxels:
        volume[voxel] = value
    nothing = Measured(Moments.none(np.dtype(np.float32)))
    parts = [nothing.of(box, volume[box.slices]) for box in tile(SHAPE, block)]
    measured = reduce(Measured.merge, parts, nothing)
    found = measured.to_json()
    if not voxels:
        assert measured.nonfinite_box is None
        assert "nonfinite_box" not in found
        return
    low, high = np.min(voxels, axis=0), np.max(voxels, axis=0) + 1
    assert measured.nonfinite_box == Box(tuple(low), tuple(high))
    assert found["nonfinite_box"] == {"start": low.tolist(), "stop": high.tolist()}
    assert found["nonfinite_voxels"] == len(set(voxels))
    assert measured.without_nonfinite().nonfinite_voxels == 0
    assert measured.without_nonfinite().mean == measured.moments.mean


def test_a_volume_of_one_value_is_constant() -> None:
    nothing = Measured(Moments.none(np.dtype(np.int16)))
    ones = np.ones(SHAPE, np.int16)
    assert nothing.of(Box.whole(SHAPE), ones).to_json()["constant"]
    ones[0, 0, 0] = 2
    assert not nothing.of(Box.whole(SHAPE), ones).to_json()["constant"]
