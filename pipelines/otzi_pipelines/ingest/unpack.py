"""Compressed sources: unpacked once into the collection's staging, checked, and removed again."""

from __future__ import annotations

import bz2
import gzip
import zlib
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO, Literal, NamedTuple

from otzi.errors import NotAnMRC, TruncatedMRC, disk_errors
from otzi_pipelines.ingest.source_files import reading_source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

__all__ = ["PACKINGS", "Packing", "packing_of", "unpack", "unpacked_start"]

Packing = Literal["gzip", "bzip2"]

_PIECE_BYTES = 1 << 20


class _Format(NamedTuple):
    magic: bytes
    open: Callable[[BinaryIO], gzip.GzipFile | bz2.BZ2File]
    command: str
    """With which a user unpacks it."""
    most_ratio: int
    """To how many bytes one can unpack at most, about."""


PACKINGS: dict[Packing, _Format] = {
    "gzip": _Format(
        b"\x1f\x8b\x08", lambda file: gzip.GzipFile(fileobj=file, mode="rb"), "gunzip", 1100
    ),
    "bzip2": _Format(b"BZh", bz2.BZ2File, "bunzip2", 2_000_000),
}


def packing_of(path: Path) -> Packing | None:
    """Give how a file is compressed, by its first bytes; None if it is not."""
    with reading_source(path), path.open("rb") as file:
        start = file.read(4)
    return next((name for name, form in PACKINGS.items() if start.startswith(form.magic)), None)


def unpacked_start(path: Path, packing: Packing, n_bytes: int) -> bytes:
    """Give the first bytes of what a file unpacks to; fewer if there are not so many.

    Raises
    ------
    SourceError
        If the stream is damaged.
    """
    with _reading_stream(path, packing), path.open("rb") as file:
        with PACKINGS[packing].open(file) as stream:
            return stream.read(n_bytes)


def unpack(
    path: Path, packing: Packing, target: Path, most_bytes: int, *, salvage: bool = False
) -> None:
    """Unpack a file into a new one, in bounded memory, checked to its end.

    Parameters
    ----------
    path, packing
        The compressed file.
    target
        Written anew.
    most_bytes
        What it may unpack to at most.
    salvage
        Keep what a stream holds that is cut short.

    Raises
    ------
    SourceError
        If the stream is damaged, cut short, or goes on beyond that limit.
    OutOfSpace, AccessDenied, TemporaryFailure
        If the target cannot be written.
    """
    done = 0
    with disk_errors(target, "writing"), target.open("wb") as file:
        for piece in _pieces(path, packing, salvage=salvage):
            done += len(piece)
            if done > most_bytes:
                raise NotAnMRC(
                    f"{path} unpacks to more than {most_bytes} bytes, its header promises less: "
                    f"unpack it with `{PACKINGS[packing].command} --keep` and look"
                )
            file.write(piece)


def _pieces(path: Path, packing: Packing, *, salvage: bool) -> Iterator[bytes]:
    try:
        with _reading_stream(path, packing), path.open("rb") as file:
            with PACKINGS[packing].open(file) as stream:
                # `read` would drop what is whole of the last piece.
                while piece := stream.read1(_PIECE_BYTES):
                    yield piece
    except TruncatedMRC:
        if not salvage:
            raise


@contextmanager
def _reading_stream(path: Path, packing: Packing) -> Iterator[None]:
    """Tell what is wrong with a stream from what is wrong with the disk that it is on."""
    with reading_source(path):
        try:
            yield
        except EOFError as error:
            raise TruncatedMRC(f"{path} is a cut {packing} stream: copy it again") from error
        except (zlib.error, ValueError, OSError) as error:
            if getattr(error, "errno", None) is not None:
                raise
            raise NotAnMRC(
                f"{path} is a damaged {packing} stream ({error}): copy it again"
            ) from error
