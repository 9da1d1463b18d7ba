"""Overlapping tiles, the cells they are blended into, and integer weights that sum exactly.  Pure.

On each axis tile k begins nominally at ``k * stride`` and shares `overlap` voxels with the next;
there its weight falls as the other's rises. Cell j, ``[j * stride, (j + 1) * stride)``, is made of
tiles j - 1 and j alone, and the last cell owns the remainder. In three dimensions everything is the
product of the axes: for every tile there is one cell, and a cell has at most 8 contributors.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from otzi.box import Box, Zyx
from otzi.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["UNITY", "AxisPlan", "TilePlan", "indices"]

_AXIS_UNITY = 64
"""Weight of a voxel on one axis: with an overlap of 32 every step of the ramp is an integer."""

UNITY = _AXIS_UNITY**3
"""What the weights of all tiles at a voxel sum to, exactly."""


@dataclass(frozen=True, slots=True)
class AxisPlan:
    """The tiles and cells of one axis; there are as many cells as tiles."""

    n_voxels: int
    tile: int
    overlap: int

    @property
    def stride(self) -> int:
        """Distance between the nominal beginnings of two tiles, in voxels."""
        return self.tile - self.overlap

    @property
    def count(self) -> int:
        """Number of tiles."""
        return max(1, -(-(self.n_voxels - self.overlap) // self.stride))

    def reach(self, k: int) -> tuple[int, int]:
        """Give the voxels, start and stop, to which tile `k` contributes."""
        return k * self.stride, min(k * self.stride + self.tile, self.n_voxels)

    def read(self, k: int) -> tuple[int, int]:
        """Give the voxels that tile `k` sees: the last is shifted back to have real context."""
        start = max(0, min(k * self.stride, self.n_voxels - self.tile))
        return start, min(start + self.tile, self.n_voxels)

    def cell(self, j: int) -> tuple[int, int]:
        """Give the voxels, start and stop, of cell `j`."""
        stop = self.n_voxels if j == self.count - 1 else (j + 1) * self.stride
        return j * self.stride, stop

    def weights(self, k: int) -> NDArray[np.uint32]:
        """Give ``(reach,)`` uint32: the weights of tile `k` where it reaches, 0 … 64.

        A linear ramp sampled at voxel centres, ``(2 i + 1) / (2 overlap)``, in steps of 1/64, and
        its complement, so that two tiles sum to 64 whatever the overlap.
        """
        start, stop = self.reach(k)
        weights = np.full(stop - start, _AXIS_UNITY, dtype=np.uint32)
        if self.overlap:
            i = np.arange(self.overlap)
            ramp = np.rint(_AXIS_UNITY * (2 * i + 1) / (2 * self.overlap)).astype(np.uint32)
            if k > 0:
                weights[: self.overlap] = ramp
            if k < self.count - 1:
                weights[self.stride :] = _AXIS_UNITY - ramp
        return weights


@dataclass(frozen=True, slots=True)
class TilePlan:
    """How a volume is cut into overlapping cubic tiles and put together again.

    At every voxel the weights of all tiles sum to `UNITY`, every voxel lies in exactly one cell,
    and every tile lies inside the volume; an axis shorter than a tile has one, cut to its length.

    Raises
    ------
    UsageError
        If the shape is empty, or the overlap is negative or more than half of the tile.
    """

    shape: Zyx
    tile: int = 128
    overlap: int = 32

    def __post_init__(self) -> None:
        if min(self.shape) < 1:
            raise UsageError(f"a volume of {self.shape} voxels is empty: there is nothing to tile")
        if self.tile < 1:
            raise UsageError(f"tile {self.tile} must be at least 1 voxel")
        if not 0 <= self.overlap <= self.tile // 2:
            raise UsageError(
                f"overlap {self.overlap} must be 0 to {self.tile // 2} voxels, half of the tile "
                f"{self.tile}: take a smaller overlap or a larger tile"
            )

    @property
    def axes(self) -> tuple[AxisPlan, AxisPlan, AxisPlan]:
        """The plans of z, y and x."""
        z, y, x = (AxisPlan(n, self.tile, self.overlap) for n in self.shape)
        return z, y, x

    @property
    def grid(self) -> Zyx:
        """Number of tiles, and of cells, on each axis."""
        z, y, x = (axis.count for axis in self.axes)
        return z, y, x

    @property
    def n_tiles(self) -> int:
        """Number of tiles, and of cells."""
        return prod(self.grid)

    @property
    def tiles(self) -> tuple[Zyx, ...]:
        """Tiles, and cells, by their index on each axis, z slowest."""
        return indices(*map(range, self.grid))

    @property
    def sweep(self) -> tuple[Zyx, ...]:
        """Tiles in the order that keeps the fewest unfinished cells: the longest axis slowest."""
        slowest_first = sorted(range(3), key=lambda axis: -self.shape[axis])
        return tuple(sorted(self.tiles, key=lambda tile: [tile[axis] for axis in slowest_first]))

    @property
    def chunks(self) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        """Lengths of the cells on each axis, as Dask names chunks."""
        z, y, x = (
            tuple(stop - start for start, stop in map(axis.cell, range(axis.count)))
            for axis in self.axes
        )
        return z, y, x

    def reach(self, tile: Zyx) -> Box:
        """Give the voxels to which a tile contributes."""
        return _box([axis.reach(k) for axis, k in zip(self.axes, tile, strict=True)])

    def read(self, tile: Zyx) -> Box:
        """Give the voxels that a tile sees; its reach is inside."""
        return _box([axis.read(k) for axis, k in zip(self.axes, tile, strict=True)])

    def cell(self, index: Zyx) -> Box:
        """Give the voxels of a cell."""
        return _box([axis.cell(j) for axis, j in zip(self.axes, index, strict=True)])

    def contributors(self, index: Zyx) -> tuple[Zyx, ...]:
        """Give the tiles that reach into a cell: its own and those before it, up to 8."""
        return indices(*(range(max(0, j - 1), j + 1) for j in index))

    def dependents(self, tile: Zyx) -> tuple[Zyx, ...]:
        """Give the cells that a tile reaches into: its own and those after it, up to 8."""
        return indices(*(range(k, min(k + 2, n)) for k, n in zip(tile, self.grid, strict=True)))

    def part(self, tile: Zyx, index: Zyx) -> Box:
        """Give the voxels of a cell to which a tile contributes."""
        return self.reach(tile).intersect(self.cell(index))

    def weights(self, tile: Zyx) -> tuple[NDArray[np.uint32], ...]:
        """Give the weights of a tile on z, y and x over its reach; a voxel's is their product."""
        return tuple(axis.weights(k) for axis, k in zip(self.axes, tile, strict=True))


def indices(*ranges: range) -> tuple[Zyx, ...]:
    """Give all indices of three ranges, z slowest."""
    return tuple((z, y, x) for z, y, x in product(*ranges))


def _box(ranges: list[tuple[int, int]]) -> Box:
    (z0, z1), (y0, y1), (x0, x1) = ranges
    return Box((z0, y0, x0), (z1, y1, x1))
