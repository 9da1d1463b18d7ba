"""What of a picture lies in the memory of a GPU, and how its kernels are launched.  Pure."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from otzi.errors import MemoryBudgetError
from otzi.memory import format_bytes
from otzi_viewers.render.bricks import BRICK_VOXELS
from otzi_viewers.render.kernels.params import CONES, RAY
from otzi_viewers.render.lighting import BALL_POINTS

if TYPE_CHECKING:
    from otzi.box import Zyx

__all__ = [
    "FILM_BYTES",
    "LEAST_SLOTS",
    "TILE",
    "GpuPlan",
    "Need",
    "blocks_of",
    "brick_shape",
    "gpu_plan",
    "linear_blocks",
]

TILE = (16, 8)
"""Columns and rows of the pixels of one block of threads: near rays read near texels."""

FILM_BYTES = 4 * 8 + 4 + 4 * 4
"""Of a pixel: the sum of its colours, its depth, and its colour."""

BALL_BYTES = BALL_POINTS * 3 * 4 + 4
"""Of the points that light is probed at, and of a flag."""

LEAST_SLOTS = 3
"""One brick is marched through, one is copied, and one is free for the next."""

_THREADS = 256
_MOST_TEXELS = 16384
"""Of a three-dimensional texture, along any axis."""
_SIDES = (256, 192, 128, 96, 64, 32, 16)


@dataclass(frozen=True)
class Need:
    """What a picture needs."""

    shape: Zyx
    """Of the volume, in voxels."""
    texel_bytes: int
    """Of all channels of a voxel, in whole packs."""
    size: tuple[int, int]
    spp: int
    lighting: str
    side_limit: int | None
    """Bricks have to be smaller, because of the memory of the processor; None if the volume is
    there and may lie on the device in one piece."""


@dataclass(frozen=True)
class GpuPlan:
    """What lies on the device."""

    brick_voxels: int | None
    """Side of the bricks; None for the volume in one piece."""
    n_slots: int
    """Bricks that lie there at the same time."""
    samples_at_once: int
    """Rays of each pixel that are carried through all bricks before others begin."""
    needed_bytes: int


def gpu_plan(need: Need, budget_bytes: int) -> GpuPlan:
    """Give how a picture is made within a budget.

    In one piece if that fits. Otherwise in the largest bricks that leave room for all rays of all
    pixels, or for as many as can be: the volume is read once for each such pass. What is left over
    holds more bricks, for the next picture.

    Raises
    ------
    MemoryBudgetError
        If not even the smallest bricks and one ray a pixel fit.
    """
    rays_bytes = prod(need.size) * RAY.itemsize
    stays = _staying_bytes(need)
    whole = stays + prod(need.shape) * need.texel_bytes + rays_bytes
    is_one_texture = need.side_limit is None and max(need.shape) <= _MOST_TEXELS
    if is_one_texture and whole <= budget_bytes:
        return GpuPlan(None, 1, 1, whole)
    chosen: GpuPlan | None = None
    for side in _SIDES:
        if need.side_limit is not None and side >= need.side_limit:
            continue
        brick_bytes = prod(brick_shape(need.shape, side)) * need.texel_bytes
        least = stays + LEAST_SLOTS * brick_bytes
        n_samples = min(need.spp, (budget_bytes - least) // rays_bytes)
        if n_samples < 1 or (chosen and n_samples <= chosen.samples_at_once):
            continue
        needed = least + n_samples * rays_bytes
        n_bricks = prod(-(-length // side) for length in need.shape)
        more = min((budget_bytes - needed) // brick_bytes, max(0, n_bricks - LEAST_SLOTS))
        chosen = GpuPlan(side, LEAST_SLOTS + more, n_samples, needed + more * brick_bytes)
        if n_samples == need.spp:
            break
    if chosen is None:
        least = stays + LEAST_SLOTS * prod(brick_shape(need.shape, _SIDES[-1])) * need.texel_bytes
        raise MemoryBudgetError(
            f"a picture of {need.size[0]}x{need.size[1]} pixels needs "
            f"{format_bytes(least + rays_bytes)} of the GPU, {format_bytes(budget_bytes)} are "
            "allowed: allow more with --gpu-memory, or take a smaller --size or a coarser --level"
        )
    return chosen


def _staying_bytes(need: Need) -> int:
    """Film, occluder, distances; cones, or baked light and once more while it is made."""
    half = [-(-length // 2) for length in need.shape]
    lighting = {
        "baked": 2 * 2 * prod(half),
        "cone": sum(prod((n >> level) + 1 for n in half) for level in range(1, CONES + 1)),
    }
    bricks = prod(-(-length // BRICK_VOXELS) for length in need.shape)
    film = prod(need.size) * FILM_BYTES
    return film + prod(half) + bricks + lighting.get(need.lighting, 0) + BALL_BYTES


def brick_shape(shape: Zyx, side: int) -> Zyx:
    """Give the shape of what holds any brick of this side and a voxel around it."""
    z, y, x = (min(side, length) + 2 for length in shape)
    return z, y, x


def blocks_of(rows: int, columns: int) -> tuple[int, int, int]:
    """Give how many blocks of `TILE` cover so many rows and columns, along x, y and z."""
    return -(-columns // TILE[0]), -(-rows // TILE[1]), 1


def linear_blocks(n_threads: int) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Give the grid and the block of so many threads in a row."""
    return (-(-n_threads // _THREADS), 1, 1), (_THREADS, 1, 1)
