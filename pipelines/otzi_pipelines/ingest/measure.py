"""What is measured of a volume while it is read: moments, and where it is not finite.  Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from otzi.box import Box
from otzi.store.moments import Moments

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from otzi.box import Zyx

__all__ = ["Measured"]


@dataclass(frozen=True, slots=True)
class Measured:
    """What has been seen of a volume so far; merging is associative."""

    moments: Moments
    nonfinite_box: Box | None = None
    """The smallest box that holds every voxel that is not finite."""

    def of(self, box: Box, block: NDArray[Any]) -> Measured:
        """Give the measures of a ``(z, y, x)`` block that lies in a box, of this one's dtype."""
        none = Moments.none(self.moments.dtype, self.moments.reference)
        moments = none.add(block)
        if not moments.nonfinite_voxels:
            return Measured(moments)
        return Measured(moments, _bounds(~np.isfinite(block)).shift(box.start))

    def merge(self, other: Measured) -> Measured:
        """Give the measures of both parts together."""
        boxes = [box for box in (self.nonfinite_box, other.nonfinite_box) if box is not None]
        return Measured(self.moments.merge(other.moments), _hull(boxes) if boxes else None)

    def without_nonfinite(self) -> Moments:
        """Give the moments as if every voxel that is not finite were none at all."""
        return replace(self.moments, nonfinite_voxels=0)

    def to_json(self) -> dict[str, Any]:
        """Give the statistics as plain JSON.

        Raises
        ------
        SourceError
            If not a single voxel is finite.
        """
        statistics = self.moments.to_json()
        statistics["constant"] = statistics["minimum"] == statistics["maximum"]
        if self.nonfinite_box is not None:
            start, stop = self.nonfinite_box.start, self.nonfinite_box.stop
            statistics["nonfinite_box"] = {"start": list(start), "stop": list(stop)}
        return statistics


def _bounds(mask: NDArray[np.bool_]) -> Box:
    spans = []
    for axis in range(3):
        others = tuple(a for a in range(3) if a != axis)
        found = np.flatnonzero(mask.any(axis=others))
        spans.append((int(found[0]), int(found[-1]) + 1))
    (z, z_stop), (y, y_stop), (x, x_stop) = spans
    return Box((z, y, x), (z_stop, y_stop, x_stop))


def _hull(boxes: list[Box]) -> Box:
    def along(axis: int) -> tuple[int, int]:
        return min(b.start[axis] for b in boxes), max(b.stop[axis] for b in boxes)

    (z, z_stop), (y, y_stop), (x, x_stop) = map(along, range(3))
    start: Zyx = (z, y, x)
    return Box(start, (z_stop, y_stop, x_stop))
