"""Boxes: what tiling and clipping promise."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from otzi.box import Box, Zyx, tile

shapes = st.tuples(*[st.integers(1, 12)] * 3)
corners = st.tuples(*[st.integers(-5, 15)] * 3)


@given(shapes, shapes)
def test_tiles_hold_every_voxel_exactly_once(shape: Zyx, block: Zyx) -> None:
    counts = np.zeros(shape, int)
    for box in tile(shape, block):
        counts[box.slices] += 1
    assert (counts == 1).all()


@given(corners, corners, corners, corners)
def test_intersection_holds_what_both_hold(
    a: Zyx,
    b: Zyx,
    c: Zyx,
    d: Zyx,
) -> None:
    first, second = Box(a, b), Box(c, d)
    both = first.intersect(second)
    axes = zip(first.start, first.stop, second.start, second.stop, strict=True)
    expected = tuple(len(set(range(s, t)) & set(range(u, v))) for s, t, u, v in axes)
    assert both.n_voxels == np.prod(expected)


@given(shapes, st.integers(0, 4))
def test_a_box_within_its_halo_is_the_box(shape: Zyx, halo: int) -> None:
    volume = np.arange(np.prod(shape)).reshape(shape)
    inner = Box((0, 0, 0), (1, 1, 1))
    outer = inner.grow(halo).clip(shape)
    np.testing.assert_array_equal(volume[outer.slices][inner.within(outer)], volume[inner.slices])
