"""Strokes as a label volume that is never in memory as a whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from otzi.box import Box
from otzi.stroke_voxels import StrokeVoxels, rasterise

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

    from otzi.box import Zyx
    from otzi.classes import ClassTable
    from otzi.strokes import Stroke

__all__ = ["StrokeOverlay"]


class StrokeOverlay:
    """The strokes of a tomogram: ``overlay[region]`` is ``(z, y, x)`` uint8, 0 or class index + 1.

    Each stroke is rasterised when it is added; a region costs those that cross it.

    Parameters
    ----------
    shape
        Of the volume.
    classes
        Of the strokes.
    below
        Gives the labels of a box on which the strokes lie; nothing if None.
    """

    dtype = np.dtype(np.uint8)
    ndim = 3

    def __init__(
        self,
        shape: Zyx,
        classes: ClassTable,
        below: Callable[[Box], NDArray[np.uint8]] | None = None,
    ) -> None:
        self.shape = shape
        self._classes = classes
        self._below = below
        self._strokes: list[tuple[Box, StrokeVoxels]] = []

    def show(self, strokes: Iterable[Stroke]) -> None:
        """Add strokes on top."""
        for stroke in strokes:
            voxels = rasterise((stroke,), self._classes, self.shape)
            self._strokes.append((_bounds(voxels), voxels))

    def hide_last(self) -> None:
        """Take the last stroke away."""
        self._strokes.pop()

    def __getitem__(self, region: tuple[slice, slice, slice]) -> NDArray[np.uint8]:
        spans = [s.indices(n)[:2] for s, n in zip(region, self.shape, strict=True)]
        (z, z_stop), (y, y_stop), (x, x_stop) = spans
        box = Box((z, y, x), (z_stop, y_stop, x_stop))
        labels = np.zeros(box.shape, np.uint8) if self._below is None else self._below(box)
        for bounds, voxels in tuple(self._strokes):
            common = bounds.intersect(box)
            if common.n_voxels:
                part = voxels.labels(common)
                inside = labels[common.within(box)]
                np.copyto(inside, part, where=part > 0)
        return labels


def _bounds(voxels: StrokeVoxels) -> Box:
    if not len(voxels):
        return Box((0, 0, 0), (0, 0, 0))
    low, high = voxels.coordinates.min(axis=0), voxels.coordinates.max(axis=0) + 1
    (z, y, x), (z_stop, y_stop, x_stop) = low.tolist(), high.tolist()
    return Box((z, y, x), (z_stop, y_stop, x_stop))
