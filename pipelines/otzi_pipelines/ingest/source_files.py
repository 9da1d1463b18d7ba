"""Source files as files: their state, their digest, and errors that concern only one of them."""

from __future__ import annotations

import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING

from otzi.errors import NotAnMRC, OtziError, SourceError, disk_errors
from otzi.files import sha256_of_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["file_state", "reading_source", "sha256_of"]


@contextmanager
def reading_source(path: Path) -> Iterator[None]:
    """Make every error of reading a file one that concerns only this source.

    Raises
    ------
    SourceError
        In place of all others that otzi or the file system raises.
    """
    try:
        with disk_errors(path, "reading"):
            yield
    except SourceError:
        raise
    except OtziError as error:
        raise SourceError(str(error)) from error


def file_state(path: Path) -> tuple[int, int]:
    """Give length in bytes and time of change in nanoseconds.

    Raises
    ------
    SourceError
        If it cannot be found, or is a pipe, a device or a folder.
    """
    with reading_source(path):
        status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise NotAnMRC(f"{path} is no file: name the MRC file itself")
    return status.st_size, status.st_mtime_ns


def sha256_of(path: Path) -> str:
    """Give the SHA-256 of a file.

    Raises
    ------
    SourceError
        If it cannot be read.
    """
    with reading_source(path):
        return sha256_of_file(path)
