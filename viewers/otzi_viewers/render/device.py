"""Where pictures are computed: on a GPU if there is one, and why not if there is none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from otzi.cuda_device import CudaDevice, find_cuda_device
from otzi.errors import DeviceUnavailable
from otzi.events import Listener, Noted, ignore

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from otzi_viewers.render.cpu import Rendered, Snapshot, Stage
    from otzi_viewers.render.scene import Scene
    from otzi_viewers.render.source import VolumeSource
    from otzi_viewers.render.volume import Volume

__all__ = ["AUTO", "Asked", "Drawer", "DrawingDevice", "chosen_device", "on_device"]

Asked = Literal["auto", "cpu", "cuda"]


class Drawer(Protocol):
    """Gives pictures of one volume; the same on every device, but for the last bits of a colour."""

    @property
    def volume(self) -> Volume | VolumeSource:
        """What rays go through."""
        ...

    def render(
        self, scene: Scene, listen: Listener = ignore, snapshot: Snapshot | None = None
    ) -> Rendered:
        """Give colour and depth of a complete scene: see `Stage.render`."""
        ...

    def render_all(self, scenes: Sequence[Scene], listen: Listener = ignore) -> Iterator[Rendered]:
        """Yield colour and depth of several scenes."""
        ...


class DrawingDevice(NamedTuple):
    """Where to draw, and how much of its memory may be used; other processes can read it."""

    asked: Asked = "auto"
    memory_bytes: int | None = None
    """Of a GPU; most of what is free if None."""


AUTO = DrawingDevice()
"""On a GPU if there is one."""


def chosen_device(asked: Asked) -> tuple[CudaDevice | None, str]:
    """Give the card to draw on, None for the processor, and a line that says which and why.

    Raises
    ------
    DeviceUnavailable
        If ``"cuda"`` is asked for and cannot be had.
    """
    if asked == "cpu":
        return None, "drawing on the CPU, as asked for"
    try:
        found = find_cuda_device()
    except DeviceUnavailable as error:
        if asked == "cuda":
            raise DeviceUnavailable(f"{error}; or leave --device out, or --device cpu") from error
        return None, f"drawing on the CPU: {str(error).partition(':')[0]}"
    return found, f"drawing on {found}"


def on_device(stage: Stage, device: DrawingDevice, listen: Listener = ignore) -> Drawer:
    """Give what draws a stage's volume on the device that is asked for, or on the best there is.

    Raises
    ------
    DeviceUnavailable
        If ``"cuda"`` is asked for and cannot be had.
    """
    found, why = chosen_device(device.asked)
    listen(Noted(why))
    if found is None:
        return stage
    from otzi_viewers.render.cuda import CudaGpu
    from otzi_viewers.render.gpu_stage import GpuStage

    return GpuStage(stage, CudaGpu(), device.memory_bytes)
