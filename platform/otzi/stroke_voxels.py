"""The voxels of strokes, kept sparse: where they are and of which class."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from itertools import pairwise
from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np

from otzi.box import Box, Zyx

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from otzi.classes import ClassTable
    from otzi.strokes import Stroke

__all__ = ["StrokeVoxels", "rasterise"]

_PIECE_VOXELS = 32
_ROUNDING = 1e-9
"""Voxels exactly at the radius belong to the stroke, whatever the last bit says."""


@dataclass(frozen=True, slots=True, eq=False)
class StrokeVoxels:
    """Voxels with a class, each once, in C order."""

    shape: Zyx
    """Of the volume they are in."""
    coordinates: NDArray[np.int32]
    """``(n, 3)`` int32: z, y, x."""
    classes: NDArray[np.uint8]
    """``(n,)`` uint8: class indices."""

    @classmethod
    def from_indices(
        cls, shape: Zyx, indices: NDArray[np.int64], classes: NDArray[np.uint8]
    ) -> StrokeVoxels:
        """Give the voxels of flat indices into the volume; of two on one voxel the later stays."""
        unique, latest = np.unique(indices[::-1], return_index=True)
        coordinates = np.stack(np.unravel_index(unique, shape), axis=1)
        return cls(shape, coordinates.astype(np.int32), classes[::-1][latest])

    @classmethod
    def from_labels(cls, shape: Zyx, blocks: Iterable[tuple[Box, NDArray[Any]]]) -> StrokeVoxels:
        """Give the voxels of a label volume, box by box: 0 has none, label i means class i − 1."""
        indices, classes = [np.empty(0, np.int64)], [np.empty(0, np.uint8)]
        for box, labels in blocks:
            inside = np.nonzero(labels)
            places = tuple(i + start for i, start in zip(inside, box.start, strict=True))
            indices.append(np.ravel_multi_index(places, shape))
            classes.append((labels[inside] - 1).astype(np.uint8))
        return cls.from_indices(shape, np.concatenate(indices), np.concatenate(classes))

    def __len__(self) -> int:
        return len(self.classes)

    @property
    def indices(self) -> NDArray[np.int64]:
        """Flat indices into the volume, ``(n,)`` int64, ascending."""
        places = tuple(self.coordinates.T.astype(np.int64))
        return np.asarray(np.ravel_multi_index(places, self.shape), np.int64)

    @property
    def sha256(self) -> str:
        """What identifies voxels and classes."""
        digest = hashlib.sha256(repr(self.shape).encode())
        digest.update(self.coordinates.astype("<i4").tobytes())
        digest.update(self.classes.tobytes())
        return digest.hexdigest()

    def overlaid(self, later: StrokeVoxels) -> StrokeVoxels:
        """Give these voxels with others over them: on the same voxel, the other class stays."""
        return self.from_indices(
            self.shape,
            np.concatenate([self.indices, later.indices]),
            np.concatenate([self.classes, later.classes]),
        )

    def counts(self, n_classes: int) -> tuple[int, ...]:
        """Give the number of voxels of each class."""
        return tuple(int(n) for n in np.bincount(self.classes, minlength=n_classes))

    def labels(self, box: Box) -> NDArray[np.uint8]:
        """Give a box as a label volume: ``(z, y, x)`` uint8, 0 or class index + 1."""
        labels = np.zeros(box.shape, np.uint8)
        places = self.coordinates - box.start
        inside = ((places >= 0) & (places < box.shape)).all(axis=1)
        z, y, x = places[inside].T
        labels[z, y, x] = self.classes[inside] + np.uint8(1)
        return labels

    def by_block(self, side_voxels: int) -> Iterator[tuple[Box, NDArray[np.intp]]]:
        """Yield the voxels by cubes of a grid: their bounding box and their rows, ascending."""
        grid = tuple(-(-n // side_voxels) for n in self.shape)
        cube = np.ravel_multi_index(tuple(self.coordinates.T // side_voxels), grid)
        by_cube = np.argsort(cube, kind="stable")
        changes = np.flatnonzero(np.diff(cube[by_cube])) + 1
        for rows in np.split(by_cube, changes) if len(self) else ():
            z, y, x = (int(v) for v in self.coordinates[rows].min(axis=0))
            end_z, end_y, end_x = (int(v) + 1 for v in self.coordinates[rows].max(axis=0))
            yield Box((z, y, x), (end_z, end_y, end_x)), rows


def rasterise(strokes: Iterable[Stroke], classes: ClassTable, shape: Zyx) -> StrokeVoxels:
    """Give the voxels of strokes: those whose centre is within the radius of the polyline.

    Where strokes overlap, the later one counts. What is outside the volume is left out.

    Raises
    ------
    NotFoundError
        If a stroke is of none of the classes.
    """
    indices, labels = [np.empty(0, np.int64)], [np.empty(0, np.uint8)]
    for stroke in strokes:
        points = np.array(stroke.points, np.float64)
        corners = pairwise(points) if len(points) > 1 else [(points[0], points[0])]
        tubes = [tube for a, b in corners for tube in _tube(a, b, stroke.radius_voxels, shape)]
        indices += tubes
        index = classes.index(stroke.class_name)
        labels += [np.full(len(tube), index, np.uint8) for tube in tubes]
    return StrokeVoxels.from_indices(shape, np.concatenate(indices), np.concatenate(labels))


def _tube(
    start: NDArray[np.float64], stop: NDArray[np.float64], radius: float, shape: Zyx
) -> Iterator[NDArray[np.int64]]:
    """Yield flat indices of the voxels around a segment, some of them more than once.

    Pieces of it, because the bounding box of a long oblique segment is large and mostly empty.
    """
    along = stop - start
    length_squared = float(along @ along)
    n_pieces = max(1, ceil(length_squared**0.5 / _PIECE_VOXELS))
    cuts = start + np.linspace(0, 1, n_pieces + 1)[:, None] * along
    for a, b in pairwise(cuts):
        low = np.floor(np.minimum(a, b) - radius).astype(int)
        high = np.ceil(np.maximum(a, b) + radius).astype(int) + 1
        box = Box((low[0], low[1], low[2]), (high[0], high[1], high[2])).clip(shape)
        offsets = [axis - origin for axis, origin in zip(np.ogrid[box.slices], start, strict=True)]
        projection = sum(offset * d for offset, d in zip(offsets, along, strict=True))
        position = np.clip(projection / (length_squared or 1.0), 0, 1)
        distance_squared = sum(
            (offset - position * d) ** 2 for offset, d in zip(offsets, along, strict=True)
        )
        z, y, x = np.nonzero(distance_squared <= radius**2 + _ROUNDING)
        places = (z + box.start[0], y + box.start[1], x + box.start[2])
        yield np.ravel_multi_index(places, shape)
