"""The data of an MRC file, window by window or slab by slab, in z, y, x; memory is what is asked.

Exact ranges are read into the arrays given back: nothing is mapped, nothing is read twice where
the sections of the file are planes of z.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from otzi.box import Box
from otzi.errors import NotAnMRC, SourceError, TruncatedMRC, disk_errors
from otzi.mrc_fields import HEADER_BYTES
from otzi.mrc_header import parse_header

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from io import FileIO

    from numpy.typing import NDArray

    from otzi.mrc_header import MrcHeader

__all__ = ["read_header", "read_window", "slabs"]

_PIECE_BYTES = 1 << 22

Span = tuple[int, int]


def read_header(path: str | Path, *, salvage: bool = False) -> MrcHeader:
    """Give the header of a file whose size agrees with it.

    With `salvage`, the header of a file that is cut short is that of its whole sections.

    Raises
    ------
    NotAnMRC, UnsupportedMRC, TruncatedMRC
        If it is another kind of file, of a mode no array can hold, or too short.
    NotFoundError, AccessDenied, TemporaryFailure
        If the file cannot be read.
    """
    path = Path(path)
    with disk_errors(path, "reading"):
        if path.exists() and not path.is_file():
            raise NotAnMRC(f"{path} is no file: name the MRC file itself")
        with _open(path) as file:
            start = file.read(HEADER_BYTES) or b""
            n_bytes = os.fstat(file.fileno()).st_size
            return parse_header(start, n_bytes, str(path), salvage=salvage)


def read_window(source: str | Path | FileIO, header: MrcHeader, box: Box) -> NDArray[Any]:
    """Give the voxels of a box: ``(z, y, x)`` in the file's type and the machine's byte order.

    Parameters
    ----------
    source
        A path, or a file open for unbuffered reading, of which one thread at a time may read.
    header
        Of that file.
    box
        Within the volume.

    Raises
    ------
    ValueError
        If the box reaches beyond the volume.
    TruncatedMRC
        If the file has become shorter than its header says.
    NotFoundError, AccessDenied, TemporaryFailure
        If the file cannot be read.
    """
    if box.clip(header.shape) != box:
        raise ValueError(f"{box} reaches beyond a volume of {header.shape} voxels")
    if isinstance(source, str | Path):
        with disk_errors(source, "reading"), _open(Path(source)) as file:
            return read_window(file, header, box)
    spans = tuple(zip(box.start, box.stop, strict=True))
    stored = [spans[header.transpose.index(axis)] for axis in range(3)]
    return _native(_read_stored(source, header, stored)).transpose(header.transpose)


def slabs(
    path: str | Path,
    header: MrcHeader,
    depth: int,
    seen: Callable[[memoryview], object] | None = None,
) -> Iterator[tuple[Box, NDArray[Any]]]:
    """Yield the volume as slabs of `depth` planes: each box with its ``(z, y, x)`` voxels.

    Parameters
    ----------
    path, header
        The file and its header.
    depth
        Planes in a slab; the last one may have fewer.
    seen
        Given every byte of the file once and in order, if `is_z_slowest` says that slabs lie so in
        the file; otherwise never called.

    Raises
    ------
    TruncatedMRC
        If the file has become shorter than its header says.
    SourceError
        If it has been changed while it was read.
    NotFoundError, AccessDenied, TemporaryFailure
        If the file cannot be read.
    """
    path = Path(path)
    tell = seen if seen is not None and header.is_z_slowest else _ignore
    n_z, n_y, n_x = header.shape
    with disk_errors(path, "reading"), _open(path) as file:
        before = os.fstat(file.fileno())
        _pass_on(file, 0, header.data_offset, tell)
        for z in range(0, n_z if header.data_bytes else 0, depth):
            box = Box((z, 0, 0), (min(z + depth, n_z), n_y, n_x))
            if header.is_z_slowest:
                planes = (z, box.stop[0])
                stored = _read_stored(file, header, [planes, *_whole(header)[1:]])
                tell(_bytes_of(stored))
                yield box, _native(stored).transpose(header.transpose)
                del stored  # before the next one is read
            else:
                yield box, read_window(file, header, box)
        end = header.data_offset + header.data_bytes
        _pass_on(file, end, header.trailing_bytes, tell)
        after = os.fstat(file.fileno())
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise SourceError(f"{path} was changed while it was read: wait until it is complete")


def _open(path: Path) -> FileIO:
    return path.open("rb", buffering=0)


def _ignore(data: memoryview) -> None:
    pass


def _whole(header: MrcHeader) -> list[Span]:
    return [(0, n) for n in header.stored_shape]


def _read_stored(file: FileIO, header: MrcHeader, spans: list[Span]) -> NDArray[Any]:
    """Give spans of sections, rows and columns: an array of these axes, as it is in the file."""
    _, n_rows, n_columns = header.stored_shape
    sections, rows, columns = spans
    out = np.empty([stop - start for start, stop in spans], header.dtype)
    if not out.size:
        return out

    def offset(section: int, row: int) -> int:
        voxels = (section * n_rows + row) * n_columns
        return header.data_offset + voxels * header.dtype.itemsize

    if (rows, columns) == ((0, n_rows), (0, n_columns)):
        _read_into(file, offset(sections[0], 0), out)
        return out
    part = np.empty((rows[1] - rows[0], n_columns), header.dtype)
    for index, section in enumerate(range(*sections)):
        _read_into(file, offset(section, rows[0]), part)
        out[index] = part[:, slice(*columns)]
    return out


def _read_into(file: FileIO, offset: int, out: NDArray[Any]) -> None:
    view = _bytes_of(out)
    file.seek(offset)
    done = 0
    while done < len(view):
        n_bytes = file.readinto(view[done:])
        if not n_bytes:
            raise TruncatedMRC(
                f"{file.name} ends at byte {offset + done}, expected {offset + len(view)}: "
                "it was cut while it was read"
            )
        done += n_bytes


def _pass_on(file: FileIO, offset: int, n_bytes: int, tell: Callable[[memoryview], object]) -> None:
    """Read what is no data, for the one who wants every byte."""
    if tell is _ignore:
        return
    for start in range(offset, offset + n_bytes, _PIECE_BYTES):
        piece = np.empty(min(_PIECE_BYTES, offset + n_bytes - start), np.uint8)
        _read_into(file, start, piece)
        tell(_bytes_of(piece))


def _bytes_of(array: NDArray[Any]) -> memoryview:
    return array.reshape(-1).view(np.uint8).data


def _native(array: NDArray[Any]) -> NDArray[Any]:
    if array.dtype.isnative:
        return array
    return array.byteswap(inplace=True).view(array.dtype.newbyteorder("="))
