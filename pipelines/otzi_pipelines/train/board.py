"""Curves and slices for TensorBoard, where that is installed."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from otzi.errors import disk_errors

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray
    from torch.utils.tensorboard import SummaryWriter

__all__ = ["Board", "board"]


class Board(Protocol):
    """Where a validation is shown."""

    def show(
        self, step: int, numbers: Mapping[str, float | None], picture: NDArray[np.uint8]
    ) -> None:
        """Show numbers by their names, and ``(height, width, 3)`` uint8, of a step."""
        ...


@contextmanager
def board(folder: Path | None, first_step: int) -> Iterator[Board]:
    """Give a board that is kept in a folder, from a step on; without folder it shows nothing.

    What an interrupted run has shown of this step and later ones is shown no more.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        folder = None
    if folder is None:
        yield _Nothing()
        return
    with disk_errors(folder, "writing"):
        writer = SummaryWriter(str(folder), purge_step=first_step)
    try:
        yield _TensorBoard(writer)
    finally:
        writer.close()


class _Nothing:
    def show(
        self, step: int, numbers: Mapping[str, float | None], picture: NDArray[np.uint8]
    ) -> None:
        """Show nothing."""


class _TensorBoard:
    def __init__(self, writer: SummaryWriter) -> None:
        self._writer = writer

    def show(
        self, step: int, numbers: Mapping[str, float | None], picture: NDArray[np.uint8]
    ) -> None:
        """Add scalars and an image."""
        for name, value in numbers.items():
            if value is not None:
                self._writer.add_scalar(name, value, step)
        self._writer.add_image("density, target, prediction", picture, step, dataformats="HWC")
        self._writer.flush()
