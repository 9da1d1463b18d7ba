"""How far the boundaries of two segmentations are apart, class by class, in ångström."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Self

import numpy as np
from scipy import ndimage

from otzi.box import tile
from otzi.errors import MemoryBudgetError
from otzi.memory import format_bytes, resident_memory_bytes
from otzi_pipelines.evaluate.segmentation import UNLABELLED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from otzi_pipelines.evaluate.segmentation import Segmentation

__all__ = ["BoundaryDistance", "boundary_distances", "boundary_voxels", "symmetric_distances"]

_BLOCK = (128, 128, 128)
_BYTES_PER_VOXEL = 42
"""Measured, with the classes of both: 24 where boundaries are smooth, 42 where they are noise."""


@dataclass(frozen=True, slots=True)
class BoundaryDistance:
    """Of one class, in ångström; NaN where one of the two has no boundary of it."""

    mean_angstrom: float
    percentile95_angstrom: float

    @classmethod
    def of(cls, distances: NDArray[np.float64]) -> Self:
        """Give mean and percentile of distances, NaN of none."""
        if not distances.size:
            return cls(float("nan"), float("nan"))
        return cls(float(distances.mean()), float(np.percentile(distances, 95)))

    @classmethod
    def mean_of(cls, several: Sequence[BoundaryDistance]) -> Self:
        """Give the mean of several, of those that are defined."""
        defined = [b for b in several if not np.isnan(b.mean_angstrom)]
        if not defined:
            return cls(float("nan"), float("nan"))
        return cls(
            float(np.mean([b.mean_angstrom for b in defined])),
            float(np.mean([b.percentile95_angstrom for b in defined])),
        )


def boundary_distances(
    prediction: Segmentation, truth: Segmentation, memory_bytes: int
) -> tuple[int, tuple[BoundaryDistance, ...]]:
    """Give the finest level of the pyramids that fits into the memory, and its distances.

    Parameters
    ----------
    prediction, truth
        Of the same classes and shape.
    memory_bytes
        What the process may take in all.

    Raises
    ------
    MemoryBudgetError
        If the coarsest level does not fit.
    """
    level = _level_that_fits(prediction, truth, memory_bytes)
    classes = _class_of_voxels(prediction.at(level)), _class_of_voxels(truth.at(level))
    spacing = [v * 2**level for v in prediction.tomo.spacing_angstrom]
    found = []
    for index in range(len(prediction.classes)):
        first, second = (boundary_voxels(volume, index) for volume in classes)
        found.append(BoundaryDistance.of(symmetric_distances(first, second, spacing)))
    return level, tuple(found)


def boundary_voxels(classes: NDArray[np.uint8], index: int) -> NDArray[np.bool_]:
    """Give the voxels of a class that share a face with one of another class, ``(z, y, x)`` bool.

    Parameters
    ----------
    classes
        ``(z, y, x)`` uint8, the class; 255 where nothing is known, which bounds nothing.
    index
        The class.
    """
    inside, known = classes == index, classes != UNLABELLED
    boundary = np.zeros(classes.shape, np.bool_)
    for axis in range(3):
        here, there = np.moveaxis(boundary, axis, 0)[:-1], np.moveaxis(boundary, axis, 0)[1:]
        is_in, is_known = np.moveaxis(inside, axis, 0), np.moveaxis(known, axis, 0)
        here |= is_in[:-1] & ~is_in[1:] & is_known[1:]
        there |= is_in[1:] & ~is_in[:-1] & is_known[:-1]
    return boundary


def symmetric_distances(
    first: NDArray[np.bool_], second: NDArray[np.bool_], spacing: Sequence[float]
) -> NDArray[np.float64]:
    """Give the distance from each voxel of either to the nearest of the other, ``(n,)`` float64.

    Parameters
    ----------
    first, second
        ``(z, y, x)`` bool. Where one is empty, no distance is defined and none is given.
    spacing
        Of z, y and x, the unit of the distances.
    """
    if not (first.any() and second.any()):
        return np.empty(0)
    (region,) = ndimage.find_objects((first | second).view(np.int8))
    first, second = first[region], second[region]
    return np.concatenate(
        [_distances(*pair, spacing) for pair in ((first, second), (second, first))]
    )


def _distances(
    of: NDArray[np.bool_], to: NDArray[np.bool_], spacing: Sequence[float]
) -> NDArray[np.float64]:
    nearest: NDArray[np.int32] = ndimage.distance_transform_edt(
        ~to, sampling=spacing, return_distances=False, return_indices=True
    )
    places = np.nonzero(of)
    squares = np.zeros(len(places[0]))
    for found, place, step in zip(nearest, places, spacing, strict=True):
        squares += ((found[places] - place) * step) ** 2
    return np.sqrt(squares)


def _level_that_fits(prediction: Segmentation, truth: Segmentation, memory_bytes: int) -> int:
    n_levels = min(prediction.n_levels, truth.n_levels)
    needed = 0
    for level in range(n_levels):
        voxels = prod(prediction.at(level).shape)
        needed = resident_memory_bytes() + _BYTES_PER_VOXEL * voxels
        if needed <= memory_bytes:
            return level
    raise MemoryBudgetError(
        f"boundaries of {prediction.tomo.id} need {format_bytes(needed)} at level {n_levels - 1}, "
        f"--memory is {format_bytes(memory_bytes)}: allow more, or leave out --boundary"
    )


def _class_of_voxels(segmentation: Segmentation) -> NDArray[np.uint8]:
    """Give the most probable class of each voxel, ``(z, y, x)`` uint8, 255 where there is none."""
    classes = np.empty(segmentation.shape, np.uint8)
    for box in tile(segmentation.shape, _BLOCK):
        shares = segmentation.read(box)
        classes[box.slices] = np.where(shares.any(axis=0), shares.argmax(axis=0), UNLABELLED)
    return classes
