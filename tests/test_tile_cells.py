"""Cells of the parts of blocks: however few planes are summed at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otzi.tiles import cells
from otzi.tiles.blend import PROBABILITY_STEPS, finalise
from otzi.tiles.blocks import BlockPlan
from otzi.tiles.cells import blended, is_alone, weights_within
from otzi.tiles.plan import UNITY, TilePlan

if TYPE_CHECKING:
    from otzi.box import Zyx
    from otzi.tiles.blend import ProbabilityType

N_CLASSES = 3


def parts_of(blocks: BlockPlan, cell: Zyx) -> list[np.ndarray]:
    """Give random parts of a cell: steps of single tiles, sums where blocks have several."""
    rng = np.random.default_rng(0)
    parts = []
    for block in blocks.contributors(cell):
        shape = blocks.part(block, cell).shape
        cuts = np.sort(rng.integers(0, PROBABILITY_STEPS + 1, (N_CLASSES - 1, *shape)), axis=0)
        steps = np.diff(cuts, axis=0, prepend=0, append=PROBABILITY_STEPS).astype(np.uint16)
        parts.append(steps if blocks.is_single else weighted(blocks, block, cell, steps))
    return parts


def weighted(blocks: BlockPlan, block: Zyx, cell: Zyx, steps: np.ndarray) -> np.ndarray:
    """Give steps times the weights of all tiles of a block together."""
    region, box = blocks.part(block, cell), blocks.plan.cell(cell)
    weights = np.zeros(box.shape, np.uint32)
    for tile in set(blocks.members(block)) & set(blocks.plan.contributors(cell)):
        within = blocks.plan.part(tile, cell)
        z, y, x = weights_within(blocks.plan, tile, within)
        weights[within.within(box)] += z[:, None, None] * y[:, None] * x
    return steps * weights[region.within(box)]


@given(
    st.tuples(*[st.integers(1, 30)] * 3),
    st.tuples(*[st.integers(1, 2)] * 3),
    st.integers(1, 4000),
    st.sampled_from(["uint8", "float16", "float32"]),
)
@settings(deadline=None)
def test_slabs_do_not_show(
    shape: Zyx,
    tiles_per_block: Zyx,
    slab_bytes: int,
    dtype: ProbabilityType,
) -> None:
    blocks = BlockPlan(TilePlan(shape, 8, 4), tiles_per_block)
    for cell in blocks.plan.tiles[:: max(1, blocks.plan.n_tiles // 3)]:
        parts, box = parts_of(blocks, cell), blocks.plan.cell(cell)
        total: Any = np.zeros((N_CLASSES, *box.shape), np.uint32)
        for block, part in zip(blocks.contributors(cell), parts, strict=True):
            where = (slice(None), *blocks.part(block, cell).within(box))
            total[where] += weighted(blocks, block, cell, part) if blocks.is_single else part
        assert (total.sum(axis=0, dtype=np.int64) == PROBABILITY_STEPS * UNITY).all()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(cells, "_SLAB_BYTES", slab_bytes)
            found = blended(blocks, cell, dtype, N_CLASSES, *parts)
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, finalise(total, dtype))


def test_a_cell_that_one_block_makes_is_alone() -> None:
    blocks = BlockPlan(TilePlan((8, 8, 20), 8, 4), (1, 1, 2))
    assert [is_alone(blocks, cell) for cell in blocks.plan.tiles] == [True, True, False, True]
