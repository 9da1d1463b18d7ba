"""Pictures of volumes that do not fit into memory: bricks from the store, nearest first.

Each ray keeps its state from brick to brick, and steps are counted from where it enters the volume:
the picture is, to the bit, that of the volume in one piece. Bricks in which nothing can be seen are
never read, nor those behind what lets no light through.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from otzi.box import Box, tile
from otzi.errors import MemoryBudgetError
from otzi.events import Listener, ignore, step
from otzi.memory import format_bytes
from otzi.parallel import in_threads
from otzi_viewers.render.bricks import (
    BRICK_VOXELS,
    brick_distances,
    plane_maxima,
    stacked_maxima,
)
from otzi_viewers.render.camera import Pose, pose
from otzi_viewers.render.cpu import Film, Stage, medium_from
from otzi_viewers.render.kernels.params import RAY, new_rays
from otzi_viewers.render.medium import in_lanes
from otzi_viewers.render.sampling import subpixel_offset
from otzi_viewers.render.source import SLAB_VOXELS, VolumeSource
from otzi_viewers.render.volume import occluder_slab

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from otzi_viewers.render.march import Marcher
    from otzi_viewers.render.medium import Medium
    from otzi_viewers.render.scene import Scene
    from otzi_viewers.render.transfer import Transfer

__all__ = ["StreamPlan", "StreamedStage", "stream_plan"]

_SIDES = (256, 192, 128, 96, 64, 32)
_OPAQUE = 0.01
"""Transmittance at which the kernel ends a ray."""
_FLOATS_PER_VOXEL = 5
"""Arrays of float32 that low-passing a brick of density takes at the same time."""


@dataclass(frozen=True)
class StreamPlan:
    """How a volume is streamed within a budget."""

    brick_voxels: int
    needed_bytes: int


def stream_plan(source: VolumeSource, scene: Scene, memory_bytes: int) -> StreamPlan:
    """Give the largest bricks with which everything fits.

    What stays: the occluder and its coarser levels, baked light, and the state of every ray. What
    changes: a brick with its channels, and what low-passing it takes.

    Raises
    ------
    MemoryBudgetError
        If not even the smallest bricks do.
    """
    itemsize = np.dtype(source.dtype).itemsize
    lanes = -(-source.n_channels // 4) * 4
    n_voxels = int(np.prod(source.shape))
    stays = n_voxels // 8 * 5 + n_voxels // BRICK_VOXELS**2 * source.n_channels * itemsize
    width, height = scene.output.size
    stays += width * height * (scene.quality.spp * RAY.itemsize + 40)
    for side in _SIDES:
        apron = 1 + (0 if source.level else source.density.smoothing)
        held = min(side + 2, max(source.shape)) ** 3 * (lanes + source.n_channels) * itemsize
        smoothed = (side + 2 * apron) ** 3 * _FLOATS_PER_VOXEL * 4
        slab = SLAB_VOXELS * source.shape[1] * source.shape[2]
        slab_bytes = slab * (source.n_channels * itemsize + _FLOATS_PER_VOXEL * 4)
        needed = stays + max(held + smoothed, slab_bytes)
        if needed <= memory_bytes:
            return StreamPlan(side, needed)
    raise MemoryBudgetError(
        f"level {source.level} of {source.tomo.id} cannot be streamed in less than "
        f"{format_bytes(needed)}, {format_bytes(memory_bytes)} are allowed: allow more with "
        "--memory, or take a coarser --level"
    )


class StreamedStage(Stage):
    """A `Stage` of a volume that stays in the store."""

    volume: VolumeSource

    def __init__(
        self, source: VolumeSource, brick_voxels: int = 128, *, n_threads: int | None = None
    ) -> None:
        super().__init__(source, n_threads=n_threads)
        self.brick_voxels = brick_voxels
        self.n_bricks_read = 0

    def render(
        self, scene: Scene, listen: Listener = ignore
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Give colour and depth of a complete scene; see `Stage.render`."""
        camera = pose(scene.camera, scene.output.size, self.volume.extent_voxels)
        marcher = self._marcher(scene, camera, listen)
        width, height = scene.output.size
        spp = scene.quality.spp
        rays = new_rays(spp * width * height).reshape(spp, width * height)
        bricks = self._visible_bricks(self._medium(scene, listen), camera)
        with step(listen, "render", len(bricks), "bricks") as work:
            for own in bricks:
                pixels = _pixels_of(own, camera, self.volume)
                open_ = (rays["transmittance"][:, pixels] >= _OPAQUE).any(axis=0)
                if open_.any():
                    held = own.grow(1).clip(self.volume.shape)
                    marcher.hold(in_lanes(self.volume.read(held)), held, own)
                    self.n_bricks_read += 1
                    self._march(marcher, camera, pixels[open_], rays)
                work.advance()
        film = Film(width * height, spp)
        everywhere = np.arange(width * height)
        for sample in range(spp):
            film.add(everywhere, sample, rays[sample])
        return film.develop(width, height, self.volume.voxel_angstrom)

    def _march(
        self, marcher: Marcher, camera: Pose, pixels: NDArray[np.int64], rays: NDArray[np.void]
    ) -> None:
        def shade(part: NDArray[np.int64]) -> None:
            for sample, all_rays in enumerate(rays):
                mine = all_rays[part]
                marcher.march(*camera.rays(part, subpixel_offset(sample)), part, sample, mine)
                all_rays[part] = mine

        parts = np.array_split(pixels, max(1, len(pixels) // self._tile_pixels**2))
        for _ in in_threads(shade, parts, "brick", "tiles", n_threads=self._n_threads):
            pass

    def _new_medium(self, transfer: Transfer, listen: Listener) -> Medium:
        """One pass over the volume: what stands in the light, and which bricks may be seen."""
        depth, height, width = self.volume.shape
        occluders, planes = [], []
        with step(listen, "occupancy", depth, "planes") as work:
            for z in range(0, depth, SLAB_VOXELS):
                box = Box((z, 0, 0), (min(z + SLAB_VOXELS, depth), height, width))
                slab = self.volume.read(box)
                occluders.append(occluder_slab(self.volume, slab, z, transfer))
                planes.append(plane_maxima(slab))
                work.advance(box.shape[0])
        distances = brick_distances(stacked_maxima(np.concatenate(planes)), transfer)
        return medium_from(self.volume, transfer, None, np.concatenate(occluders), distances)

    def _visible_bricks(self, medium: Medium, camera: Pose) -> list[Box]:
        """Give the bricks in which something may be seen, none before one that hides it.

        By the distance from the eye along the axes, summed: along a ray none of the three ever
        shrinks, and at each face one grows. For parallel rays, by the depth of the nearest corner
        along the view, axis by axis, which does the same.
        """
        spacing, extent = self.volume.spacing_voxels, self.volume.extent_voxels
        side = self.brick_voxels

        def rank(box: Box) -> float:
            low = np.array(box.start) * spacing - extent / 2
            high = np.array(box.stop) * spacing - extent / 2
            if camera.perspective:
                aside = np.maximum(np.maximum(low - camera.eye, camera.eye - high), 0)
                return float(aside.sum())
            return float((np.sign(camera.forward) * np.where(camera.forward > 0, low, high)).sum())

        bricks = [
            box
            for box in tile(self.volume.shape, (side, side, side))
            if (medium.distances[_sub_bricks(box)] == 0).any()
        ]
        return sorted(bricks, key=rank)


def _sub_bricks(box: Box) -> tuple[slice, ...]:
    return tuple(
        slice(a // BRICK_VOXELS, -(-b // BRICK_VOXELS))
        for a, b in zip(box.start, box.stop, strict=True)
    )


def _pixels_of(own: Box, camera: Pose, source: VolumeSource) -> NDArray[np.int64]:
    """Give the pixels whose rays may meet a brick: those of the rectangle around its corners."""
    width, height = camera.size
    low = np.array(own.start) * source.spacing_voxels - source.extent_voxels / 2
    high = np.array(own.stop) * source.spacing_voxels - source.extent_voxels / 2
    # A volume's last voxels may be cut off in a coarser level, its box is not.
    high = np.where(np.array(own.stop) == source.shape, source.extent_voxels / 2, high)
    corners = np.array(list(product(*zip(low, high, strict=True))))
    from_eye = corners - camera.eye
    ahead = from_eye @ camera.forward
    if camera.perspective and ahead.min() <= 0:
        return np.arange(width * height)
    scale = camera.distance / ahead if camera.perspective else 1.0
    columns = (from_eye @ camera.right) * scale / camera.voxels_per_pixel + width / 2
    rows = height / 2 - (from_eye @ camera.up) * scale / camera.voxels_per_pixel
    first_row, last_row = np.clip([rows.min() - 1, rows.max() + 2], 0, height).astype(int)
    first, last = np.clip([columns.min() - 1, columns.max() + 2], 0, width).astype(int)
    inside = np.arange(width * height).reshape(height, width)[first_row:last_row, first:last]
    return inside.ravel()
