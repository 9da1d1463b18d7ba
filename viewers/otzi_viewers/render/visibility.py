"""Which bricks of a volume a camera sees, in which order, and where in the picture.  Pure."""

from __future__ import annotations

from itertools import product
from math import floor
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from otzi.box import Box, tile
from otzi_viewers.render.bricks import BRICK_VOXELS
from otzi_viewers.render.order import EyePlace, brick_order

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from otzi_viewers.render.camera import Pose
    from otzi_viewers.render.source import VolumeSource
    from otzi_viewers.render.volume import Volume

__all__ = [
    "Rectangle",
    "eye_place",
    "rectangle_of",
    "shared_bricks",
    "sub_bricks",
    "visible_bricks",
]


class Rectangle(NamedTuple):
    """Pixels of a picture, half open."""

    first_row: int
    first_column: int
    last_row: int
    last_column: int

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.last_row - self.first_row, self.last_column - self.first_column

    def pixels(self, width: int) -> NDArray[np.int64]:
        """Give ``(n,)``, row times width plus column."""
        rows = np.arange(self.first_row, self.last_row)[:, None] * width
        return (rows + np.arange(self.first_column, self.last_column)).ravel()


def visible_bricks(
    box: Volume | VolumeSource, distances: NDArray[np.uint8], camera: Pose, side: int
) -> list[Box]:
    """Give the bricks in which something may be seen, none before one that hides it.

    See `shared_bricks`.
    """
    return [brick for brick, _ in shared_bricks(box, distances, [camera], side)]


def shared_bricks(
    box: Volume | VolumeSource, distances: NDArray[np.uint8], cameras: Sequence[Pose], side: int
) -> list[tuple[Box, list[int]]]:
    """Give bricks in which something may be seen, and which cameras take them there.

    Each camera takes each once, and none before one that hides it.

    Parameters
    ----------
    box
        The volume's place in the world.
    distances
        See `otzi_viewers.render.bricks.brick_distances`.
    cameras
        Whose rays go through them.
    side
        Of a brick, in voxels.
    """
    bricks = {
        tuple(first // side for first in brick.start): brick
        for brick in tile(box.shape, (side, side, side))
    }
    visible = np.zeros([-(-length // side) for length in box.shape], bool)
    for index, brick in bricks.items():
        visible[index] = (distances[sub_bricks(brick)] == 0).any()
    order = brick_order(visible, [eye_place(box, camera, side) for camera in cameras])
    return [(bricks[index], takers) for index, takers in order]


def eye_place(box: Volume | VolumeSource, camera: Pose, side: int) -> EyePlace:
    """Give the brick of the eye, as the kernel rounds places; of parallel rays, their side."""
    place: list[int | None] = []
    for axis, length in enumerate(box.shape):
        n_bricks = -(-length // side)
        if not camera.perspective:
            toward = camera.forward[axis]
            place.append(None if toward == 0 else -1 if toward > 0 else n_bricks)
            continue
        half = np.float32(box.extent_voxels[axis]) / np.float32(2)
        texels = np.float32(1 / box.spacing_voxels[axis])
        at = (np.float32(camera.eye[axis]) + half) * texels
        place.append(n_bricks if at >= length else max(-1, floor(at / side)))
    return place[0], place[1], place[2]


def rectangle_of(brick: Box, camera: Pose, box: Volume | VolumeSource) -> Rectangle:
    """Give the pixels whose rays may meet a brick: the rectangle around its corners."""
    width, height = camera.size
    low, high = _corners(brick, box)
    # A volume's last voxels may be cut off in a coarser level, its box is not.
    high = np.where(np.array(brick.stop) == box.shape, box.extent_voxels / 2, high)
    corners = np.array(list(product(*zip(low, high, strict=True))))
    from_eye = corners - camera.eye
    ahead = from_eye @ camera.forward
    if camera.perspective and ahead.min() <= 0:
        return Rectangle(0, 0, height, width)
    scale = camera.distance / ahead if camera.perspective else 1.0
    columns = (from_eye @ camera.right) * scale / camera.voxels_per_pixel + width / 2
    rows = height / 2 - (from_eye @ camera.up) * scale / camera.voxels_per_pixel
    first_row, last_row = np.clip([rows.min() - 1, rows.max() + 2], 0, height).astype(int)
    first, last = np.clip([columns.min() - 1, columns.max() + 2], 0, width).astype(int)
    return Rectangle(int(first_row), int(first), int(last_row), int(last))


def _corners(
    brick: Box, box: Volume | VolumeSource
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Give the lowest and the highest corner of a brick in the world."""
    low: NDArray[np.float64] = np.array(brick.start) * box.spacing_voxels - box.extent_voxels / 2
    high: NDArray[np.float64] = np.array(brick.stop) * box.spacing_voxels - box.extent_voxels / 2
    return low, high


def sub_bricks(brick: Box) -> tuple[slice, ...]:
    """Give the place of a brick in an array of the small bricks of `brick_distances`."""
    return tuple(
        slice(a // BRICK_VOXELS, -(-b // BRICK_VOXELS))
        for a, b in zip(brick.start, brick.stop, strict=True)
    )
