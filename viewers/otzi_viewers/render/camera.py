"""Where the picture is taken from: an orbit about a target, and the rays of its pixels.  Pure.

The world has its origin in the centre of the box, axes z, y, x, and the finest voxel spacing as its
unit. Seen with both angles 0, x runs to the right, y upwards and z towards the viewer.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from otzi_viewers.render.scene import Camera

__all__ = ["Pose", "fitting_distance", "pose"]

_MARGIN = 1.04
"""How much larger than the box the picture is, where the distance is left open."""


@dataclass(frozen=True)
class Pose:
    """A camera in the world, ready to give rays."""

    eye: NDArray[np.float64]
    """``(3,)``: where rays begin; for parallel rays, those through the middle of the picture."""
    right: NDArray[np.float64]
    """``(3,)``, a unit vector, as are `up` and `forward`."""
    up: NDArray[np.float64]
    forward: NDArray[np.float64]
    half_height: float
    """Of the picture, at the target, in voxels."""
    distance: float
    """From the eye to the target, in voxels."""
    perspective: bool
    size: tuple[int, int]
    """Width and height of the picture in pixels."""

    @property
    def voxels_per_pixel(self) -> float:
        """Length that one pixel spans at the target."""
        return 2 * self.half_height / self.size[1]

    def rays(
        self, pixels: NDArray[np.int64], offset: tuple[float, float]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Give the rays of pixels: origins and unit directions, each ``(n, 3)``, z, y, x.

        Parameters
        ----------
        pixels
            ``(n,)``: row times width plus column.
        offset
            Place within each pixel, row and column in [0, 1).
        """
        width, height = self.size
        rows, columns = np.divmod(pixels, width)
        across = (columns + offset[1] - width / 2)[:, None] * self.voxels_per_pixel * self.right
        upward = (height / 2 - rows - offset[0])[:, None] * self.voxels_per_pixel * self.up
        if not self.perspective:
            return self.eye + across + upward, np.broadcast_to(self.forward, across.shape).copy()
        directions = across + upward + self.distance * self.forward
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        return np.broadcast_to(self.eye, directions.shape).copy(), directions

    def to_world(self, vector: NDArray[np.float64]) -> NDArray[np.float64]:
        """Give a vector of the camera's own axes (to the viewer, up, right) in world axes."""
        axes = np.stack([-self.forward, self.up, self.right])
        world: NDArray[np.float64] = vector @ axes
        return world


def pose(camera: Camera, size: tuple[int, int], extent_voxels: NDArray[np.float64]) -> Pose:
    """Give the pose of a camera that looks at a box of this extent, ``(3,)``, z, y, x in voxels.

    What is open: the target is the middle of the box, and the distance as near as shows all of it.
    """
    longest = float(extent_voxels.max())
    target = np.array(camera.target or (0.0, 0.0, 0.0)) * longest
    forward, up, right = _axes(camera)
    if camera.distance is not None:
        distance = camera.distance * longest
    else:
        corners = np.array(list(product((-0.5, 0.5), repeat=3))) * extent_voxels
        distance = fitting_distance(camera, size, corners, longest)
    perspective = camera.projection == "perspective"
    # Parallel rays begin far enough back that no part of the box lies behind them.
    outside = float(np.linalg.norm(extent_voxels) + np.linalg.norm(target))
    back = distance if perspective else outside
    return Pose(
        eye=target - back * forward,
        right=right,
        up=up,
        forward=forward,
        half_height=distance * _slope(camera),
        distance=distance,
        perspective=perspective,
        size=size,
    )


def fitting_distance(
    camera: Camera, size: tuple[int, int], corners: NDArray[np.float64], longest: float
) -> float:
    """Give the least distance from its target, in voxels, at which a camera sees all corners.

    Parameters
    ----------
    camera
        Its own distance does not matter.
    size
        Width and height of the picture.
    corners
        ``(n, 3)`` world.
    longest
        Side of the box in voxels, the unit of the target.
    """
    forward, up, right = _axes(camera)
    away = corners - np.array(camera.target or (0.0, 0.0, 0.0)) * longest
    reach = np.maximum(np.abs(away @ up), np.abs(away @ right) * size[1] / size[0])
    needed: NDArray[np.float64] = reach * (_MARGIN / _slope(camera))
    if camera.projection == "perspective":
        needed -= away @ forward
    return float(needed.max())


def _axes(
    camera: Camera,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Give forward, up and right, ``(3,)`` unit vectors."""
    azimuth, elevation, roll = np.radians([camera.azimuth, camera.elevation, camera.roll])
    sine, cosine = np.sin(azimuth), np.cos(azimuth)
    rise, level = np.sin(elevation), np.cos(elevation)
    forward = -np.array([level * cosine, rise, level * sine])
    flat_up = np.array([-rise * cosine, level, -rise * sine])
    flat_right = np.array([-sine, 0.0, cosine])
    right = np.cos(roll) * flat_right + np.sin(roll) * flat_up
    up = np.cos(roll) * flat_up - np.sin(roll) * flat_right
    return forward, up, right


def _slope(camera: Camera) -> float:
    return float(np.tan(np.radians(camera.fov_degrees) / 2))
