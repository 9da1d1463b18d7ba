"""One picture on a GPU: rays, film and light on the device, kernels launched brick by brick."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from otzi.box import Box
from otzi.events import Listener, Step, step
from otzi_viewers.render.gpu_plan import TILE, GpuPlan, Need, blocks_of, linear_blocks
from otzi_viewers.render.kernels.params import CONES, RAY, Params
from otzi_viewers.render.march import kernel_params
from otzi_viewers.render.sampling import subpixel_offset
from otzi_viewers.render.visibility import Rectangle, rectangle_of, visible_bricks

if TYPE_CHECKING:
    from collections.abc import Sequence
    from ctypes import Structure

    from numpy.typing import NDArray

    from otzi_viewers.render.camera import Pose
    from otzi_viewers.render.cpu import Prepared, Rendered, Snapshot
    from otzi_viewers.render.gpu import Gpu, Kernels, Memory, Texture
    from otzi_viewers.render.gpu_bricks import OnDevice, Slot
    from otzi_viewers.render.medium import Lamp, Medium
    from otzi_viewers.render.source import VolumeSource
    from otzi_viewers.render.volume import Volume

__all__ = ["Frame"]

_Arguments = tuple["np.generic[Any]", ...]


class Frame:
    """What lies on the device for pictures of one medium and size.

    Parameters
    ----------
    gpu
        The device.
    volume
        Its place in the world.
    held
        The volume on the device.
    need, plan
        What is there for, and how much of everything.
    medium
        What the volume's values mean.

    Raises
    ------
    OutOfGpuMemory
        If it does not fit.
    """

    def __init__(
        self,
        gpu: Gpu,
        volume: Volume | VolumeSource,
        held: OnDevice,
        need: Need,
        plan: GpuPlan,
        medium: Medium,
    ) -> None:
        self._gpu, self._volume, self._held = gpu, volume, held
        self._need, self._plan, self._medium = need, plan, medium
        self._light = _Light(gpu, medium)
        self._distances = _written(gpu, medium.distances)
        self._n_pixels = need.size[0] * need.size[1]
        self._rays = gpu.memory(plan.samples_at_once * self._n_pixels * RAY.itemsize)
        self._total = gpu.memory(self._n_pixels * 4 * 8)
        self._depth = gpu.memory(self._n_pixels * 4)
        self._rgba = gpu.memory(self._n_pixels * 4 * 4)
        self._flag = gpu.memory(4)

    def serves(self, need: Need, medium: Medium) -> bool:
        """Tell whether pictures of this need and medium can be drawn with it."""
        return need == self._need and medium is self._medium

    def draw(
        self,
        prepared: Prepared,
        camera: Pose,
        kernels: Kernels,
        rounds: Sequence[range],
        listen: Listener,
        snapshot: Snapshot | None = None,
    ) -> Rendered:
        """Give colour and depth: see `Stage.render`.

        Parameters
        ----------
        prepared
            Of this frame's medium.
        camera
            Of this frame's size.
        kernels
            Of the look and the lighting of `prepared`.
        rounds
            The samples of each pixel; `snapshot` is told after each.
        listen
            Told of the progress.
        snapshot
            Told of the picture so far.
        """
        params = kernel_params(*prepared)
        params.distances = self._distances.address
        _aim(params, camera)
        self._light.put(params, prepared, kernels)
        bricks = self._bricks_in_order(camera)
        at_once = self._plan.samples_at_once
        passes = [[r[i : i + at_once] for i in range(0, len(r), at_once)] for r in rounds]
        with step(listen, "render", sum(map(len, passes)) * len(bricks), "bricks") as work:
            for samples, parts in zip(rounds, passes, strict=True):
                for part in parts:
                    self._expose(params, kernels, camera, bricks, part, work)
                if snapshot:
                    snapshot(samples.stop, *self._developed(kernels, samples.stop))
        return self._developed(kernels, rounds[-1].stop)

    def _bricks_in_order(self, camera: Pose) -> list[Box]:
        side = self._plan.brick_voxels
        if side is None:
            return [Box.whole(self._medium.shape)]
        return visible_bricks(self._volume, self._medium.distances, camera, side)

    def _expose(
        self,
        params: Params,
        kernels: Kernels,
        camera: Pose,
        bricks: list[Box],
        samples: range,
        work: Step,
    ) -> None:
        """Carry rays through all bricks, and put what they bring on the film."""
        n_rays = len(samples) * self._n_pixels
        kernels.launch("begin", *linear_blocks(n_rays), (_address(self._rays), np.uint32(n_rays)))
        n_marched = 0
        is_open = partial(self._is_open, kernels, camera, len(samples))
        for slot in self._held.in_turn(bricks, is_open):
            self._march(params, kernels, camera, slot, samples)
            n_marched += 1
            work.advance()
        work.advance(len(bricks) - n_marched)
        for n, sample in enumerate(samples):
            arguments = (
                self._rays_of(n),
                _address(self._total),
                _address(self._depth),
                np.uint32(self._n_pixels),
                np.int32(sample == 0),
            )
            kernels.launch("expose", *linear_blocks(self._n_pixels), arguments)

    def _march(
        self, params: Params, kernels: Kernels, camera: Pose, slot: Slot, samples: range
    ) -> None:
        """Carry the rays that may meet a brick through it."""
        where = rectangle_of(slot.own, camera, self._volume)
        if not all(where.shape):
            return
        for pack, texture in enumerate(slot.textures):
            params.data[pack] = texture.handle
        params.held_first[:], params.held_shape[:] = slot.held.start, slot.held.shape
        params.own_first[:], params.own_last[:] = slot.own.start, slot.own.stop
        for n, sample in enumerate(samples):
            params.sample, params.offset[:] = sample, subpixel_offset(sample)
            arguments = (_by_value(params), self._rays_of(n), _rectangle(where))
            grid = blocks_of(*where.shape)
            slot.used = kernels.launch("march", grid, (*TILE, 1), arguments, slot.filled)

    def _is_open(self, kernels: Kernels, camera: Pose, n_samples: int, own: Box) -> bool:
        """Tell whether light comes from behind a brick, after all that was marched so far."""
        where = rectangle_of(own, camera, self._volume)
        if not all(where.shape):
            return False
        flag = np.zeros(1, np.uint32)
        self._gpu.write(self._flag, flag)
        counts = [np.uint32(n) for n in (n_samples, self._n_pixels, camera.size[0])]
        arguments: _Arguments = (
            _address(self._rays),
            *counts,
            _rectangle(where),
            _address(self._flag),
        )
        kernels.launch("find_open", blocks_of(*where.shape), (*TILE, 1), arguments)
        self._gpu.read(self._flag, flag)
        return bool(flag[0])

    def _developed(self, kernels: Kernels, n_samples: int) -> Rendered:
        width, height = self._need.size
        rgba = np.empty((height, width, 4), np.float32)
        depth = np.empty((height, width), np.float32)
        counts = [np.uint32(n) for n in (rgba.size, n_samples)]
        arguments: _Arguments = (_address(self._total), _address(self._rgba), *counts)
        kernels.launch("develop", *linear_blocks(rgba.size), arguments)
        self._gpu.read(self._rgba, rgba)
        self._gpu.read(self._depth, depth)
        return rgba, depth * np.float32(self._volume.voxel_angstrom)

    def _rays_of(self, n: int) -> np.uint64:
        return _address(self._rays, n * self._n_pixels * RAY.itemsize)


class _Baked(NamedTuple):
    """Light on the device, and whose it is."""

    key: tuple[Any, ...]
    texture: Texture


class _Light:
    """What stands in the light of a medium, on the device; cones and light once they are needed."""

    def __init__(self, gpu: Gpu, medium: Medium) -> None:
        self._gpu, self._medium = gpu, medium
        self._occluder = _filled(gpu, medium.occluder)
        self._cones: list[Texture] = []
        self._ball: tuple[bytes, Memory] | None = None
        self._baked: _Baked | None = None

    def put(self, params: Params, prepared: Prepared, kernels: Kernels) -> None:
        """Tell the kernel where all of it is."""
        _, lamp, rules = prepared
        params.occluder = self._occluder.handle
        ball = np.ascontiguousarray(lamp.ball, np.float32)
        if self._ball is None or self._ball[0] != ball.tobytes():
            self._ball = ball.tobytes(), _written(self._gpu, ball)
        params.ball = self._ball[1].address
        if rules.look != "physical":
            return
        if rules.lighting == "cone":
            self._put_cones(params)
        elif rules.lighting == "baked":
            params.light = self._bake(params, kernels, lamp, rules.seed).handle

    def _put_cones(self, params: Params) -> None:
        if not self._cones:
            self._cones = [_filled(self._gpu, cone) for cone in self._medium.cones]
        params.n_cones = CONES
        for level, (texture, cone) in enumerate(zip(self._cones, self._medium.cones, strict=True)):
            params.cones[level] = texture.handle
            params.cone_shape[level][:] = list(cone.shape)

    def _bake(self, params: Params, kernels: Kernels, lamp: Lamp, seed: int) -> Texture:
        key = (lamp.key, seed)
        if self._baked is None or self._baked.key != key:
            self._baked = None
            depth, height, width = self._medium.occluder.shape
            light = self._gpu.memory(depth * height * width * 2)
            grid = (*blocks_of(height, width)[:2], depth)
            kernels.launch("bake", grid, (*TILE, 1), (_by_value(params), _address(light)))
            texture = self._gpu.texture((depth, height, width), 2, np.dtype(np.uint8))
            self._gpu.fill_from(texture, light, (depth, height, width * 2))
            self._baked = _Baked(key, texture)
        return self._baked.texture


def _filled(gpu: Gpu, values: NDArray[np.uint8]) -> Texture:
    """Give a texture of ``(z, y, x)``."""
    depth, height, width = values.shape
    texture = gpu.texture((depth, height, width), 1, values.dtype)
    gpu.fill(texture, np.ascontiguousarray(values)).wait()
    return texture


def _written(gpu: Gpu, values: NDArray[Any]) -> Memory:
    memory = gpu.memory(values.nbytes)
    gpu.write(memory, np.ascontiguousarray(values))
    return memory


def _aim(params: Params, camera: Pose) -> None:
    """Tell the kernel where rays begin."""
    params.width, params.height = camera.size
    params.perspective = camera.perspective
    params.pixel, params.distance = camera.voxels_per_pixel, camera.distance
    for name in ("eye", "right", "up", "forward"):
        getattr(params, name)[:] = list(getattr(camera, name))


def _address(memory: Memory, offset_bytes: int = 0) -> np.uint64:
    return np.uint64(memory.address + offset_bytes)


def _by_value(structure: Structure) -> np.void:
    """Give a copy of a structure, as a kernel takes it."""
    return np.void(bytes(structure))


def _rectangle(where: Rectangle) -> np.void:
    return np.void(np.array(where, np.int32).tobytes())
