"""Files that appear whole under their names, or not at all, and room for them."""

from __future__ import annotations

import hashlib
import os
import shutil
from contextlib import contextmanager
from threading import get_native_id
from typing import TYPE_CHECKING, BinaryIO

from otzi.errors import OutOfSpace
from otzi.memory import format_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["check_space", "sha256_of_file", "sync_folder", "writing_whole"]


@contextmanager
def writing_whole(path: Path) -> Iterator[BinaryIO]:
    """Write a file that is there, synced, on leaving without an exception.

    What was there before stays until then, and for good if it fails. Its folder must exist. Of
    several writers at the same time the last one wins; a kill leaves ``NAME.….partial``.

    Raises
    ------
    OSError
        If the file system fails; see `otzi.errors.disk_errors`.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}-{get_native_id()}.partial")
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def check_space(folder: Path, needed_bytes: int, wish: str, remedy: str) -> None:
    """Make sure that a folder's disk has room for what is to be written.

    The message says that `wish` (``"3 phantoms need"``) so much, and what to do: free some, or
    `remedy`.

    Raises
    ------
    OutOfSpace
        If it has not.
    """
    free = shutil.disk_usage(folder).free
    if needed_bytes > free:
        raise OutOfSpace(
            f"{folder} has {free} bytes free ({format_bytes(free)}), {wish} {needed_bytes} "
            f"({format_bytes(needed_bytes)}): free some, or {remedy}"
        )


def sync_folder(folder: Path) -> None:
    """Have the entries of a folder on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of_file(path: Path) -> str:
    """Give the SHA-256 of a file, which is read piece by piece."""
    with path.open("rb", buffering=0) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
