"""Bodies made of capsules, and how they become voxels within their own boxes.  Pure.

Lengths and places are in ångström, z, y, x; the centre of voxel i is at i times the voxel size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from otzi.box import Box, Zyx, tile

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

__all__ = ["Body", "blocks_around", "occupancy", "offsets_from", "paint"]

_BLOCK_VOXELS = 96


@dataclass(frozen=True, slots=True, eq=False)
class Body:
    """A union of capsules of one density."""

    starts: NDArray[np.float64]
    """``(n, 3)``: one end of each capsule's axis."""
    stops: NDArray[np.float64]
    """``(n, 3)``: the other end; the same for a sphere."""
    radii: NDArray[np.float64]
    """``(n,)``."""
    density: float
    """Above that of ice, where protein has about 1."""

    @classmethod
    def spheres(
        cls, centres: NDArray[np.float64], radii: NDArray[np.float64], density: float
    ) -> Body:
        """Give the union of spheres."""
        return cls(centres, centres, radii, density)

    def blocks(self, voxel_angstrom: float, shape: Zyx) -> Iterator[Box]:
        """Yield boxes that together hold all that the body touches in a volume."""
        low = (np.minimum(self.starts, self.stops) - self.radii[:, None]).min(axis=0)
        high = (np.maximum(self.starts, self.stops) + self.radii[:, None]).max(axis=0)
        return blocks_around(low, high, voxel_angstrom, shape)

    def distance(self, box: Box, voxel_angstrom: float) -> NDArray[np.float32]:
        """Give the distance to the surface at voxels, negative inside: ``(z, y, x)`` float32."""
        nearest = np.full(box.shape, np.inf, np.float32)
        for start, stop, radius in zip(self.starts, self.stops, self.radii, strict=True):
            offsets = offsets_from(start, box, voxel_angstrom)
            squared: Any = sum(o * o for o in offsets)
            axis = stop - start
            if axis.any():
                length_squared = np.float32(axis @ axis)
                dot: Any = sum(o * np.float32(a) for o, a in zip(offsets, axis, strict=True))
                along = np.clip(dot / length_squared, 0, 1)
                squared = squared - along * (2 * dot - along * length_squared)
            distance = np.sqrt(np.maximum(squared, 0)) - np.float32(radius)
            np.minimum(nearest, distance, out=nearest)
        return nearest

    def paint(self, volume: NDArray[np.float32], voxel_angstrom: float) -> None:
        """Lay the body into a density."""
        shape: Zyx = (volume.shape[0], volume.shape[1], volume.shape[2])
        for box in self.blocks(voxel_angstrom, shape):
            share = occupancy(self.distance(box, voxel_angstrom), voxel_angstrom)
            paint(volume, box, np.float32(self.density) * share)


def blocks_around(
    low: NDArray[np.float64], high: NDArray[np.float64], voxel_angstrom: float, shape: Zyx
) -> Iterator[Box]:
    """Yield boxes of bounded size that together hold the voxels from `low` to `high`."""
    first = np.floor(low / voxel_angstrom).astype(int)
    last = np.ceil(high / voxel_angstrom).astype(int) + 1
    whole = Box((first[0], first[1], first[2]), (last[0], last[1], last[2])).clip(shape)
    for block in tile(whole.shape, (_BLOCK_VOXELS,) * 3):
        yield block.shift(whole.start)


def offsets_from(
    origin: NDArray[np.float64], box: Box, voxel_angstrom: float
) -> tuple[NDArray[np.float32], ...]:
    """Give z, y and x of the voxels of a box from a place, as arrays that broadcast; float32."""
    axes = (
        np.arange(a, b) * voxel_angstrom - o
        for a, b, o in zip(box.start, box.stop, origin, strict=True)
    )
    return tuple(np.ix_(*(axis.astype(np.float32) for axis in axes)))


def occupancy(distance: NDArray[np.float32], voxel_angstrom: float) -> NDArray[np.float32]:
    """Give about which share of voxels lies inside a surface at that distance: float32."""
    share = np.clip(np.float32(0.5) - distance / np.float32(voxel_angstrom), 0, 1)
    return np.asarray(share, np.float32)


def paint(volume: NDArray[np.float32], box: Box, values: NDArray[np.float32]) -> None:
    """Lay values into a box of a volume: of two things at one place the denser one counts."""
    target = volume[box.slices]
    np.maximum(target, values, out=target)
