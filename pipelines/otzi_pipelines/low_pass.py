"""The density as the viewer shows it, block by block: mean over 3³ voxels, and its window."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from otzi.box import Box, tile
from otzi.compiled import compiled
from otzi.events import Listener, ignore
from otzi.parallel import in_threads

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from otzi.box import Zyx
    from otzi.tomogram import Tomogram

__all__ = ["PERCENTILES", "LowPass", "mean_of_27"]

PERCENTILES = (0.5, 99.5)
"""Of the low-passed density; what is between them becomes black to white."""

_BLOCK_VOXELS = 128
_BINS = 65536


class LowPass:
    """A reader: ``density(box)`` gives the mean over 3³ voxels, ``(z, y, x)`` float32.

    Beyond the faces of the volume lie copies of the outermost voxels.
    """

    def __init__(self, tomo: Tomogram) -> None:
        self.shape: Zyx = tomo.shape
        percentiles = tomo.attributes("raw")["statistics"]["percentiles"]
        self.low, self.middle, self.high = (percentiles[p] for p in ("0.1", "50", "99.9"))
        self._array = tomo.array("raw")
        self._scale, self._offset = map(np.float32, tomo.quantisation)

    def __call__(self, box: Box) -> NDArray[np.float32]:
        """Give the low-passed density of a box inside the volume."""
        wanted = box.grow(1)
        inside = wanted.clip(self.shape)
        stored = self._array[inside.slices]
        values = stored.astype(np.float32)
        values *= self._scale
        values += self._offset
        if stored.dtype.kind == "f":
            values[~np.isfinite(values)] = self.middle
        missing = [
            (a - b, d - c)
            for a, b, c, d in zip(inside.start, wanted.start, inside.stop, wanted.stop, strict=True)
        ]
        return mean_of_27(np.pad(values, missing, mode="edge"))

    def window(self, listen: Listener = ignore) -> tuple[float, float]:
        """Give the percentiles of the low-passed density, within 1/65536 of what raw spans.

        Raw spans 0.1 to 99.9 %: a mean is nearer to the middle than what it is the mean of.
        """
        if not self.low < self.high:
            return self.low, self.high
        width = np.float32((self.high - self.low) / _BINS)

        def count(box: Box) -> NDArray[np.int64]:
            found = np.zeros(_BINS, np.int64)
            _count(self(box), np.float32(self.low), width, found)
            return found

        boxes = list(tile(self.shape, (_BLOCK_VOXELS,) * 3))
        counts = np.zeros(_BINS, np.int64)
        for found in in_threads(count, boxes, "density window", "blocks", listen):
            counts += found
        below = np.concatenate([[0], np.cumsum(counts)]) / counts.sum() * 100
        edges = np.linspace(self.low, self.high, _BINS + 1)
        low, high = np.interp(PERCENTILES, below, edges)
        return float(low), float(high)


def mean_of_27(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Give the mean over 3³ voxels: ``(z, y, x)`` float32 of ``(z + 2, y + 2, x + 2)``.

    The same for a voxel whichever block it was read in, unlike a running sum.
    """
    z, y, x = (n - 2 for n in values.shape)
    mean = np.empty((z, y, x), np.float32)
    _average(values, mean)
    return mean


@compiled
def _average(values: NDArray[np.float32], mean: NDArray[np.float32]) -> None:
    columns = np.empty(values.shape[2], np.float32)
    for z in range(mean.shape[0]):
        for y in range(mean.shape[1]):
            columns[:] = 0
            for i in range(3):
                for j in range(3):
                    row = values[z + i, y + j]
                    for x in range(row.size):
                        columns[x] += row[x]
            for x in range(mean.shape[2]):
                total = columns[x] + columns[x + 1] + columns[x + 2]
                mean[z, y, x] = total / np.float32(27)


@compiled
def _count(
    values: NDArray[np.float32], low: np.float32, width: np.float32, counts: NDArray[np.int64]
) -> None:
    last = counts.size - 1
    for value in values.ravel():
        counts[min(max(int((value - low) / width), 0), last)] += 1
