"""Where the camera stands if it is not told: before what is drawn, as near as shows all of it."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from otzi_viewers.render.bricks import BRICK_VOXELS, brick_distances
from otzi_viewers.render.camera import fitting_distance
from otzi_viewers.render.source import VolumeSource
from otzi_viewers.render.transfer import transfer_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from otzi.events import Listener
    from otzi.tomogram import Tomogram
    from otzi_viewers.render.scene import Scene

__all__ = ["drawn_corners", "framed"]

_ENOUGH_VOXELS = 256
"""A level of no longer sides tells well enough where something is."""


def framed(
    scenes: Sequence[Scene], corners: NDArray[np.float64], extent_voxels: NDArray[np.float64]
) -> list[Scene]:
    """Give scenes whose cameras have a target and a distance: all the same where they are open.

    Parameters
    ----------
    scenes
        A picture, or the frames of a movie.
    corners
        ``(n, 3)`` world: what has to be seen.
    extent_voxels
        ``(3,)``: the whole box.
    """
    longest = float(extent_voxels.max())
    middle = (corners.min(axis=0) + corners.max(axis=0)) / 2 / longest
    z, y, x = map(float, middle)
    aimed = [
        replace(scene.camera, target=(z, y, x)) if scene.camera.target is None else scene.camera
        for scene in scenes
    ]
    farthest = max(
        fitting_distance(camera, scene.output.size, corners, longest)
        for camera, scene in zip(aimed, scenes, strict=True)
    )
    cameras = [
        replace(camera, distance=farthest / longest) if camera.distance is None else camera
        for camera in aimed
    ]
    return [replace(scene, camera=camera) for scene, camera in zip(scenes, cameras, strict=True)]


def drawn_corners(
    tomo: Tomogram, probs: str, scene: Scene, level: int, listen: Listener
) -> NDArray[np.float64]:
    """Give the corners of all bricks in which a complete scene may show something.

    ``(n, 3)`` world; those of the whole volume if it shows nothing.

    Parameters
    ----------
    tomo, probs, scene
        What is drawn.
    level
        Of the pyramid; a coarser one is looked at if it is large.
    listen
        Told of the progress.
    """
    n_levels = min(tomo.image(name).n_levels for name in (f"probs/{probs}", "raw"))
    while max(tomo.array("raw", level).shape) > _ENOUGH_VOXELS and level + 1 < n_levels:
        level += 1
    classes = tuple(look.name for look in scene.classes)
    source = VolumeSource(tomo, probs, classes, scene.density, level)
    transfer = transfer_of(scene.classes, scene.density, source.value_scale)
    where = np.argwhere(brick_distances(source.brick_maxima(listen), transfer) == 0)
    half = source.extent_voxels / 2
    ends = np.array(list(product((0, 1), repeat=3)))
    if not len(where):
        return (2 * ends - 1) * half
    side = BRICK_VOXELS * source.spacing_voxels
    corners = np.unique((where[:, None] + ends).reshape(-1, 3), axis=0)
    return np.minimum(corners * side - half, half)
