"""Half-open boxes of voxels in z, y, x.  Pure."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from math import prod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Box", "Zyx", "tile"]

Zyx = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Box:
    """The voxels with ``start <= index < stop`` on each axis, in z, y, x."""

    start: Zyx
    stop: Zyx

    @classmethod
    def whole(cls, shape: Zyx) -> Box:
        """Give the box of a whole volume of this shape."""
        return cls((0, 0, 0), shape)

    @property
    def shape(self) -> Zyx:
        """Extent in voxels; 0 where the box is empty."""
        z, y, x = (max(0, b - a) for a, b in zip(self.start, self.stop, strict=True))
        return z, y, x

    @property
    def n_voxels(self) -> int:
        """Number of voxels inside."""
        return prod(self.shape)

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        """The box as an index of a (z, y, x) array."""
        z, y, x = (slice(a, b) for a, b in zip(self.start, self.stop, strict=True))
        return z, y, x

    def grow(self, halo_voxels: int) -> Box:
        """Give the box with `halo_voxels` more on every side."""
        return Box(
            _zyx(a - halo_voxels for a in self.start), _zyx(b + halo_voxels for b in self.stop)
        )

    def shift(self, offset: Zyx) -> Box:
        """Give the box moved by `offset`."""
        return Box(
            _zyx(a + d for a, d in zip(self.start, offset, strict=True)),
            _zyx(b + d for b, d in zip(self.stop, offset, strict=True)),
        )

    def intersect(self, other: Box) -> Box:
        """Give the voxels that are in both; an empty box where there are none."""
        start = _zyx(max(a, b) for a, b in zip(self.start, other.start, strict=True))
        stop = (min(a, b) for a, b in zip(self.stop, other.stop, strict=True))
        return Box(start, _zyx(max(a, b) for a, b in zip(start, stop, strict=True)))

    def clip(self, shape: Zyx) -> Box:
        """Give the part inside a volume of this shape."""
        return self.intersect(Box.whole(shape))

    def within(self, outer: Box) -> tuple[slice, slice, slice]:
        """Give the index of this box in an array that holds `outer`."""
        z, y, x = (-a for a in outer.start)
        return self.shift((z, y, x)).slices


def tile(shape: Zyx, block: Zyx) -> Iterator[Box]:
    """Yield boxes of `block` voxels, cut at the faces, that hold every voxel exactly once."""
    ranges = [range(0, n, b) for n, b in zip(shape, block, strict=True)]
    for z, y, x in product(*ranges):
        start = (z, y, x)
        yield Box(start, _zyx(a + b for a, b in zip(start, block, strict=True))).clip(shape)


def _zyx(values: Iterator[int]) -> Zyx:
    z, y, x = values
    return z, y, x
