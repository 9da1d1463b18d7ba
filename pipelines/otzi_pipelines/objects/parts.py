"""What is known of pieces of objects, as columns of integers that add up exactly.  Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from otzi.compiled import compiled

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from otzi.box import Box, Zyx

__all__ = ["DIRECTIONS", "PART_BYTES", "Parts", "measure"]

DIRECTIONS = ((0, 0, 1), (0, 1, 0), (0, 1, 1), (1, 0, 0), (1, 0, 1), (1, 1, 0), (1, 1, 1))
"""Steps to a neighbour, z, y, x, without their signs: what `Parts.crossings` tells apart."""

_CODES = 4
_CROSSINGS = 5
_N_SUMS = _CROSSINGS + len(DIRECTIONS)
_N_LEAST, _N_MOST = 4, 4
PART_BYTES = 8 * (_N_SUMS + _N_LEAST + _N_MOST)
"""Of one piece."""


@dataclass(frozen=True, slots=True)
class Parts:
    """Pieces of objects, a row each; pieces of one object are merged by `merged`."""

    sums: NDArray[np.int64]
    """``(n, 12)``: voxels; the sums of their z, y and x; that of their codes; and how often the
    object ends along each of `DIRECTIONS`."""
    least: NDArray[np.int64]
    """``(n, 4)``: the first voxel, counted through the volume in the order z, y, x; and the start
    of the bounding box, z, y, x."""
    most: NDArray[np.int64]
    """``(n, 4)``: the stop of the bounding box, z, y, x; and the class, from 1."""

    @classmethod
    def joined(cls, several: Sequence[Parts]) -> Parts:
        """Give the pieces of all, one after another."""
        if not several:
            return cls(*(np.zeros((0, n), np.int64) for n in (_N_SUMS, _N_LEAST, _N_MOST)))
        columns = ([getattr(parts, name) for parts in several] for name in cls.__slots__)
        return cls(*map(np.concatenate, columns))

    def __len__(self) -> int:
        return len(self.sums)

    def __getitem__(self, rows: NDArray[Any]) -> Parts:
        """Give some of the pieces, by index or by mask."""
        return Parts(self.sums[rows], self.least[rows], self.most[rows])

    def merged(self, groups: NDArray[np.integer[Any]]) -> Parts:
        """Give one piece for each group, by its number: ``(n,)`` from 0 on, none left out."""
        order = np.argsort(groups, kind="stable")
        starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
        return Parts(
            np.add.reduceat(self.sums[order], starts) if len(self) else self.sums,
            np.minimum.reduceat(self.least[order], starts) if len(self) else self.least,
            np.maximum.reduceat(self.most[order], starts) if len(self) else self.most,
        )

    @property
    def voxels(self) -> NDArray[np.int64]:
        """``(n,)`` number of voxels."""
        return self.sums[:, 0]

    @property
    def positions(self) -> NDArray[np.int64]:
        """``(n, 3)`` sums of the voxels' z, y, x."""
        return self.sums[:, 1:_CODES]

    @property
    def codes(self) -> NDArray[np.int64]:
        """``(n,)`` sums of the voxels' codes."""
        return self.sums[:, _CODES]

    @property
    def crossings(self) -> NDArray[np.int64]:
        """``(n, 7)``: pairs of a voxel inside and a neighbour outside, along each direction."""
        return self.sums[:, _CROSSINGS:]

    @property
    def first(self) -> NDArray[np.int64]:
        """``(n,)`` number of the first voxel in the volume."""
        return self.least[:, 0]

    @property
    def start(self) -> NDArray[np.int64]:
        """``(n, 3)`` start of the bounding box."""
        return self.least[:, 1:]

    @property
    def stop(self) -> NDArray[np.int64]:
        """``(n, 3)`` stop of the bounding box."""
        return self.most[:, :3]

    @property
    def kinds(self) -> NDArray[np.int64]:
        """``(n,)`` classes, from 1."""
        return self.most[:, 3]


def measure(
    labels: NDArray[np.int32],
    kinds: NDArray[np.uint8],
    codes: NDArray[Any],
    n_labels: int,
    held: Box,
    inner: Box,
    shape: Zyx,
) -> Parts:
    """Give the pieces of a block; each voxel and each pair of neighbours counts in one block only.

    A pair is counted where its larger z, y and x lie: so a block that holds one voxel more at its
    low faces sees all of its pairs, and a piece of which only such voxels are there has no voxels.

    Parameters
    ----------
    labels
        ``(z, y, x)`` int32 of `held`: 0, or the piece from 1 to `n_labels`.
    kinds
        The same, uint8: 0, or the class from 1.
    codes
        The same, unsigned: what is averaged over an object.
    held, inner
        The voxels that are there, and those that are counted.
    shape
        Of the volume.
    """
    sums = np.zeros((n_labels, _N_SUMS), np.int64)
    least = np.full((n_labels, _N_LEAST), np.iinfo(np.int64).max)
    most = np.zeros((n_labels, _N_MOST), np.int64)
    origin = np.array(held.start)
    _count(
        labels,
        kinds,
        codes,
        origin,
        np.array(inner.start) - origin,
        np.array(shape[1:]),
        sums,
        least,
        most,
    )
    return Parts(sums, least, most)


@compiled
def _count(
    labels: NDArray[np.int32],
    kinds: NDArray[np.uint8],
    codes: NDArray[Any],
    origin: NDArray[np.int64],
    skip: NDArray[np.int64],
    extent: NDArray[np.int64],
    sums: NDArray[np.int64],
    least: NDArray[np.int64],
    most: NDArray[np.int64],
) -> None:
    depth, height, width = labels.shape
    for z in range(skip[0], depth):
        for y in range(skip[1], height):
            for x in range(skip[2], width):
                label = labels[z, y, x]
                if label:
                    i = label - 1
                    own = sums[i]
                    gz, gy, gx = z + origin[0], y + origin[1], x + origin[2]
                    own[0] += 1
                    own[1] += gz
                    own[2] += gy
                    own[3] += gx
                    own[4] += codes[z, y, x]
                    low, high = least[i], most[i]
                    low[0] = min(low[0], (gz * extent[0] + gy) * extent[1] + gx)
                    low[1], high[0] = min(low[1], gz), max(high[0], gz + 1)
                    low[2], high[1] = min(low[2], gy), max(high[1], gy + 1)
                    low[3], high[2] = min(low[3], gx), max(high[2], gx + 1)
                    high[3] = kinds[z, y, x]
                # What lies between the voxel and the one before it on all three axes.
                az, ay, ax = z - (z > 0), y - (y > 0), x - (x > 0)
                kind = kinds[z, y, x]
                if (
                    kind == kinds[z, y, ax]
                    and kind == kinds[z, ay, x]
                    and kind == kinds[z, ay, ax]
                    and kind == kinds[az, y, x]
                    and kind == kinds[az, y, ax]
                    and kind == kinds[az, ay, x]
                    and kind == kinds[az, ay, ax]
                ):
                    continue
                for direction in range(1, 8):
                    dz, dy, dx = direction >> 2, direction >> 1 & 1, direction & 1
                    if dz > z or dy > y or dx > x:
                        continue  # beyond the volume nothing is known
                    # Every pair of opposite corners, of which one has the larger z (y, x) first.
                    for fy in range(1 + (dy & dz)):
                        for fx in range(1 + (dx & (dz | dy))):
                            y1, x1 = y - fy, x - fx
                            z2, y2, x2 = z - dz, y - (dy ^ fy), x - (dx ^ fx)
                            one, other = kinds[z, y1, x1], kinds[z2, y2, x2]
                            if one != other:
                                if one:
                                    sums[labels[z, y1, x1] - 1, 4 + direction] += 1
                                if other:
                                    sums[labels[z2, y2, x2] - 1, 4 + direction] += 1
