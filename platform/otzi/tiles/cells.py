"""Cells as stored, made of the parts that blocks of tiles contribute to them."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from otzi.tiles.blend import accumulate, finalise_into

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from otzi.box import Box, Zyx
    from otzi.tiles.blend import ProbabilityType
    from otzi.tiles.blocks import BlockPlan
    from otzi.tiles.plan import TilePlan

__all__ = ["blended", "is_alone", "weights_within"]

_SLAB_BYTES = 1 << 20
"""Of sums at a time: from the first part to the last they stay in the cache of a processor."""

_scratch = threading.local()


def is_alone(blocks: BlockPlan, cell: Zyx) -> bool:
    """Tell whether one block makes a cell, and stores it as it is."""
    return len(blocks.contributors(cell)) == 1


def weights_within(plan: TilePlan, tile: Zyx, region: Box) -> list[NDArray[np.uint32]]:
    """Give the weights of a tile on z, y and x over a region of its reach."""
    within = region.within(plan.reach(tile))
    return [weights[s] for weights, s in zip(plan.weights(tile), within, strict=True)]


def blended(
    blocks: BlockPlan,
    cell: Zyx,
    dtype: ProbabilityType,
    n_classes: int,
    *parts: NDArray[Any],
) -> NDArray[Any]:
    """Give a cell as stored, ``(c, z, y, x)``, of the parts of its contributors, in their order.

    A part is ``(c, z, y, x)``: uint16 steps, or uint32 sums.
    """
    box = blocks.plan.cell(cell)
    # The part of the cell's own block, the last, is all of it: no need to begin with zeros.
    contributors = zip(reversed(blocks.contributors(cell)), reversed(parts), strict=True)
    pieces = [_Piece.of(blocks, block, cell, part) for block, part in contributors]
    depth, rows, columns = box.shape
    n_channels = len(parts[0])
    plane_bytes = n_channels * rows * columns * np.dtype(np.uint32).itemsize
    n_planes = max(1, _SLAB_BYTES // plane_bytes)
    result = np.empty((n_channels, *box.shape), dtype)
    for z in range(0, depth, n_planes):
        total = _reused((n_channels, min(n_planes, depth - z), rows, columns))
        for i, piece in enumerate(pieces):
            piece.add_to(total, z, is_first=i == 0)
        finalise_into(result, z, total, n_classes)
    return result


@dataclass(frozen=True, slots=True)
class _Piece:
    """A part, and where it lies in its cell."""

    values: NDArray[Any]
    within: tuple[slice, slice, slice]
    weights: list[NDArray[np.uint32]] | None
    """On z, y and x; None of sums, which are weighted."""

    @classmethod
    def of(cls, blocks: BlockPlan, block: Zyx, cell: Zyx, part: NDArray[Any]) -> _Piece:
        region = blocks.part(block, cell)
        is_steps = part.dtype == np.uint16
        weights = weights_within(blocks.plan, block, region) if is_steps else None
        return cls(part, region.within(blocks.plan.cell(cell)), weights)

    def add_to(self, total: NDArray[np.uint32], z: int, *, is_first: bool) -> None:
        """Add what lies in the planes of the cell that `total` holds, those from z on.

        The first piece is put where nothing was; it is all of the cell.
        """
        in_z, in_y, in_x = self.within
        first, stop = max(in_z.start, z), min(in_z.stop, z + total.shape[1])
        if first >= stop:
            return
        planes = first - in_z.start, stop - in_z.start
        if self.weights is not None:
            start = first - z, in_y.start, in_x.start
            accumulate(total, self.values, self.weights, start, planes=planes, is_first=is_first)
            return
        into, added = total[:, first - z : stop - z, in_y, in_x], self.values[:, slice(*planes)]
        if is_first:
            into[...] = added
        else:
            into += added


def _reused(shape: tuple[int, ...]) -> NDArray[np.uint32]:
    """Give memory that this thread uses again: fresh pages cost more than the sums."""
    n = prod(shape)
    if getattr(_scratch, "total", np.empty(0)).size < n:
        _scratch.total = np.empty(n, np.uint32)
    total: NDArray[np.uint32] = _scratch.total[:n].reshape(shape)
    return total
