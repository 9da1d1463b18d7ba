"""How a volume is streamed within a memory budget.  Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from otzi.errors import MemoryBudgetError
from otzi.memory import format_bytes
from otzi_viewers.render.bricks import BRICK_VOXELS
from otzi_viewers.render.kernels.params import RAY
from otzi_viewers.render.medium import CHANNELS_PER_PACK
from otzi_viewers.render.source import READERS
from otzi_viewers.render.stream import BRICKS_AHEAD
from otzi_viewers.render.volume import READ_BYTES_PER_VOXEL, strip_bytes

if TYPE_CHECKING:
    from otzi_viewers.render.scene import Scene
    from otzi_viewers.render.source import VolumeSource

__all__ = ["StreamPlan", "stream_plan"]

_SIDES = (128, 64, 32)
_LIGHT_BYTES = 5
"""For each sample of the occluder's grid: itself, as the kernel reads it, coarser, light baked."""
_PICTURE_BYTES = 60
"""For each pixel, while a picture is developed."""
_CACHE_SHARE = 4
"""Of what is left over, one part in so many keeps decoded chunks."""


@dataclass(frozen=True)
class StreamPlan:
    """How a volume is streamed within a budget."""

    brick_voxels: int
    pictures_at_once: int
    cache_bytes: int
    needed_bytes: int


def stream_plan(
    source: VolumeSource, scene: Scene, memory_bytes: int, n_pictures: int = 1
) -> StreamPlan:
    """Give the largest bricks that fit, and as many pictures that share them as then fit.

    What stays: the occluder and its coarser levels, baked light, what bricks may hold. What
    changes: bricks that are drawn or read, with what low-passing them takes. For every picture, the
    state of its rays.

    Raises
    ------
    MemoryBudgetError
        If not even the smallest bricks fit.
    """
    itemsize = np.dtype(source.dtype).itemsize
    n_channels = source.n_channels
    lanes = -(-n_channels // CHANNELS_PER_PACK) * CHANNELS_PER_PACK
    n_voxels = int(np.prod(source.shape))
    width, height = scene.output.size
    picture = width * height * (scene.quality.spp * RAY.itemsize + _PICTURE_BYTES)
    maxima = n_voxels // BRICK_VOXELS**3 * n_channels * (itemsize + 16)
    stays = n_voxels // 8 * _LIGHT_BYTES + maxima
    for side in _SIDES:
        held = min(side + 2, max(source.shape)) ** 3
        bricks = (1 + BRICKS_AHEAD) * held * (lanes + n_channels) * itemsize
        apron = 1 + (0 if source.level else source.density.smoothing)
        smoothed = READERS * (side + 2 * apron) ** 3 * READ_BYTES_PER_VOXEL
        strips = strip_bytes(source.shape, n_channels, itemsize)
        needed = stays + max(bricks + smoothed, strips) + picture
        if needed <= memory_bytes:
            left = memory_bytes - needed
            cache = min(left // _CACHE_SHARE, n_voxels * n_channels * itemsize)
            more = min((left - cache) // picture, n_pictures - 1)
            return StreamPlan(side, 1 + more, cache, needed + cache + more * picture)
    raise MemoryBudgetError(
        f"level {source.level} of {source.tomo.id} cannot be streamed in less than "
        f"{format_bytes(needed)}, {format_bytes(memory_bytes)} are allowed: allow more with "
        "--memory, or take a coarser --level"
    )
