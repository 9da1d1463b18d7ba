"""Where pictures go; and PNG files, whole or not there, that carry the scene they show."""

from __future__ import annotations

import os
import struct
import zlib
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from otzi.errors import AccessDenied, CannotCreate, UsageError, disk_errors
from otzi.files import writing_whole

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["DIGEST", "SUFFIXES", "check_output", "png_bytes", "read_texts", "write_picture"]

SUFFIXES = (".png", ".exr", ".mp4")
"""A still as a screen shows it, a still as linear light, a movie."""

DIGEST = "otzi digest"
"""The text that tells a picture from one of another scene or other data."""

_UP = 2
_SRGB_PERCEPTUAL = b"\0"
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PLAIN = b"\0\0\0\0\0"
"""Between key and text: end of the key; not compressed, by no method; no language, no other key."""


def check_output(path: Path) -> None:
    """Refuse a path where no picture can be written, before hours go into it.

    Raises
    ------
    UsageError
        If its suffix is none of `SUFFIXES`.
    CannotCreate
        If it is a folder, or its folder is not there.
    AccessDenied
        If nothing may be written there.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(
            f"cannot write {path.suffix or 'a picture without suffix'} ({path}): "
            f"name a file with one of {', '.join(SUFFIXES)}"
        )
    if path.is_dir():
        raise CannotCreate(f"{path} is a folder: name a file")
    if not path.parent.is_dir():
        raise CannotCreate(f"the folder {path.parent} is not there: make it, or name another file")
    if not os.access(path.parent, os.W_OK):
        raise AccessDenied(
            f"nothing may be written into {path.parent}: name a file elsewhere, or ask its owner"
        )


def write_picture(
    path: Path, picture: NDArray[np.float32], bits: int, texts: Mapping[str, str]
) -> None:
    """Write a picture, ``(rows, columns, 3)`` in [0, 1], whole or not at all, over what was there.

    Raises
    ------
    OutOfSpace, AccessDenied, TemporaryFailure
        If the file system fails; what was there before stays.
    """
    content = png_bytes(picture, bits, texts)
    with disk_errors(path, "writing"), writing_whole(path) as file:
        file.write(content)


def png_bytes(picture: NDArray[np.float32], bits: int, texts: Mapping[str, str]) -> bytes:
    """Give a picture, ``(rows, columns, 3)`` in [0, 1] sRGB, as a PNG of 8 or 16 bits a channel.

    Pillow writes no colour of 16 bits. Rows are stored as differences to the row above (PNG
    specification, section 9); texts are UTF-8 (``iTXt``).
    """
    height, width, channels = picture.shape
    values = np.rint(picture * np.float32(2**bits - 1)).astype(">u2" if bits == 16 else "u1")
    rows = values.reshape(height, width * channels).view(np.uint8)
    above = np.concatenate([np.zeros_like(rows[:1]), rows[:-1]])
    filtered = np.insert(rows - above, 0, _UP, axis=1)
    header = struct.pack(">IIBBBBB", width, height, bits, 2, 0, 0, 0)
    chunks = [
        _chunk(b"IHDR", header),
        _chunk(b"sRGB", _SRGB_PERCEPTUAL),
        *_text_chunks(texts),
        _chunk(b"IDAT", zlib.compress(filtered.tobytes(), 6)),
        _chunk(b"IEND", b""),
    ]
    return _SIGNATURE + b"".join(chunks)


def _text_chunks(texts: Mapping[str, str]) -> Iterator[bytes]:
    for key, text in texts.items():
        yield _chunk(b"iTXt", key.encode("latin-1") + _PLAIN + text.encode())


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def read_texts(path: Path) -> dict[str, str]:
    """Give the texts that `write_picture` put into a file; none where it did not write it.

    Only what stands before the pixels is read, whatever the size of the picture.
    """
    try:
        with path.open("rb") as file:
            if file.read(len(_SIGNATURE)) != _SIGNATURE:
                return {}
            return dict(_texts_before_pixels(file))
    except (OSError, struct.error, ValueError):
        return {}


def _texts_before_pixels(file: BinaryIO) -> Iterator[tuple[str, str]]:
    while True:
        length, kind = struct.unpack(">I4s", file.read(8))
        if kind == b"IDAT":
            return
        body = file.read(length)
        file.read(4)
        if kind == b"iTXt" and _PLAIN in body:
            key, text = body.split(_PLAIN, 1)
            yield key.decode("latin-1"), text.decode()
