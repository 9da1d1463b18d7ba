"""What tests of watching share: a clock that they set, and files that arrive as real ones do."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

from mrc_files import mrc_bytes
from otzi.ledger.sources import Quiet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

__all__ = ["ARRIVALS", "FakeClock", "volume_bytes"]


class FakeClock:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.boot, self.seconds = "boot", 1000.0

    def __call__(self) -> Quiet:
        return Quiet(self.boot, self.seconds)

    def advance(self, seconds: float) -> None:
        self.seconds += seconds


def volume_bytes(seed: int, shape: tuple[int, int, int] = (8, 12, 10)) -> bytes:
    """Give an MRC file of noise without zeros."""
    volume = np.random.default_rng(seed).integers(1, 999, shape).astype(np.int16)
    return mrc_bytes(volume)


def _in_pieces(data: bytes, n_pieces: int) -> list[bytes]:
    step = -(-len(data) // n_pieces)
    return [data[i : i + step] for i in range(0, len(data), step)]


def appended(path: Path, data: bytes, n_pieces: int = 4) -> Iterator[None]:
    """As ``cp`` writes: piece after piece."""
    for number, piece in enumerate(_in_pieces(data, n_pieces)):
        with path.open("ab" if number else "wb") as file:
            file.write(piece)
        yield


def preallocated(path: Path, data: bytes, n_pieces: int = 4) -> Iterator[None]:
    """As copies over SMB do: the whole length first, then the bytes; the header with the first."""
    path.write_bytes(bytes(len(data)))
    written = 0
    for piece in _in_pieces(data, n_pieces):
        with path.open("r+b") as file:
            file.seek(written)
            file.write(piece)
        written += len(piece)
        yield


def header_last(path: Path, data: bytes, n_pieces: int = 4) -> Iterator[None]:
    """As programs do that learn of the statistics while they write."""
    with path.open("wb") as file:
        file.write(bytes(1024))
    yield
    for piece in _in_pieces(data[1024:], n_pieces):
        with path.open("ab") as file:
            file.write(piece)
        yield
    with path.open("r+b") as file:
        file.write(data[:1024])
    yield


def renamed(path: Path, data: bytes, n_pieces: int = 4) -> Iterator[None]:
    """As rsync does: under a hidden name, with the times of the original, then in place."""
    temporary = path.with_name(f".{path.name}.Xy12Za")
    for _ in appended(temporary, data, n_pieces):
        yield
    os.utime(temporary, ns=(10**18, 10**18))
    temporary.rename(path)
    yield


def part_renamed(path: Path, data: bytes, n_pieces: int = 4) -> Iterator[None]:
    """As browsers and transfer programs do."""
    temporary = path.with_name(f"{path.name}.part")
    for _ in appended(temporary, data, n_pieces):
        yield
    temporary.rename(path)
    yield


ARRIVALS: dict[str, Callable[..., Iterator[None]]] = {
    function.__name__: function
    for function in (appended, preallocated, header_last, renamed, part_renamed)
}
"""Ways of a file into a folder; each yields after every step, the last with the file whole."""
