"""Strokes as a person might draw them, taken from the truth."""

from __future__ import annotations

from math import floor, inf
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from otzi.box import Box
from otzi.classes import DEFAULT_CLASSES
from otzi.stroke_voxels import rasterise
from otzi.strokes import Stroke, Strokes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.random import Generator
    from numpy.typing import NDArray

    from otzi_pipelines.phantom.settings import StrokeSettings

__all__ = ["draw_strokes"]

_STEP_VOXELS = (4, 7)
_WOBBLE = 0.4
_LEAST_COSINE = 0.5
"""Of the angle by which a stroke turns at a corner."""
_N_BETWEEN = 8


def draw_strokes(
    labels: NDArray[np.uint8],
    stands_out: NDArray[np.bool_],
    settings: StrokeSettings,
    tomogram: str,
    rng: Generator,
) -> Strokes:
    """Give strokes all of whose voxels are of their class.

    Parameters
    ----------
    labels
        ``(z, y, x)`` uint8: class index + 1.
    stands_out
        ``(z, y, x)`` bool: what could be taken for a class; the first stroke of the background on
        a slice begins there, as that of a person who corrects a forest.
    settings, tomogram, rng
        How many; whose strokes they are; what is random.
    """
    strokes: list[Stroke] = []
    radii = sorted({min(r, settings.radius_voxels) for r in (inf, 1.0, 0.0)}, reverse=True)
    for z in _slices(labels, settings):
        for index, name in enumerate(DEFAULT_CLASSES.names):
            for radius in radii:
                allowed = _allowed(labels, z, index + 1, radius)
                if allowed.any():
                    break
            else:
                continue
            lures = allowed & stands_out[z]
            for i in range(settings.per_class):
                starts = lures if index == i == 0 and lures.any() else allowed
                path = list(_walk(allowed, starts, settings.points, rng))
                strokes.append(_fitted(labels, z, name, radius, path))
    return Strokes(tomogram, DEFAULT_CLASSES.names, tuple(strokes))


def _slices(labels: NDArray[np.uint8], settings: StrokeSettings) -> Iterator[int]:
    """Yield slices, ascending: where all classes are seen best, in equal parts of the depth."""
    n_classes = len(DEFAULT_CLASSES)
    counts = np.array([np.bincount(plane.ravel(), minlength=n_classes + 1) for plane in labels])
    shares = counts[:, 1:] / np.maximum(counts[:, 1:].max(axis=0), 1)
    score = shares.min(axis=1)
    seen = np.flatnonzero(score)
    if settings.slices:
        for part in np.array_split(seen, settings.slices):
            if len(part):
                yield int(part[score[part].argmax()])


def _allowed(labels: NDArray[np.uint8], z: int, label: int, radius: float) -> NDArray[np.bool_]:
    """Give voxels of a slice around which all within the radius are of a class: ``(y, x)``."""
    reach = floor(radius)
    depth, n_y, n_x = labels.shape
    box = Box((z - reach, 0, 0), (z + reach + 1, n_y, n_x)).clip((depth, n_y, n_x))
    steps = np.ogrid[(slice(-reach, reach + 1),) * 3]
    ball = np.asarray(sum(step**2 for step in steps) <= radius**2)
    eroded = ndimage.binary_erosion(labels[box.slices] == label, ball, border_value=1)
    return np.asarray(eroded[z - box.start[0]], np.bool_)


def _walk(
    allowed: NDArray[np.bool_], starts: NDArray[np.bool_], n_points: int, rng: Generator
) -> Iterator[NDArray[np.float64]]:
    """Yield corners y, x of a path within a mask that turns as little as it can."""
    low, high = _STEP_VOXELS
    dy, dx = np.mgrid[-high : high + 1, -high : high + 1]
    is_step = (dy**2 + dx**2 >= low**2) & (dy**2 + dx**2 <= high**2)
    steps = np.stack([dy[is_step], dx[is_step]], axis=1)
    directions = steps / np.linalg.norm(steps, axis=1, keepdims=True)
    between = steps[:, None] * np.linspace(0, 1, _N_BETWEEN + 1)[1:, None]
    places = np.argwhere(starts)
    here = places[rng.integers(len(places))]
    heading = np.zeros(2)
    yield here.astype(np.float64)
    for _ in range(n_points - 1):
        on_the_way = np.rint(here + between).astype(int)
        is_inside = ((on_the_way >= 0) & (on_the_way < allowed.shape)).all(axis=2)
        y, x = np.clip(on_the_way, 0, np.array(allowed.shape) - 1).transpose(2, 0, 1)
        is_open = (is_inside & allowed[y, x]).all(axis=1)
        if heading.any():
            is_open &= directions @ heading >= _LEAST_COSINE
        if not is_open.any():
            return
        score = directions @ heading + _WOBBLE * rng.random(len(steps))
        chosen = int(np.where(is_open, score, -np.inf).argmax())
        here, heading = here + steps[chosen], directions[chosen]
        yield here.astype(np.float64)


def _fitted(
    labels: NDArray[np.uint8], z: int, name: str, radius: float, path: list[NDArray[np.float64]]
) -> Stroke:
    """Give the longest beginning of a path whose stroke leaves its class nowhere.

    A path bends between voxel centres, so its tube may hold voxels that those of its corners do
    not; the stroke of the first corner alone never does.
    """
    shape = (labels.shape[0], labels.shape[1], labels.shape[2])
    wanted = DEFAULT_CLASSES.index(name) + 1
    for n in range(len(path), 0, -1):
        points = tuple((float(z), float(y), float(x)) for y, x in path[:n])
        stroke = Stroke(name, radius, points)
        voxels = rasterise([stroke], DEFAULT_CLASSES, shape)
        if (labels[tuple(voxels.coordinates.T)] == wanted).all():
            return stroke
    raise AssertionError(f"{path[0]} on slice {z} is not of class {name}")
