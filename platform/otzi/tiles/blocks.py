"""Blocks of neighbouring tiles that are inferred as one piece of work.  Pure.

A block has the tiles, and the cells, of a box of indices. Where one block makes a cell alone, it is
done with the block; what two blocks share is made of a part of each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from otzi.box import Box, Zyx
from otzi.errors import UsageError
from otzi.tiles.plan import indices

if TYPE_CHECKING:
    from otzi.tiles.plan import TilePlan

__all__ = ["BlockPlan"]

_STEP_BYTES = 2
_SUM_BYTES = 4


@dataclass(frozen=True, slots=True)
class BlockPlan:
    """How the tiles of a volume are shared out among blocks.

    Every tile is in exactly one block, and in `sweep` all contributors of a block's cells come
    before it, or are itself.

    Raises
    ------
    UsageError
        If a block has no tiles.
    """

    plan: TilePlan
    tiles_per_block: Zyx = (1, 1, 1)

    def __post_init__(self) -> None:
        if min(self.tiles_per_block) < 1:
            raise UsageError(f"a block of {self.tiles_per_block} tiles: give at least 1 (z, y, x)")

    @property
    def is_single(self) -> bool:
        """Whether a block is one tile."""
        return self.tiles_per_block == (1, 1, 1)

    @property
    def grid(self) -> Zyx:
        """Number of blocks on each axis."""
        z, y, x = (-(-n // m) for n, m in zip(self.plan.grid, self.tiles_per_block, strict=True))
        return z, y, x

    @property
    def sweep(self) -> tuple[Zyx, ...]:
        """Blocks in the order that keeps the fewest unfinished cells: the longest axis slowest."""
        axes = sorted(range(3), key=lambda axis: -self.plan.shape[axis])
        blocks = indices(*map(range, self.grid))
        return tuple(sorted(blocks, key=lambda block: [block[axis] for axis in axes]))

    def members(self, block: Zyx) -> tuple[Zyx, ...]:
        """Give the tiles of a block, which are the indices of its cells, too."""
        return indices(*self._ranges(block))

    def block_of(self, index: Zyx) -> Zyx:
        """Give the block of a tile, or cell."""
        z, y, x = (i // m for i, m in zip(index, self.tiles_per_block, strict=True))
        return z, y, x

    def read(self, block: Zyx) -> Box:
        """Give the voxels that the tiles of a block see."""
        return _hull([self.plan.read(tile) for tile in self._corners(block)])

    def reach(self, block: Zyx) -> Box:
        """Give the voxels to which a block contributes."""
        return _hull([self.plan.reach(tile) for tile in self._corners(block)])

    def dependents(self, block: Zyx) -> tuple[Zyx, ...]:
        """Give the cells that a block reaches into: its own and those after them."""
        ranges = self._ranges(block)
        reached = zip(ranges, self.plan.grid, strict=True)
        return indices(*(range(r.start, min(r.stop + 1, n)) for r, n in reached))

    def contributors(self, cell: Zyx) -> tuple[Zyx, ...]:
        """Give the blocks that reach into a cell: its own and those before it, up to 8."""
        first = self.block_of(self.plan.contributors(cell)[0])
        last = self.block_of(cell)
        return indices(*(range(a, b + 1) for a, b in zip(first, last, strict=True)))

    def part(self, block: Zyx, cell: Zyx) -> Box:
        """Give the voxels of a cell to which a block contributes."""
        return self.reach(block).intersect(self.plan.cell(cell))

    def frontier_bytes(self, window: int, n_channels: int) -> int:
        """Give the most bytes of parts that wait for their cell while blocks go by in `sweep`.

        `window` blocks may be ahead of the last whose cells are whole. A part has 2 bytes for each
        voxel and channel where a block is one tile, 4 where it is a sum over several.
        """
        waiting = most = 0
        for block in self.sweep:
            waiting += sum(self.part(block, cell).n_voxels for cell in self.dependents(block))
            most = max(most, waiting)
            for cell in self.members(block):
                waiting -= sum(self.part(b, cell).n_voxels for b in self.contributors(cell))
        voxels = most + (window - 1) * self.reach((0, 0, 0)).n_voxels
        return voxels * n_channels * (_STEP_BYTES if self.is_single else _SUM_BYTES)

    def _ranges(self, block: Zyx) -> tuple[range, range, range]:
        z, y, x = (
            range(b * m, min((b + 1) * m, n))
            for b, m, n in zip(block, self.tiles_per_block, self.plan.grid, strict=True)
        )
        return z, y, x

    def _corners(self, block: Zyx) -> tuple[Zyx, Zyx]:
        z, y, x = self._ranges(block)
        return (z[0], y[0], x[0]), (z[-1], y[-1], x[-1])


def _hull(boxes: list[Box]) -> Box:
    return Box(boxes[0].start, boxes[-1].stop)
