"""What the kernel's reference stands on: rays, random draws, values between voxels.  Pure."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from numpy.typing import NDArray

    from otzi_viewers.render.medium import Medium

__all__ = [
    "LEAST_TRANSMITTANCE",
    "WHOLE_RAY",
    "Rays",
    "clipped_at",
    "keyed_uniform",
    "masks_at",
    "occlusion_at",
    "ramps_at",
    "values_at",
]

WHOLE_RAY = 0xFFFFFFFF
"""The step of draws that are for a ray as a whole."""
LEAST_TRANSMITTANCE = 0.01
"""Where a ray ends."""


class Rays(NamedTuple):
    """Rays, and where they enter and leave the box."""

    origins: NDArray[np.float64]
    directions: NDArray[np.float64]
    near: NDArray[np.float64]
    far: NDArray[np.float64]
    draw: Callable[[Any, int, int], NDArray[np.float64]]
    """``draw(rays, step, number)``: of rays by their indices."""

    def points(self, rays: Any, along: NDArray[np.float64]) -> NDArray[np.float64]:
        """Give places on rays, ``(n, 3)`` world."""
        places: NDArray[np.float64] = self.origins[rays] + along[..., None] * self.directions[rays]
        return places


def keyed_uniform(
    seed: int, sample: int, step: int, pixels: NDArray[Any], number: int
) -> NDArray[np.float64]:
    """Give the draws of pixels, in [0, 1): five rounds of the 32-bit hash lowbias32."""

    def scrambled(word: NDArray[Any]) -> NDArray[Any]:
        word = word ^ (word >> 16)
        word = word * 0x7FEB352D % 2**32
        word = word ^ (word >> 15)
        word = word * 0x846CA68B % 2**32
        last: NDArray[Any] = word ^ (word >> 16)
        return last

    key: NDArray[Any] = np.zeros(len(pixels), np.uint64)
    for part in (seed, sample, step, pixels, (number + 1) * 0x9E3779B9):
        key = scrambled((key + np.asarray(part).astype(np.uint64)) % 2**32)
    draws: NDArray[np.float64] = (key >> np.uint64(8)) / 2**24
    return draws


def values_at(medium: Medium, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give all channels in [0, 1], ``(…, c)``, at points of the world."""
    texels = (points + medium.extent / 2) * medium.texels_per_voxel
    return _trilinear(np.asarray(medium.data), texels) * medium.value_scale


def ramps_at(medium: Medium, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give what ramps make of all channels, ``(…, c)``, at points of the world."""
    values = values_at(medium, points)
    return np.clip((values - medium.low) * medium.inverse_span, 0, 1)


def masks_at(medium: Medium, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give the sum of all classes at points of the world; nothing stands outside."""
    inside = (np.abs(points) <= medium.extent / 2).all(axis=-1)
    return np.where(inside, ramps_at(medium, points)[..., :-1].sum(axis=-1), 0)


def occlusion_at(medium: Medium, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give the occluder at points of the world; nothing stands outside."""
    texels = (points + medium.extent / 2) * medium.texels_per_voxel / 2
    inside = (np.abs(points) <= medium.extent / 2).all(axis=-1)
    return np.where(inside, _trilinear(medium.occluder[..., None], texels)[..., 0] / 255, 0)


def clipped_at(medium: Medium, points: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Give which classes are cut off, ``(n, c)``, at points of the world."""
    clipped: NDArray[np.bool_] = points @ medium.clip[:, :3].T + medium.clip[:, 3] < 0
    return clipped


def _trilinear(values: NDArray[Any], texels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give ``(z, y, x, c)`` values at ``(…, 3)`` places; sample i is at i + 0.5, edges go on."""
    below = np.floor(texels - 0.5)
    weight = texels - 0.5 - below
    total = np.zeros((*texels.shape[:-1], values.shape[-1]))
    last = np.array(values.shape[:3]) - 1
    for corner in product((0, 1), repeat=3):
        z, y, x = np.moveaxis(np.clip(below + corner, 0, last).astype(np.int64), -1, 0)
        share = np.where(corner, weight, 1 - weight).prod(axis=-1)
        total += share[..., None] * values[z, y, x]
    return total
