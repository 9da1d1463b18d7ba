"""A picture from a volume on the processor: tiles of rays over threads."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from otzi.errors import UsageError
from otzi.events import Listener, ignore
from otzi.parallel import in_threads
from otzi_viewers.render.bricks import brick_distances, brick_maxima
from otzi_viewers.render.camera import Pose, pose
from otzi_viewers.render.march import Lamp, Medium, Rules, march
from otzi_viewers.render.sampling import ball_points, subpixel_offset
from otzi_viewers.render.transfer import Transfer, transfer_of
from otzi_viewers.render.volume import Volume, occluder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from otzi_viewers.render.scene import Light, Quality, Scene

__all__ = ["lamp_of", "medium_of", "render"]

_AO_LIFT = 0.55
_AO_TINT = (0.05, 0.07, 0.13)
_SHADOW_START_VOXELS = 1.5
_SHADOW_TINT = (0.06, 0.08, 0.16)
_BALL_POINTS = 1024


def render(
    volume: Volume,
    scene: Scene,
    *,
    tile_pixels: int = 32,
    n_threads: int | None = None,
    skip_empty: bool = True,
    listen: Listener = ignore,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Give colour and depth of a complete scene.

    The result does not depend, to the bit, on `tile_pixels`, `n_threads` and `skip_empty`.

    Parameters
    ----------
    volume
        What rays go through; its channels are the scene's classes in their order.
    scene
        With every class filled in, see `complete_scene`.
    tile_pixels
        Side of the squares that threads take.
    n_threads
        All usable cores where left out.
    skip_empty
        Whether to cross empty space in larger strides.
    listen
        Told of the progress.

    Returns
    -------
    rgba : ndarray
        ``(rows, columns, 4)`` float32: linear red, green, blue, premultiplied, and opacity.
    depth : ndarray
        ``(rows, columns)`` float32, ångström from the eye, at which half the light is gone along
        the first ray of each pixel; infinite where it never is.
    """
    quality = scene.quality
    transfer = transfer_of(scene.classes, scene.density, volume.value_scale)
    medium = medium_of(volume, transfer, skip_empty=skip_empty)
    camera = pose(scene.camera, scene.output.size, volume.extent_voxels)
    lamp = lamp_of(scene.light, quality, volume, camera)
    rules = Rules(
        step=quality.step * float(volume.spacing_voxels.min()),
        gate=quality.gate,
        seed=quality.seed,
    )
    width, height = scene.output.size
    rgba = np.zeros((height * width, 4), np.float32)
    depth = np.zeros(height * width, np.float32)

    def shade(pixels: NDArray[np.int64]) -> None:
        total = np.zeros((len(pixels), 4))
        colors = np.empty((len(pixels), 4), np.float32)
        depths = np.empty(len(pixels), np.float32)
        for sample in range(quality.spp):
            origins, directions = camera.rays(pixels, subpixel_offset(sample))
            march(origins, directions, pixels, sample, medium, lamp, rules, colors, depths)
            total += colors
            if sample == 0:
                depth[pixels] = depths * volume.voxel_angstrom
        rgba[pixels] = total / quality.spp

    tiles = list(_tiles(width, height, tile_pixels))
    for _ in in_threads(shade, tiles, "render", "tiles", listen, n_threads):
        pass
    return rgba.reshape(height, width, 4), depth.reshape(height, width)


def medium_of(volume: Volume, transfer: Transfer, *, skip_empty: bool = True) -> Medium:
    """Give the volume as the kernel takes it.

    Raises
    ------
    UsageError
        If it has not one channel for each class and one for the density.
    """
    n_channels, n_classes = volume.data.shape[-1], len(transfer.extinction)
    if n_channels != n_classes + 1:
        raise UsageError(f"a volume of {n_channels} channels, {n_classes} classes need one more")
    distances = brick_distances(brick_maxima(volume.data), transfer)
    return Medium(
        data=volume.data,
        value_scale=volume.value_scale,
        low=transfer.low,
        inverse_span=transfer.inverse_span,
        extinction=transfer.extinction,
        color=transfer.color,
        extent=volume.extent_voxels,
        texels_per_voxel=1 / volume.spacing_voxels,
        occluder=occluder(volume.data, transfer),
        distances=distances if skip_empty else np.zeros_like(distances),
    )


def lamp_of(light: Light, quality: Quality, volume: Volume, camera: Pose) -> Lamp:
    """Give the light in world lengths; the ball of ambient occlusion is lifted toward it."""
    longest = float(volume.extent_voxels.max())
    position = np.array(light.position, np.float64) * longest
    if light.attach == "camera":
        position = camera.to_world(position)
    distance = float(np.linalg.norm(position))
    upward = position / distance if distance else camera.up
    return Lamp(
        position=position,
        radius=light.radius * longest,
        shadow_start=_SHADOW_START_VOXELS,
        shadow_length=light.shadow_length * longest,
        shadow_strength=light.shadow,
        shadow_tint=np.array(_SHADOW_TINT),
        n_shadow=quality.shadow,
        ao_radius=light.occlusion_radius * longest,
        ao_centre=upward * (_AO_LIFT * light.occlusion_radius * longest),
        ao_strength=light.occlusion,
        ao_tint=np.array(_AO_TINT),
        n_ao=quality.ao,
        ball=ball_points(_BALL_POINTS),
    )


def _tiles(width: int, height: int, side: int) -> Iterator[NDArray[np.int64]]:
    """Yield the pixels of square tiles, row by row: each pixel once."""
    index = np.arange(width * height).reshape(height, width)
    for row in range(0, height, side):
        for column in range(0, width, side):
            yield index[row : row + side, column : column + side].ravel()
