"""Slices whose labelling would help most: where the forest is unsure, and nobody has drawn yet."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.ndimage import uniform_filter

from otzi.box import Box
from otzi.errors import UsageError
from otzi_pipelines.label.stroke_import import stroke_voxels
from otzi_pipelines.label.uncertainty import read_uncertainty, soft_labels

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from otzi.tomogram import Tomogram

__all__ = ["HotSpot", "Suggestion", "choose_slices", "hot_spots", "suggest_slices"]

_MOST_VOXELS = 2**24
"""Of the level that is looked at: a glance, whatever the volume."""
_MOST_SPOTS = 3
_SPOT_VOXELS = 32


@dataclass(frozen=True, slots=True)
class HotSpot:
    """A square of 32 voxels a side in a slice."""

    y: int
    """Its middle, in voxels of level 0."""
    x: int
    uncertainty: float
    """Mean over the square, in [0, 1]."""


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A slice to draw on."""

    z: int
    """In voxels of level 0."""
    uncertainty: float
    """Mean over the valid region of the slice, in [0, 1]."""
    hot_spots: tuple[HotSpot, ...]
    """Where it is most unsure, the worst first, none over another."""

    def to_json(self) -> dict[str, Any]:
        """Give the suggestion as plain JSON."""
        return asdict(self)


def suggest_slices(tomo: Tomogram, name: str, n: int = 5) -> list[Suggestion]:
    """Give the slices of a tomogram that are most worth drawing on, the best first.

    A level of at most 16 million voxels is looked at, where the pyramid has one: of
    ``labels/NAME_uncertainty`` if that is published, otherwise of the labels. Exact zeros of the
    density are no data and do not count.

    Parameters
    ----------
    tomo
        With soft labels.
    name
        Of these.
    n
        How many, at most: fewer where nothing else is unsure.

    Raises
    ------
    NotFoundError
        If there are no such labels.
    UsageError
        If they are hard, or for less than one slice.
    """
    if n < 1:
        raise UsageError(f"{n} slices: ask for at least 1")
    level = _level(tomo, name)
    unsure, means = _planes(tomo, name, level)
    centres = np.minimum((2 * np.arange(len(means)) + 1) * 2**level // 2, tomo.shape[0] - 1)
    drawn = stroke_voxels(tomo).coordinates[:, 0] if tomo.has("strokes") else np.empty(0, int)
    return [
        Suggestion(int(centres[i]), round(float(means[i]), 4), hot_spots(unsure[i], level))
        for i in choose_slices(means, centres, np.unique(drawn), n)
    ]


def choose_slices(
    means: NDArray[np.floating[Any]],
    centres: NDArray[np.integer[Any]],
    drawn: NDArray[np.integer[Any]],
    n: int,
) -> list[int]:
    """Give the indices of `n` unsure slices, apart from each other and from those drawn on.

    The most unsure of the slices that are far from all these is taken; where none is left, half as
    far is far enough. To begin with, it is the depth divided by 2·n.

    Parameters
    ----------
    means, centres
        ``(slice,)``: how unsure each is, and its z, ascending; a slice of 0 is never chosen.
    drawn
        z of the slices that have strokes.
    n
        How many, at most.
    """
    chosen: list[int] = []
    distance = max(1, int(centres[-1] + 1) // (2 * n))
    while distance and len(chosen) < n:
        taken = np.concatenate([drawn, centres[chosen]])
        is_near = (np.abs(centres[:, None] - taken) < distance).any(axis=1)
        best = int(np.where(is_near, 0, means).argmax())
        if is_near[best] or means[best] <= 0:
            distance //= 2
        else:
            chosen.append(best)
    return chosen


def hot_spots(unsure: NDArray[np.uint8], level: int = 0) -> tuple[HotSpot, ...]:
    """Give the most unsure squares of a slice, ``(y, x)`` uint8 of a level, the worst first."""
    side = max(1, _SPOT_VOXELS >> level)
    means = uniform_filter(unsure.astype(np.float32), side, mode="constant")
    spots: list[HotSpot] = []
    while len(spots) < _MOST_SPOTS and (worst := float(means.max())) > 0:
        y, x = (int(i) for i in np.unravel_index(means.argmax(), means.shape))
        spots.append(HotSpot(y * 2**level, x * 2**level, round(worst / 255, 4)))
        means[max(0, y - side + 1) : y + side, max(0, x - side + 1) : x + side] = 0
    return tuple(spots)


def _level(tomo: Tomogram, name: str) -> int:
    """Give the finest level that is small enough, or the coarsest there is."""
    last = tomo.image(f"labels/{name}").n_levels - 1
    for level in range(last):
        if prod(soft_labels(tomo, name, level).shape[1:]) <= _MOST_VOXELS:
            return level
    return last


def _planes(tomo: Tomogram, name: str, level: int) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Give the uncertainty of a level, 0 where there is no data, and the mean of each slice."""
    density = tomo.array("raw", level)
    unsure = np.empty(density.shape, np.uint8)
    means = np.zeros(len(unsure))
    depth, height, width = unsure.shape
    planes = density.chunk[0]
    for z in range(0, depth, planes):
        box = Box((z, 0, 0), (z + planes, height, width)).clip((depth, height, width))
        here = box.slices[0]
        is_valid = density[box.slices] != 0
        unsure[here] = read_uncertainty(tomo, name, box, level) * is_valid
        totals = unsure[here].sum(axis=(1, 2), dtype=np.float64)
        means[here] = totals / 255 / np.maximum(is_valid.sum(axis=(1, 2)), 1)
    return unsure, means
