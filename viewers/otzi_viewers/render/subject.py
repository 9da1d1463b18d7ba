"""What is drawn, in a form that other processes can open, and the stage it is drawn on."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from otzi.collection import open_collection
from otzi.errors import UsageError
from otzi.events import Listener, Noted, ignore
from otzi.memory import format_bytes
from otzi_viewers.render.cpu import Stage
from otzi_viewers.render.device import Drawer, DrawingDevice, on_device
from otzi_viewers.render.source import VolumeSource
from otzi_viewers.render.stream import StreamedStage
from otzi_viewers.render.stream_plan import StreamPlan, stream_plan
from otzi_viewers.render.volume import is_affordable, load_volume

if TYPE_CHECKING:
    from otzi.tomogram import Tomogram
    from otzi_viewers.render.scene import Scene

__all__ = ["Subject", "kept_stage", "new_stage", "streaming"]


class Subject(NamedTuple):
    """A level of a tomogram, and the budget for drawing it."""

    collection: str
    tomogram: str
    probs: str
    classes: tuple[str, ...]
    scene: Scene
    """The first picture's: how a volume is streamed depends on it."""
    level: int
    memory_bytes: int
    device: DrawingDevice
    n_pictures: int = 1
    """As many are to be drawn: those of a volume that is streamed share what is read."""


@lru_cache(maxsize=1)
def kept_stage(subject: Subject) -> Drawer:
    """Give the stage of a subject, kept in each process for its next picture."""
    return new_stage(open_collection(subject.collection)[subject.tomogram], subject)


def new_stage(tomo: Tomogram, subject: Subject, listen: Listener = ignore) -> Drawer:
    """Give the stage of a subject: its whole volume, or one that is streamed if told so.

    Raises
    ------
    MemoryBudgetError
        If not even streaming fits into the memory.
    UsageError
        If it would have to be streamed and its look cannot be.
    DeviceUnavailable
        If its device is not here.
    """
    plan = streaming(tomo, subject, listen)
    if plan is None:
        stage = Stage(load_volume(_source(tomo, subject), listen))
    else:
        source = _source(tomo, subject, plan.cache_bytes)
        stage = StreamedStage(source, plan.brick_voxels, plan.pictures_at_once)
    return on_device(stage, subject.device, listen)


def streaming(tomo: Tomogram, subject: Subject, listen: Listener = ignore) -> StreamPlan | None:
    """Give how a subject is streamed, and say so; None if its whole volume fits into the memory."""
    source = _source(tomo, subject)
    if is_affordable(source, subject.memory_bytes):
        return None
    if subject.scene.quality.look != "physical":
        raise UsageError(
            f"the look {subject.scene.quality.look} is not streamed, and level {subject.level} of "
            f"{tomo.id} does not fit into {format_bytes(subject.memory_bytes)}: allow more with "
            "--memory, or take a coarser --level"
        )
    plan = stream_plan(source, subject.scene, subject.memory_bytes, subject.n_pictures)
    together = f", {plan.pictures_at_once} pictures at a time" if plan.pictures_at_once > 1 else ""
    listen(
        Noted(
            f"level {subject.level} of {tomo.id} does not fit into "
            f"{format_bytes(subject.memory_bytes)}: streamed in bricks of {plan.brick_voxels} "
            f"voxels{together}, which changes no bit"
        )
    )
    return plan


def _source(tomo: Tomogram, subject: Subject, cache_bytes: int = 0) -> VolumeSource:
    return VolumeSource(
        tomo,
        subject.probs,
        subject.classes,
        subject.scene.density,
        subject.level,
        cache_bytes,
    )
