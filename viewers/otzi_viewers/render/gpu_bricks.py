"""Bricks of a volume in the memory of a GPU: read ahead, copied beside the march, kept."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from otzi.box import Box
from otzi_viewers.render.gpu_plan import brick_shape
from otzi_viewers.render.medium import CHANNELS_PER_PACK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from concurrent.futures import Future

    from numpy.typing import NDArray

    from otzi.box import Zyx
    from otzi_viewers.render.gpu import Event, Gpu, Texture

__all__ = ["Bricks", "OnDevice", "Slot", "Whole"]

_STAGES = 3
"""Bricks on their way: one is read, one waits, one is copied."""


class OnDevice(Protocol):
    """A volume that rays can be marched through on a device, brick by brick."""

    n_read: int
    """Bricks that were read for it."""

    def in_turn(self, bricks: Sequence[Box], is_open: Callable[[Box], bool]) -> Iterator[Slot]:
        """Yield where bricks lie; see `Bricks.in_turn`."""
        ...


class Slot:
    """Textures that hold one brick after the other."""

    def __init__(self, textures: list[Texture]) -> None:
        self.textures = textures
        self.own = self.held = Box((0, 0, 0), (0, 0, 0))
        self.filled: Event | None = None
        """Past once the brick is there."""
        self.used: Event | None = None
        """Past once nothing reads the brick any more."""
        self.turn = -1


class _Stage(NamedTuple):
    """Memory of the processor, and the last copy out of it."""

    packs: list[NDArray[Any]]
    copied: list[Event]


class _Waiting(NamedTuple):
    """A brick whose turn comes: it is there, or it is read."""

    own: Box
    slot: Slot | None
    reading: Future[_Stage] | None


class Bricks:
    """The bricks of one volume.

    Parameters
    ----------
    gpu
        Where they are kept.
    shape, dtype, n_packs
        Of the volume; packs are of four channels.
    side
        Of a brick, in voxels.
    n_slots
        How many are kept, at least `LEAST_SLOTS`.
    read
        Gives ``(z, y, x, lane)`` of a box.
    """

    def __init__(
        self,
        gpu: Gpu,
        shape: Zyx,
        dtype: np.dtype[Any],
        n_packs: int,
        side: int,
        n_slots: int,
        read: Callable[[Box], NDArray[Any]],
    ) -> None:
        self._gpu, self._shape, self._read = gpu, shape, read
        held = brick_shape(shape, side)
        packed = (*held[:2], held[2] * CHANNELS_PER_PACK)
        self._slots = [
            Slot([gpu.texture(held, CHANNELS_PER_PACK, dtype) for _ in range(n_packs)])
            for _ in range(n_slots)
        ]
        self._stages = [
            _Stage([gpu.pinned(packed, dtype) for _ in range(n_packs)], []) for _ in range(_STAGES)
        ]
        self._turn = 0
        self.n_read = 0

    def in_turn(self, bricks: Sequence[Box], is_open: Callable[[Box], bool]) -> Iterator[Slot]:
        """Yield the slots of bricks, in their order, without those behind what is opaque.

        While one is marched through the next is copied and others are read. `is_open` tells, of
        what has been marched through so far, whether a brick can be seen; not asked of those that
        are there already. The taker sets `Slot.used` before the next is taken.
        """
        waiting: list[_Waiting] = []
        coming = iter(bricks)
        with ThreadPoolExecutor(1) as reader:

            def look_ahead() -> None:
                # With the one that is copied, as many as there are stages.
                while len(waiting) < _STAGES - 1 and (own := next(coming, None)) is not None:
                    if slot := self._found(own):
                        waiting.append(_Waiting(own, slot, None))
                    elif is_open(own):
                        stage = self._stages[self.n_read % _STAGES]
                        self.n_read += 1
                        waiting.append(_Waiting(own, None, reader.submit(self._staged, own, stage)))

            look_ahead()
            current = self._taken(waiting, None)
            while current is not None:
                yield current
                following = self._taken(waiting, current)
                look_ahead()
                current = following or self._taken(waiting, current)

    def _found(self, own: Box) -> Slot | None:
        for slot in self._slots:
            if slot.own == own:
                # Not given to another brick while it waits.
                slot.turn = self._next_turn()
                return slot
        return None

    def _taken(self, waiting: list[_Waiting], current: Slot | None) -> Slot | None:
        """Give the slot of what waits first, and begin to copy into it if it is not there."""
        if not waiting:
            return None
        own, slot, reading = waiting.pop(0)
        if slot is not None or reading is None:
            return slot
        stage = reading.result()
        kept = {current, *(other.slot for other in waiting)}
        # The last used of those that are not needed now: the first stay for the next picture.
        slot = max(
            (slot for slot in self._slots if slot not in kept),
            key=lambda slot: (slot.turn < 0, slot.turn),
        )
        slot.own, slot.held, slot.turn = own, own.grow(1).clip(self._shape), self._next_turn()
        for texture, pack in zip(slot.textures, stage.packs, strict=True):
            slot.filled = self._gpu.fill(texture, pack, slot.used)
            stage.copied.append(slot.filled)
        return slot

    def _next_turn(self) -> int:
        self._turn += 1
        return self._turn

    def _staged(self, own: Box, stage: _Stage) -> _Stage:
        """Read a brick into memory of the processor; edges go on for a voxel."""
        lanes = self._read(own.grow(1).clip(self._shape))
        while stage.copied:
            stage.copied.pop().wait()
        for n, pack in enumerate(stage.packs):
            channels = slice(CHANNELS_PER_PACK * n, CHANNELS_PER_PACK * (n + 1))
            _extended(lanes[..., channels], pack)
        return stage


class Whole:
    """A volume in one piece, from ``(z, y, x, lane)``."""

    def __init__(self, gpu: Gpu, lanes: NDArray[Any]) -> None:
        depth, height, width, n_lanes = lanes.shape
        self.n_read = 1
        self._slot = Slot([])
        self._slot.own = self._slot.held = Box.whole((depth, height, width))
        for first in range(0, n_lanes, CHANNELS_PER_PACK):
            texture = gpu.texture((depth, height, width), CHANNELS_PER_PACK, lanes.dtype)
            self._slot.textures.append(texture)
            pack = np.ascontiguousarray(lanes[..., first : first + CHANNELS_PER_PACK])
            gpu.fill(texture, pack.reshape(depth, height, -1)).wait()

    def in_turn(self, bricks: Sequence[Box], is_open: Callable[[Box], bool]) -> Iterator[Slot]:
        """Yield where the only brick lies, if it is asked for."""
        if bricks:
            yield self._slot


def _extended(lanes: NDArray[Any], pack: NDArray[Any]) -> None:
    """Put ``(z, y, x, 4)`` into the corner of ``(z, y, x · 4)``, and its last planes once more."""
    there = pack.reshape(*pack.shape[:2], -1, CHANNELS_PER_PACK)
    depth, height, width, _ = lanes.shape
    there[:depth, :height, :width] = lanes
    for axis, length in enumerate((depth, height, width)):
        if length < there.shape[axis]:
            on_axis = np.moveaxis(there, axis, 0)
            on_axis[length] = on_axis[length - 1]
