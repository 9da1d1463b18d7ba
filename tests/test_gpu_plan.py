"""What lies on a GPU: never more than allowed, and as much as helps."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otzi.box import tile
from otzi.errors import MemoryBudgetError
from otzi_viewers.render.gpu_plan import (
    FILM_BYTES,
    LEAST_SLOTS,
    TILE,
    Need,
    blocks_of,
    brick_shape,
    gpu_plan,
    linear_blocks,
)
from otzi_viewers.render.kernels.params import RAY

GIB = 2**30
FULL = Need((500, 1024, 1440), 4, (1920, 1080), 16, "mc", None)
"""A full-size tomogram of 8 bits."""

needs = st.builds(
    Need,
    shape=st.tuples(*[st.integers(1, 900)] * 3),
    texel_bytes=st.sampled_from([4, 8, 16, 32]),
    size=st.tuples(st.integers(1, 4000), st.integers(1, 3000)),
    spp=st.integers(1, 64),
    lighting=st.sampled_from(["mc", "baked", "cone"]),
    side_limit=st.sampled_from([None, 32, 64, 256]),
)


@given(needs, st.integers(1, 80 * GIB))
def test_a_plan_is_within_what_is_allowed(need: Need, budget: int) -> None:
    try:
        plan = gpu_plan(need, budget)
    except MemoryBudgetError:
        return
    assert plan.needed_bytes <= budget
    assert 1 <= plan.samples_at_once <= need.spp
    n_pixels = prod(need.size)
    least = n_pixels * (FILM_BYTES + plan.samples_at_once * RAY.itemsize)
    if plan.brick_voxels is None:
        assert need.side_limit is None
        held = prod(need.shape)
    else:
        assert plan.n_slots >= LEAST_SLOTS
        assert need.side_limit is None or plan.brick_voxels < need.side_limit
        held = plan.n_slots * prod(brick_shape(need.shape, plan.brick_voxels))
    assert plan.needed_bytes >= least + held * need.texel_bytes


@given(needs, st.integers(1, 20 * GIB), st.integers(0, 20 * GIB))
def test_more_memory_never_needs_more_passes(need: Need, budget: int, more: int) -> None:
    try:
        plan = gpu_plan(need, budget)
    except MemoryBudgetError:
        return
    larger = gpu_plan(need, budget + more)
    if larger.brick_voxels is None:
        return
    assert plan.brick_voxels is not None
    assert larger.samples_at_once >= plan.samples_at_once


def test_a_full_tomogram_lies_in_one_piece_where_there_is_room() -> None:
    plan = gpu_plan(FULL, 8 * GIB)
    assert (plan.brick_voxels, plan.samples_at_once) == (None, 1)
    assert plan.needed_bytes < 3.4 * GIB
    wide = gpu_plan(replace(FULL, texel_bytes=8), 8 * GIB)
    assert wide.brick_voxels is None


def test_a_volume_that_is_longer_than_a_texture_may_be_is_streamed() -> None:
    assert gpu_plan(replace(FULL, shape=(16384, 10, 10)), 8 * GIB).brick_voxels is None
    assert gpu_plan(replace(FULL, shape=(16385, 10, 10)), 8 * GIB).brick_voxels == 256


def test_a_small_card_streams_it() -> None:
    plan = gpu_plan(FULL, 2 * GIB)
    assert plan.brick_voxels == 256
    assert plan.samples_at_once == FULL.spp
    with pytest.raises(MemoryBudgetError, match=r"1920x1080 pixels needs .* of the GPU.*--gpu-mem"):
        gpu_plan(FULL, 200 * 2**20)


@given(st.integers(1, 5000), st.integers(1, 5000))
def test_blocks_cover_a_rectangle_and_no_block_is_idle(rows: int, columns: int) -> None:
    x, y, z = blocks_of(rows, columns)
    assert z == 1
    assert (x - 1) * TILE[0] < columns <= x * TILE[0]
    assert (y - 1) * TILE[1] < rows <= y * TILE[1]


@given(st.integers(1, 10**9))
def test_blocks_cover_a_row(count: int) -> None:
    grid, block = linear_blocks(count)
    assert (grid[0] - 1) * block[0] < count <= grid[0] * block[0]
    assert grid[0] < 2**31


@given(st.tuples(*[st.integers(1, 300)] * 3), st.sampled_from([16, 64, 256]))
def test_any_brick_and_a_voxel_around_it_fit(shape: tuple[int, int, int], side: int) -> None:
    held = brick_shape(shape, side)
    for brick in tile(shape, (side, side, side)):
        around = brick.grow(1).clip(shape)
        # And one more voxel where the volume ends, so that its edge goes on.
        more = np.array(brick.stop) == shape
        assert (np.array(around.shape) + more <= held).all()
