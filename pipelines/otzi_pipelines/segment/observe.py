"""What is seen of probabilities as they are written: histograms, coverage, sums and seams."""

from __future__ import annotations

from itertools import product
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from otzi.compiled import compiled
from otzi_pipelines.ramps.histograms import SliceHistograms, code_count, codes_of
from otzi_pipelines.segment.observation import Observation, Seam
from otzi_pipelines.segment.seams import PlaneSteps, tile_planes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import DTypeLike, NDArray

    from otzi.box import Box, Zyx
    from otzi.tiles.plan import TilePlan

__all__ = ["Observer"]


class Observer:
    """Takes every cell once, from any thread and in any order; what it gives does not show which.

    Memory is that of the histograms and of one face for every cell whose neighbour is yet to come:
    in the order of ``plan.sweep`` those of a cross-section of the volume.

    Parameters
    ----------
    shape
        Of the volume.
    classes
        Their names, in the order of the channels.
    dtype
        As stored.
    plan
        The cells.
    """

    def __init__(
        self, shape: Zyx, classes: Sequence[str], dtype: DTypeLike, plan: TilePlan
    ) -> None:
        self._classes = tuple(classes)
        self._dtype = np.dtype(dtype)
        self._plan = plan
        self._histograms = SliceHistograms(len(self._classes), shape[0], dtype)
        self._steps = PlaneSteps(len(self._classes), shape)
        self._visits = np.zeros(plan.grid, np.uint16)
        self._ranges = [list(map(axis.cell, range(axis.count))) for axis in plan.axes]
        self._faces: dict[tuple[int, Zyx], NDArray[Any]] = {}
        self._largest_sum_error = 0.0
        self._wrong_sum_voxels = 0
        self._lock = Lock()

    @property
    def histograms(self) -> NDArray[np.uint32]:
        """``(c, z, code)`` counts: see `otzi_pipelines.ramps.histograms`."""
        return self._histograms.counts

    def see(self, cell: Box, stored: NDArray[Any]) -> None:
        """Take a cell, or several that make up a box: ``(c, z, y, x)`` as stored."""
        codes = codes_of(stored)
        error, n_wrong = self._sum_errors(stored)
        with self._lock:
            self._largest_sum_error = max(self._largest_sum_error, error)
            self._wrong_sum_voxels += n_wrong
            for index in self._cells_of(cell):
                self._visits[index] += 1
                if self._visits[index] == 1:
                    box = self._plan.cell(index)
                    self._take(index, box, codes[(slice(None), *box.within(cell))])

    def observation(self) -> Observation:
        """Give what was seen so far."""
        sizes = [np.array(lengths) for lengths in self._plan.chunks]
        n_voxels = sizes[0][:, None, None] * sizes[1][:, None] * sizes[2]
        at_tiles, elsewhere = self._steps.means(tile_planes(self._plan))
        highest = code_count(self._dtype) - 1
        return Observation(
            n_cells=self._plan.n_tiles,
            n_voxels=int(n_voxels.sum()),
            covered_voxels=int(n_voxels[self._visits > 0].sum()),
            repeated_voxels=int(n_voxels[self._visits > 1].sum()),
            largest_sum_error=self._largest_sum_error,
            sum_tolerance=self._tolerance,
            wrong_sum_voxels=self._wrong_sum_voxels,
            seams=tuple(
                Seam(
                    axis, name, _number(at_tiles[a, c], highest), _number(elsewhere[a, c], highest)
                )
                for a, axis in enumerate("zyx")
                for c, name in enumerate(self._classes)
            ),
        )

    @property
    def _tolerance(self) -> float:
        if self._dtype == np.uint8:
            return 1 / 255
        return len(self._classes) * float(np.finfo(self._dtype).eps)

    def _sum_errors(self, stored: NDArray[Any]) -> tuple[float, int]:
        if self._dtype == np.uint8:
            largest, n_wrong = _byte_sum_errors(stored)
            return largest / 255, n_wrong
        errors = np.abs(stored.sum(axis=0, dtype=np.float64) - 1)
        np.nan_to_num(errors, copy=False, nan=np.inf)
        return float(errors.max()), int(np.count_nonzero(errors > self._tolerance))

    def _cells_of(self, box: Box) -> Iterator[Zyx]:
        """Give the cells that lie in a box."""
        z, y, x = (
            [j for j, (first, last) in enumerate(ranges) if start <= first and last <= stop]
            for ranges, start, stop in zip(self._ranges, box.start, box.stop, strict=True)
        )
        return product(z, y, x)

    def _take(self, index: Zyx, box: Box, codes: NDArray[Any]) -> None:
        self._histograms.add(box.start[0], codes)
        self._steps.add(box, codes)
        for axis in range(3):
            if index[axis]:
                self._meet(axis, index, box.start[axis], codes, is_after=True)
            if index[axis] + 1 < self._plan.grid[axis]:
                z, y, x = (k + (i == axis) for i, k in enumerate(index))
                self._meet(axis, (z, y, x), box.stop[axis], codes, is_after=False)

    def _meet(
        self, axis: int, after: Zyx, position: int, codes: NDArray[Any], *, is_after: bool
    ) -> None:
        """Compare a face with that of the neighbour, or keep it until that one comes.

        `after` is the cell behind the plane between the two, which begins at `position`.
        """
        face = codes.take(0 if is_after else -1, axis + 1)
        other = self._faces.pop((axis, after), None)
        if other is None:
            self._faces[axis, after] = face
        else:
            before, behind = (other, face) if is_after else (face, other)
            self._steps.add_between(axis, position, before, behind)


def _number(mean_codes: float, highest: int) -> float | None:
    return None if np.isnan(mean_codes) else float(mean_codes) / highest


@compiled
def _byte_sum_errors(stored: NDArray[np.uint8]) -> tuple[int, int]:
    """Give the largest |Σ − 255|, and of how many voxels it is more than 1."""
    n_classes, depth, rows, columns = stored.shape
    largest, n_wrong = 0, 0
    totals = np.zeros(columns, np.int32)
    for z in range(depth):
        for y in range(rows):
            totals[:] = -255
            for c in range(n_classes):
                row = stored[c, z, y]
                for x in range(columns):
                    totals[x] += row[x]
            wrong = 0
            for x in range(columns):
                error = abs(totals[x])
                largest = max(largest, int(error))
                wrong += int(error > 1)
            n_wrong += wrong
    return largest, n_wrong
