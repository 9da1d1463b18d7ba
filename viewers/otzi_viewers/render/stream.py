"""Pictures of volumes that do not fit into memory: bricks from the store, nearest first.

Each ray keeps its state from brick to brick, and steps are counted from where it enters the volume:
the picture is, to the bit, that of the volume in one piece. Bricks in which nothing can be seen are
never read, nor those behind what lets no light through. Several pictures share what is read.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from otzi.box import Box, tile
from otzi.events import Listener, Noted, ignore, step
from otzi.parallel import in_threads
from otzi_viewers.render.bricks import brick_distances
from otzi_viewers.render.camera import Pose, pose
from otzi_viewers.render.cpu import Film, Rendered, Snapshot, Stage, medium_from
from otzi_viewers.render.kernels.params import new_rays
from otzi_viewers.render.medium import in_lanes
from otzi_viewers.render.sampling import sample_rounds, subpixel_offset
from otzi_viewers.render.source import READERS, STRIP_VOXELS, VolumeSource
from otzi_viewers.render.visibility import rectangle_of, shared_bricks, sub_bricks
from otzi_viewers.render.volume import halved, occluder_part

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Any

    from numpy.typing import NDArray

    from otzi_viewers.render.march import Marcher
    from otzi_viewers.render.medium import Medium
    from otzi_viewers.render.scene import Scene
    from otzi_viewers.render.transfer import Transfer

__all__ = ["BRICKS_AHEAD", "StreamedStage"]

BRICKS_AHEAD = 2
"""Bricks that are read while one is drawn."""
_OPAQUE = 0.01
"""Transmittance at which the kernel ends a ray."""
_CROWDED = 0.7


class _View(NamedTuple):
    """One of the pictures that are drawn together."""

    camera: Pose
    marcher: Marcher
    samples: range
    rays: NDArray[np.void]
    """``(samples, pixels)`` of `RAY`."""

    def open_pixels(self, own: Box, source: VolumeSource) -> NDArray[np.int64]:
        """Give the pixels whose rays may meet a brick and can still be changed by it."""
        pixels = rectangle_of(own, self.camera, source).pixels(self.camera.size[0])
        is_open = (self.rays["transmittance"][:, pixels] >= _OPAQUE).any(axis=0)
        return pixels[is_open]

    def expose(self, film: Film) -> None:
        """Put what the rays have brought on the film."""
        everywhere = np.arange(self.rays.shape[1])
        for sample, rays in zip(self.samples, self.rays, strict=True):
            film.add(everywhere, sample, rays)


class StreamedStage(Stage):
    """A `Stage` of a volume that stays in the store.

    Parameters
    ----------
    source
        The volume.
    brick_voxels
        Side of what is read at once.
    pictures_at_once
        How many pictures share what is read.
    n_threads
        All usable cores where left out.
    """

    volume: VolumeSource
    brick_voxels: int

    def __init__(
        self,
        source: VolumeSource,
        brick_voxels: int = 128,
        pictures_at_once: int = 1,
        *,
        n_threads: int | None = None,
    ) -> None:
        super().__init__(source, n_threads=n_threads)
        self.brick_voxels = brick_voxels
        self.pictures_at_once = pictures_at_once
        self.n_bricks_read = 0

    def render(
        self, scene: Scene, listen: Listener = ignore, snapshot: Snapshot | None = None
    ) -> Rendered:
        """Give colour and depth of a complete scene; see `Stage.render`.

        With `snapshot`, bricks are read once for each round of samples.
        """
        width, height = scene.output.size
        spp = scene.quality.spp
        film = Film(width * height)
        for samples in sample_rounds(spp) if snapshot else [range(spp)]:
            view = self._view(scene, samples, listen)
            self._draw([view], self._medium(scene, listen), listen)
            view.expose(film)
            if snapshot:
                snapshot(samples.stop, *self._developed(film, view))
        return self._developed(film, view)

    def render_all(self, scenes: Sequence[Scene], listen: Listener = ignore) -> Iterator[Rendered]:
        """Yield colour and depth of each scene; those that differ in the camera share bricks."""
        for _, alike in groupby(scenes, lambda scene: (scene.classes, scene.density)):
            group = list(alike)
            for first in range(0, len(group), self.pictures_at_once):
                together = group[first : first + self.pictures_at_once]
                medium = self._medium(group[0], listen)
                views = [self._view(scene, range(scene.quality.spp), listen) for scene in together]
                self._draw(views, medium, listen)
                for view in views:
                    film = Film(view.rays.shape[1])
                    view.expose(film)
                    yield self._developed(film, view)

    def _draw(self, views: Sequence[_View], medium: Medium, listen: Listener) -> None:
        """Carry the rays of pictures that see one medium through the volume."""
        cameras = [view.camera for view in views]
        shared = shared_bricks(self.volume, medium.distances, cameras, self.brick_voxels)
        todo = [(brick, [views[n] for n in takers]) for brick, takers in shared]
        with step(listen, "render", len(todo), "bricks") as work:
            for own, takers, lanes in self._read_ahead(todo):
                if lanes is not None:
                    self._march(own, takers, lanes)
                work.advance()

    def _view(self, scene: Scene, samples: range, listen: Listener) -> _View:
        camera = pose(scene.camera, scene.output.size, self.volume.extent_voxels)
        width, height = scene.output.size
        rays = new_rays(len(samples) * width * height).reshape(len(samples), width * height)
        return _View(camera, self._marcher(scene, camera, listen), samples, rays)

    def _read_ahead(
        self, todo: Iterable[tuple[Box, list[_View]]]
    ) -> Iterator[tuple[Box, list[_View], NDArray[Any] | None]]:
        """Yield bricks with their data, or None where no ray needs them."""
        with ThreadPoolExecutor(READERS) as pool:
            coming: deque[tuple[Box, list[_View], Future[NDArray[Any]] | None]] = deque()
            for own, takers in todo:
                is_needed = any(view.open_pixels(own, self.volume).size for view in takers)
                coming.append((own, takers, pool.submit(self._read, own) if is_needed else None))
                self.n_bricks_read += is_needed
                if len(coming) > BRICKS_AHEAD:
                    yield _result(coming.popleft())
            while coming:
                yield _result(coming.popleft())

    def _read(self, own: Box) -> NDArray[Any]:
        return in_lanes(self.volume.read(own.grow(1).clip(self.volume.shape)))

    def _march(self, own: Box, takers: Iterable[_View], lanes: NDArray[Any]) -> None:
        """Carry the rays of pictures through a brick."""
        work: list[tuple[_View, NDArray[np.int64]]] = []
        for view in takers:
            pixels = view.open_pixels(own, self.volume)
            if pixels.size:
                view.marcher.hold(lanes, own.grow(1).clip(self.volume.shape), own)
                parts = np.array_split(pixels, max(1, len(pixels) // self._tile_pixels**2))
                work += [(view, part) for part in parts]
        for _ in in_threads(_shade, work, "brick", "tiles", n_threads=self._n_threads):
            pass

    def _developed(self, film: Film, view: _View) -> Rendered:
        return film.develop(*view.camera.size, self.volume.voxel_angstrom, view.samples.stop)

    def _new_medium(self, transfer: Transfer, listen: Listener) -> Medium:
        """Find which bricks may be seen, and read those for what stands in the light."""
        distances = brick_distances(self.volume.brick_maxima(listen), transfer)
        share = float((distances == 0).mean())
        if share > _CROWDED:
            listen(
                Noted(
                    f"something may be seen in {share:.0%} of the volume, so little of it is "
                    "passed over: a larger low of the classes or of the density is faster"
                )
            )
        shape = self.volume.shape
        occluder = np.zeros(halved(Box.whole(shape)).shape, np.uint8)

        def fill(box: Box) -> None:
            part = occluder_part(self.volume, self.volume.read(box), box, transfer)
            occluder[halved(box).slices] = part

        boxes = [
            box
            for box in tile(shape, (STRIP_VOXELS,) * 3)
            if (distances[sub_bricks(box)] == 0).any()
        ]
        for _ in in_threads(fill, boxes, "occluder", "boxes", listen, READERS):
            pass
        return medium_from(self.volume, transfer, None, occluder, distances)


def _result(
    coming: tuple[Box, list[_View], Future[NDArray[Any]] | None],
) -> tuple[Box, list[_View], NDArray[Any] | None]:
    own, takers, data = coming
    return own, takers, None if data is None else data.result()


def _shade(work: tuple[_View, NDArray[np.int64]]) -> None:
    view, part = work
    for sample, all_rays in zip(view.samples, view.rays, strict=True):
        mine = all_rays.take(part)
        origins, directions = view.camera.rays(part, subpixel_offset(sample))
        view.marcher.march(origins, directions, part, sample, mine)
        all_rays.put(part, mine)
