"""The few things that pictures need of a GPU, whichever library gives them.

Work is done in the order in which it is asked for by two queues, one that copies and one that
computes; an `Event` is a place in a queue that the other, or the processor, can wait for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from otzi.box import Zyx
    from otzi.events import Listener

__all__ = ["Event", "Gpu", "Kernels", "Memory", "OutOfGpuMemory", "Texture"]


class OutOfGpuMemory(Exception):
    """The device has no more memory to give; to be caught where less can be asked for."""


class Event(Protocol):
    """A place in a queue."""

    def wait(self) -> None:
        """Return once everything before it is done."""
        ...


class Texture(Protocol):
    """A three-dimensional array that is read with linear interpolation, integers as [0, 1].

    Sample i has its centre at coordinate i + 0.5, edges go on.
    """

    @property
    def handle(self) -> int:
        """What a kernel knows it by."""
        ...


class Memory(Protocol):
    """Bytes on the device, freed with the object."""

    @property
    def address(self) -> int:
        """Of the first byte."""
        ...


class Kernels(Protocol):
    """The kernels of one look and lighting."""

    def launch(
        self,
        name: str,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        arguments: Sequence[np.generic[Any]],
        after: Event | None = None,
    ) -> Event:
        """Compute, once `after` is past.

        Parameters
        ----------
        name
            Of the kernel, in ``gpu.cu``.
        grid, block
            Blocks, and threads in a block, along x, y and z.
        arguments
            Each as long as the kernel declares it: addresses are uint64, structures are void.
        after
            Of the queue that copies.
        """
        ...


class Gpu(Protocol):
    """A device."""

    @property
    def name(self) -> str:
        """As its maker calls it."""
        ...

    def free_bytes(self) -> int:
        """Give how much of its memory nobody uses."""
        ...

    def kernels(self, look: str, lighting: str, listen: Listener) -> Kernels:
        """Give the kernels of one look and lighting, compiled where they never were."""
        ...

    def memory(self, n_bytes: int) -> Memory:
        """Give memory with any content.

        Raises
        ------
        OutOfGpuMemory
            If there is not as much.
        """
        ...

    def texture(self, shape: Zyx, n_channels: int, dtype: np.dtype[Any]) -> Texture:
        """Give a texture with any content, of 1, 2 or 4 channels of uint8 or uint16.

        Raises
        ------
        OutOfGpuMemory
            If there is not as much memory.
        """
        ...

    def pinned(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Give an array of the processor's from which is copied without its help.

        Raises
        ------
        OutOfGpuMemory
            If there is not as much.
        """
        ...

    def fill(self, texture: Texture, values: NDArray[Any], after: Event | None = None) -> Event:
        """Begin to copy into a texture, once `after`, of the queue that computes, is past.

        `values` is ``(z, y, x · channels)``, contiguous, and stays as it is until the event.
        """
        ...

    def fill_from(self, texture: Texture, memory: Memory, shape: tuple[int, int, int]) -> None:
        """Copy ``(z, y, x · channels)`` bytes of the device into a texture, as one more kernel."""
        ...

    def write(self, memory: Memory, values: NDArray[Any]) -> None:
        """Copy an array to the device; all that is computed from now on sees it."""
        ...

    def read(self, memory: Memory, into: NDArray[Any]) -> None:
        """Copy from the device, once all that was asked for is computed."""
        ...
