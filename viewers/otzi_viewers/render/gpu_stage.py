"""Pictures of a volume on a GPU: what of it lies there, and what is done where it is full."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from otzi.errors import MemoryBudgetError, UsageError
from otzi.events import Listener, Noted, ignore
from otzi.memory import format_bytes
from otzi_viewers.render.camera import pose
from otzi_viewers.render.gpu import OutOfGpuMemory
from otzi_viewers.render.gpu_bricks import Bricks, Whole
from otzi_viewers.render.gpu_frame import Frame
from otzi_viewers.render.gpu_plan import GpuPlan, Need, gpu_plan
from otzi_viewers.render.medium import CHANNELS_PER_PACK, in_lanes
from otzi_viewers.render.sampling import sample_rounds
from otzi_viewers.render.source import VolumeSource

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from otzi.box import Box
    from otzi_viewers.render.cpu import Prepared, Rendered, Snapshot, Stage
    from otzi_viewers.render.gpu import Gpu
    from otzi_viewers.render.gpu_bricks import OnDevice
    from otzi_viewers.render.medium import Medium
    from otzi_viewers.render.scene import Scene
    from otzi_viewers.render.volume import Volume

__all__ = ["GpuStage"]

_BUDGET_SHARE = 0.9
"""Of the memory that is free: the library and the display take some, too."""


class GpuStage:
    """A `Stage` whose rays are marched on a GPU; what a frame needed stays there for the next.

    Pictures do not depend, to the bit, on how much memory is allowed: with little, the volume is
    streamed through the device in bricks.

    Parameters
    ----------
    stage
        The volume, made ready on the processor: occluder, empty space, looks and light.
    gpu
        The device.
    memory_bytes
        What may be used of it; most of what is free if None.
    """

    def __init__(self, stage: Stage, gpu: Gpu, memory_bytes: int | None = None) -> None:
        self._stage, self._gpu = stage, gpu
        self._allowed_bytes = memory_bytes
        self._budget: int | None = None
        self._held: tuple[tuple[Any, ...], OnDevice] | None = None
        self._frame: Frame | None = None

    @property
    def volume(self) -> Volume | VolumeSource:
        """What rays go through."""
        return self._stage.volume

    @property
    def n_bricks_read(self) -> int:
        """Bricks that were read for what is on the device now."""
        return self._held[1].n_read if self._held else 0

    def render(
        self, scene: Scene, listen: Listener = ignore, snapshot: Snapshot | None = None
    ) -> Rendered:
        """Give colour and depth of a complete scene: see `Stage.render`.

        Raises
        ------
        MemoryBudgetError
            If the picture does not fit into what may be used of the device, or into what there is.
        UsageError
            If a look that is not streamed does not fit.
        """
        try:
            return self._render(scene, listen, snapshot)
        except OutOfGpuMemory:
            self._release()
        # Somebody else uses the device, too: once more, with half of what was thought to be there.
        self._budget = self._budget_bytes() // 2
        listen(
            Noted(
                f"{self._gpu.name} has less memory than it said: trying with "
                f"{format_bytes(self._budget)}"
            )
        )
        try:
            return self._render(scene, listen, snapshot)
        except OutOfGpuMemory as error:
            self._release()
            width, height = scene.output.size
            raise MemoryBudgetError(
                f"{self._gpu.name} has no {format_bytes(self._budget)} left for a picture of "
                f"{width}x{height} pixels: end what else uses it, or draw with --device cpu"
            ) from error

    def render_all(self, scenes: Sequence[Scene], listen: Listener = ignore) -> Iterator[Rendered]:
        """Yield colour and depth of several scenes; see `render`."""
        for scene in scenes:
            yield self.render(scene, listen)

    def _budget_bytes(self) -> int:
        if self._budget is None:
            free = int(self._gpu.free_bytes() * _BUDGET_SHARE)
            self._budget = free if self._allowed_bytes is None else min(free, self._allowed_bytes)
        return self._budget

    def _release(self) -> None:
        self._frame = self._held = None

    def _render(self, scene: Scene, listen: Listener, snapshot: Snapshot | None) -> Rendered:
        budget = self._budget_bytes()
        camera = pose(scene.camera, scene.output.size, self.volume.extent_voxels)
        prepared = self._stage.prepared(scene, camera, listen)
        kernels = self._gpu.kernels(prepared.rules.look, prepared.rules.lighting, listen)
        need = self._need(scene, prepared)
        if self._frame is None or not self._frame.serves(need, prepared.medium):
            self._frame = None
            plan = gpu_plan(need, budget)
            if plan.brick_voxels and scene.quality.look != "physical":
                raise UsageError(
                    f"the look {scene.quality.look} is not streamed, and the volume does not fit "
                    f"into the {format_bytes(budget)} of the GPU that may be used: allow more with "
                    "--gpu-memory, or take a coarser --level"
                )
            held = self._on_device(plan, need, prepared.medium)
            self._frame = Frame(self._gpu, self.volume, held, need, plan, prepared.medium)
        spp = scene.quality.spp
        rounds = sample_rounds(spp) if snapshot else [range(spp)]
        return self._frame.draw(prepared, camera, kernels, rounds, listen, snapshot)

    def _on_device(self, plan: GpuPlan, need: Need, medium: Medium) -> OnDevice:
        """Give the volume on the device; looks change, it stays."""
        key = (plan.brick_voxels, plan.n_slots)
        if self._held is None or self._held[0] != key:
            self._held = None
            self._held = key, self._new_on_device(plan, need, medium)
        return self._held[1]

    def _new_on_device(self, plan: GpuPlan, need: Need, medium: Medium) -> OnDevice:
        if plan.brick_voxels is None:
            return Whole(self._gpu, medium.lanes)
        dtype = _dtype_of(medium)
        n_packs = need.texel_bytes // (CHANNELS_PER_PACK * dtype.itemsize)

        source = self.volume

        def read(held: Box) -> NDArray[Any]:
            if isinstance(source, VolumeSource):
                return in_lanes(source.read(held))
            return medium.lanes[held.slices]

        return Bricks(
            self._gpu, medium.shape, dtype, n_packs, plan.brick_voxels, plan.n_slots, read
        )

    def _need(self, scene: Scene, prepared: Prepared) -> Need:
        medium = prepared.medium
        n_packs = -(-(len(medium.extinction) + 1) // CHANNELS_PER_PACK)
        return Need(
            shape=medium.shape,
            texel_bytes=n_packs * CHANNELS_PER_PACK * _dtype_of(medium).itemsize,
            size=scene.output.size,
            spp=scene.quality.spp,
            lighting=prepared.rules.lighting,
            # A stage that streams was given bricks that fit, and here are more of them.
            side_limit=None if medium.data is not None else self._stage.brick_voxels,
        )


def _dtype_of(medium: Medium) -> np.dtype[Any]:
    return np.dtype(np.uint16 if medium.value_scale < 1 / 256 else np.uint8)
