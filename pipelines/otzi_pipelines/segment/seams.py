"""Seams: how much probabilities change across each plane between voxels, tile planes or not.

Where tiles are put together badly, values jump at the planes at which the tiles that contribute
change. Sums are of integers, so that they are the same whatever the order of the blocks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from otzi.compiled import compiled

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import NDArray

    from otzi.box import Box, Zyx
    from otzi.tiles.plan import TilePlan

__all__ = ["PlaneSteps", "Planes", "tile_planes"]

Planes = tuple["Collection[int]", "Collection[int]", "Collection[int]"]


def tile_planes(plan: TilePlan) -> Planes:
    """Give, of z, y and x, the voxels at which other tiles contribute than at the one before.

    A tile comes in at its beginning, and the one before it is out where their overlap ends.
    """
    z, y, x = (
        {
            position
            for k in range(1, axis.count)
            for position in (k * axis.stride, k * axis.stride + axis.overlap)
            if position < axis.n_voxels
        }
        for axis in plan.axes
    )
    return z, y, x


class PlaneSteps:
    """Sums of |difference| of neighbouring voxels, for each plane between them, class and axis."""

    sums: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]
    """Of z, y and x: ``(c, n)``; element i is of the plane between voxels i − 1 and i."""

    def __init__(self, n_classes: int, shape: Zyx) -> None:
        self._shape = shape
        z, y, x = (np.zeros((n_classes, n), np.int64) for n in shape)
        self.sums = z, y, x

    def add(self, box: Box, codes: NDArray[Any]) -> None:
        """Add all planes inside a box of ``(c, z, y, x)`` unsigned codes of at most 16 bits."""
        z, y, x = (own[:, s] for own, s in zip(self.sums, box.slices, strict=True))
        _add_steps(codes, z, y, x)

    def add_between(
        self, axis: int, position: int, before: NDArray[Any], after: NDArray[Any]
    ) -> None:
        """Add one plane: ``(c, …)`` codes of the voxels before `position` on an axis, and at it."""
        steps = np.abs(after.astype(np.int32) - before.astype(np.int32))
        self.sums[axis][:, position] += steps.reshape(len(steps), -1).sum(1, dtype=np.int64)

    def means(self, planes: Planes) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Give the mean |difference| across `planes`, and across all other planes, in codes.

        Each is ``(axis, c)``, NaN on an axis that has no such plane.
        """
        n_voxels = float(np.prod(self._shape))
        inside: list[NDArray[np.float64]] = []
        others: list[NDArray[np.float64]] = []
        for own, chosen in zip(self.sums, planes, strict=True):
            n_planes = own.shape[1] - 1
            area = n_voxels / own.shape[1]
            total = own.sum(axis=1)
            at = own[:, sorted(chosen)].sum(axis=1)
            for found, means, n in (
                (at, inside, len(chosen)),
                (total - at, others, n_planes - len(chosen)),
            ):
                means.append(found / (area * n) if n else np.full(len(own), np.nan))
        return np.stack(inside), np.stack(others)

    def largest_over_median(self) -> float | None:
        """Give how much more changes across the worst plane than across the median one.

        It is the largest over axes and classes; None where nothing changes.
        """
        ratios = [
            float(steps.max() / np.median(steps))
            for own in self.sums
            for steps in own[:, 1:]
            if steps.size and np.median(steps) > 0
        ]
        return max(ratios, default=None)


@compiled
def _add_steps(
    codes: NDArray[Any], sums_z: NDArray[Any], sums_y: NDArray[Any], sums_x: NDArray[Any]
) -> None:
    n_classes, depth, rows, columns = codes.shape
    # Lanes of 32 bits, twice as many at a time as of 64: the rows of one slice do not fill them.
    along_x = np.zeros(columns, np.uint32)
    for c in range(n_classes):
        for z in range(depth):
            along_x[:] = 0
            for y in range(rows):
                row = codes[c, z, y]
                if z:
                    sums_z[c, z] += _distance(row, codes[c, z - 1, y])
                if y:
                    sums_y[c, y] += _distance(row, codes[c, z, y - 1])
                for x in range(1, columns):
                    along_x[x] += np.uint32(abs(np.int32(row[x]) - np.int32(row[x - 1])))
            for x in range(1, columns):
                sums_x[c, x] += along_x[x]


@compiled
def _distance(one: NDArray[Any], other: NDArray[Any]) -> int:
    total = np.uint32(0)
    for x in range(one.size):
        total += np.uint32(abs(np.int32(one[x]) - np.int32(other[x])))
    return int(total)
