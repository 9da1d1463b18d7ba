"""Pictures of a volume on the processor: tiles of rays over threads."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from otzi.errors import NoCompiler, UsageError
from otzi.events import Listener, Noted, ignore, step
from otzi.parallel import in_threads
from otzi_viewers.render.bricks import brick_distances, brick_maxima
from otzi_viewers.render.camera import Pose, pose
from otzi_viewers.render.lighting import lamp_of, viewer_lamp
from otzi_viewers.render.march import Marcher
from otzi_viewers.render.medium import Lamp, Medium, Rules
from otzi_viewers.render.reference import check_reference_size, reference_march
from otzi_viewers.render.sampling import sample_rounds, subpixel_offset
from otzi_viewers.render.transfer import Transfer, transfer_of
from otzi_viewers.render.volume import Volume, occluder

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from otzi_viewers.render.scene import Scene
    from otzi_viewers.render.source import VolumeSource

__all__ = [
    "Film",
    "Prepared",
    "Rendered",
    "Snapshot",
    "Stage",
    "medium_from",
    "medium_of",
    "render",
]

Rendered = tuple["NDArray[np.float32]", "NDArray[np.float32]"]
"""Colour, ``(rows, columns, 4)``, and depth, ``(rows, columns)``."""
Snapshot = Callable[[int, "NDArray[np.float32]", "NDArray[np.float32]"], None]
"""Told of the rays per pixel so far, and of the picture of these."""

_VIEWER_STEP = 0.001
"""Of the published viewer's rays, as long as the picture is far; in half longest sides."""


class Prepared(NamedTuple):
    """All that a kernel is told of a picture but where its rays begin."""

    medium: Medium
    lamp: Lamp
    rules: Rules


class Stage:
    """A volume made ready for pictures; what one frame needed is kept for the next that needs it.

    Pictures do not depend, to the bit, on `tile_pixels`, `n_threads` and `skip_empty`.

    Parameters
    ----------
    volume
        What rays go through; its channels are the classes of the scenes, in their order.
    tile_pixels
        Side of the squares that threads take.
    n_threads
        All usable cores where left out.
    skip_empty
        Whether to cross empty space in larger strides.
    """

    brick_voxels: int | None = None
    """Side of the bricks in which the volume is read; None for one that is in memory."""

    def __init__(
        self,
        volume: Volume | VolumeSource,
        *,
        tile_pixels: int = 32,
        n_threads: int | None = None,
        skip_empty: bool = True,
    ) -> None:
        self.volume = volume
        self._tile_pixels = tile_pixels
        self._n_threads = n_threads
        self._skip_empty = skip_empty
        self._kept_medium: tuple[Any, Medium] | None = None
        self._kept_light: tuple[Any, NDArray[np.uint8]] | None = None

    def render(
        self, scene: Scene, listen: Listener = ignore, snapshot: Snapshot | None = None
    ) -> Rendered:
        """Give colour and depth of a complete scene, see `complete_scene`.

        Parameters
        ----------
        scene
            What to draw.
        listen
            Told of the progress.
        snapshot
            Told of the picture whenever it has twice as many samples, and when it is done.

        Returns
        -------
        rgba : ndarray
            ``(rows, columns, 4)`` float32: linear red, green, blue, premultiplied, and opacity.
        depth : ndarray
            ``(rows, columns)`` float32, ångström from the eye, at which half the light is gone
            along the first ray of each pixel; infinite where it never is.
        """
        camera = pose(scene.camera, scene.output.size, self.volume.extent_voxels)
        march = self._march_of(scene, camera, listen)
        width, height = scene.output.size
        spp, voxel_angstrom = scene.quality.spp, self.volume.voxel_angstrom
        film = Film(width * height)
        tiles = list(_tiles(width, height, self._tile_pixels))
        rounds = sample_rounds(spp) if snapshot else [range(spp)]
        with step(listen, "render", len(rounds) * len(tiles), "tiles") as work:
            for samples in rounds:

                def shade(pixels: NDArray[np.int64], samples: range = samples) -> None:
                    for sample in samples:
                        origins, directions = camera.rays(pixels, subpixel_offset(sample))
                        rays = march(origins, directions, pixels, sample)
                        film.add(pixels, sample, rays)

                for _ in in_threads(shade, tiles, "", "", n_threads=self._n_threads):
                    work.advance()
                if snapshot:
                    picture = film.develop(width, height, voxel_angstrom, samples.stop)
                    snapshot(samples.stop, *picture)
        return film.develop(width, height, voxel_angstrom, spp)

    def render_all(self, scenes: Sequence[Scene], listen: Listener = ignore) -> Iterator[Rendered]:
        """Yield colour and depth of several scenes; see `render`."""
        for scene in scenes:
            yield self.render(scene, listen)

    def prepared(self, scene: Scene, camera: Pose, listen: Listener = ignore) -> Prepared:
        """Give what a kernel needs to draw a complete scene from here."""
        medium = self._medium(scene, listen)
        lamp = (
            viewer_lamp(self.volume, camera)
            if scene.quality.look == "viewer"
            else lamp_of(scene.light, scene.quality, self.volume, camera)
        )
        return Prepared(medium, lamp, self._rules(scene, camera))

    def _march_of(
        self, scene: Scene, camera: Pose, listen: Listener
    ) -> Callable[..., NDArray[np.void]]:
        """Give what carries rays through the whole volume; without a compiler, if they are few."""
        try:
            return self._marcher(scene, camera, listen).march
        except NoCompiler as error:
            check_reference_size(scene.output.size, error)
            listen(Noted(f"drawing slowly: {error}"))
        return partial(reference_march, *self.prepared(scene, camera, listen))

    def _marcher(self, scene: Scene, camera: Pose, listen: Listener) -> Marcher:
        prepared = self.prepared(scene, camera, listen)
        marcher = Marcher(*prepared, listen)
        quality = scene.quality
        if quality.lighting == "baked" and quality.look == "physical":
            needed = (self._kept_medium and self._kept_medium[0], prepared.lamp.key, quality.seed)
            if self._kept_light is None or self._kept_light[0] != needed:
                self._kept_light = needed, marcher.bake(listen, self._n_threads)
            marcher.use_light(self._kept_light[1])
        return marcher

    def _medium(self, scene: Scene, listen: Listener) -> Medium:
        linear = scene.quality.look != "viewer"
        needed = (scene.classes, scene.density, linear)
        if self._kept_medium is None or self._kept_medium[0] != needed:
            longest = float(self.volume.extent_voxels.max())
            value_scale = self.volume.value_scale
            transfer = transfer_of(
                scene.classes, scene.density, value_scale, longest, linear=linear
            )
            self._kept_medium = needed, self._new_medium(transfer, listen)
        return self._kept_medium[1]

    def _new_medium(self, transfer: Transfer, listen: Listener) -> Medium:
        assert isinstance(self.volume, Volume)
        return medium_of(self.volume, transfer, skip_empty=self._skip_empty)

    def _rules(self, scene: Scene, camera: Pose) -> Rules:
        quality = scene.quality
        step = quality.step * float(self.volume.spacing_voxels.min())
        if quality.look == "viewer":
            far = camera.distance / camera.half_height if camera.perspective else 1.0
            step = _VIEWER_STEP * far * float(self.volume.extent_voxels.max()) / 2
        return Rules(
            step=step,
            gate=quality.gate,
            seed=quality.seed,
            look=quality.look,
            lighting="mc" if quality.lighting == "auto" else quality.lighting,
            iso=quality.iso,
            forward=camera.forward,
        )


class Film:
    """What the rays of a picture have brought: colours summed over samples, the first's depth."""

    def __init__(self, n_pixels: int) -> None:
        self._total = np.zeros((n_pixels, 4))
        self._depth = np.zeros(n_pixels, np.float32)

    def add(self, pixels: NDArray[np.int64], sample: int, rays: NDArray[np.void]) -> None:
        """Take rays that are through; samples of a pixel come in order, from one thread."""
        brought = np.empty((len(pixels), 4))
        brought[:, :3] = rays["color"]
        brought[:, 3] = 1 - rays["transmittance"]
        if sample == 0:
            self._total[pixels] = brought
            self._depth[pixels] = rays["depth"]
        else:
            self._total[pixels] += brought

    def develop(self, width: int, height: int, voxel_angstrom: float, n_samples: int) -> Rendered:
        """Give colour, ``(rows, columns, 4)``, and depth in ångström, ``(rows, columns)``."""
        rgba = (self._total / n_samples).astype(np.float32)
        depth = self._depth * np.float32(voxel_angstrom)
        return rgba.reshape(height, width, 4), depth.reshape(height, width)


def render(volume: Volume, scene: Scene, *, listen: Listener = ignore, **how: Any) -> Rendered:
    """Give colour and depth of one picture: see `Stage`, whose other arguments may be given."""
    return Stage(volume, **how).render(scene, listen)


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
    return medium_from(
        volume,
        transfer,
        volume.data,
        occluder(volume, transfer),
        distances if skip_empty else np.zeros_like(distances),
    )


def medium_from(
    box: Volume | VolumeSource,
    transfer: Transfer,
    data: NDArray[Any] | None,
    occluder: NDArray[np.uint8],
    distances: NDArray[np.uint8],
) -> Medium:
    """Give a medium of its parts; without data, they are held brick by brick."""
    return Medium(
        shape=box.shape,
        data=data,
        value_scale=transfer.value_scale,
        low=transfer.low,
        inverse_span=transfer.inverse_span,
        extinction=transfer.extinction,
        color=transfer.color,
        extent=box.extent_voxels,
        texels_per_voxel=1 / box.spacing_voxels,
        occluder=occluder,
        distances=distances,
        clip=transfer.clip,
    )


def _tiles(width: int, height: int, side: int) -> Iterator[NDArray[np.int64]]:
    """Yield the pixels of square tiles, row by row: each pixel once."""
    index = np.arange(width * height).reshape(height, width)
    for row in range(0, height, side):
        for column in range(0, width, side):
            yield index[row : row + side, column : column + side].ravel()
