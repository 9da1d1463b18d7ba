"""Blocks of tiles: every tile in one, and all that a cell needs before it is made."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otzi.box import Box
from otzi.errors import UsageError
from otzi.tiles.batch import window
from otzi.tiles.blocks import BlockPlan
from otzi.tiles.plan import TilePlan


@st.composite
def block_plans(draw: st.DrawFn) -> BlockPlan:
    tile = draw(st.integers(1, 20))
    shape = draw(st.tuples(*[st.integers(1, 4 * tile)] * 3))
    plan = TilePlan(shape, tile, draw(st.integers(0, tile // 2)))
    return BlockPlan(plan, draw(st.tuples(*[st.integers(1, 3)] * 3)))


@given(block_plans())
def test_every_tile_is_in_one_block(blocks: BlockPlan) -> None:
    tiles = [tile for block in blocks.sweep for tile in blocks.members(block)]
    assert sorted(tiles) == sorted(blocks.plan.tiles)
    assert all(tile in blocks.members(blocks.block_of(tile)) for tile in tiles)


@given(block_plans())
def test_contributors_of_a_block_s_cells_are_not_after_it(blocks: BlockPlan) -> None:
    position = {block: i for i, block in enumerate(blocks.sweep)}
    for cell in blocks.plan.tiles:
        contributors = blocks.contributors(cell)
        wanted = {blocks.block_of(tile) for tile in blocks.plan.contributors(cell)}
        assert set(contributors) == wanted
        assert max(map(position.__getitem__, contributors)) == position[blocks.block_of(cell)]


@given(block_plans())
def test_dependents_are_the_inverse_of_contributors(blocks: BlockPlan) -> None:
    cells = blocks.plan.tiles
    edges = {(block, cell) for cell in cells for block in blocks.contributors(cell)}
    assert edges == {(b, cell) for b in blocks.sweep for cell in blocks.dependents(b)}


@given(block_plans())
def test_a_block_sees_and_reaches_what_its_tiles_do(blocks: BlockPlan) -> None:
    plan = blocks.plan
    for block in blocks.sweep:
        for of_block, of_tile in ((blocks.read, plan.read), (blocks.reach, plan.reach)):
            covered = np.zeros(plan.shape, bool)
            for tile in blocks.members(block):
                covered[of_tile(tile).slices] = True
            box = of_block(block)
            assert covered[box.slices].all()
            assert covered.sum() == box.n_voxels
        parts = [blocks.part(block, cell) for cell in blocks.dependents(block)]
        assert sum(part.n_voxels for part in parts) == blocks.reach(block).n_voxels


def test_the_frontier_at_the_reference_size_forgets_the_long_axis() -> None:
    """The design's bound for float32 is 0.59 GB; steps have half of the bytes."""
    blocks = BlockPlan(TilePlan((500, 1440, 1024)))
    longer = BlockPlan(TilePlan((500, 2880, 1024)))
    ahead = window(blocks, 2)
    assert longer.frontier_bytes(ahead, 4) == blocks.frontier_bytes(ahead, 4) < 0.62e9
    assert blocks.frontier_bytes(ahead, 4) == 2 * blocks.frontier_bytes(ahead, 2)


def test_a_block_larger_than_the_volume_is_the_volume() -> None:
    blocks = BlockPlan(TilePlan((30, 40, 50), 16, 4), (9, 9, 9))
    assert blocks.grid == (1, 1, 1)
    assert blocks.reach((0, 0, 0)) == blocks.read((0, 0, 0)) == Box.whole((30, 40, 50))
    assert {blocks.contributors(cell) for cell in blocks.plan.tiles} == {((0, 0, 0),)}


def test_a_block_of_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match=r"block of \(1, 0, 1\) tiles"):
        BlockPlan(TilePlan((30, 40, 50), 16, 4), (1, 0, 1))
