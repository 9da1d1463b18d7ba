"""The lock of a staging folder: of all who would write a product, one does."""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from otzi.errors import Locked

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import TextIO

__all__ = ["is_held", "lock_file", "locked"]

_ATTEMPTS = 5
_PAUSE_SECONDS = 0.02


def lock_file(staging: Path) -> Path:
    """Give the file that whoever writes into a staging folder holds locked."""
    return staging.with_name(f"{staging.name}.lock")


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file, which is removed on leaving.

    Raises
    ------
    Locked
        If somebody else holds it for longer than a look at it takes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _acquired(path):
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def is_held(path: Path) -> bool:
    """Tell whether somebody holds a lock file, without taking it for longer than the look."""
    try:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _acquired(path: Path) -> TextIO:
    for attempt in range(_ATTEMPTS):
        if attempt:
            time.sleep(_PAUSE_SECONDS)
        file = path.open("w")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever held it removed it: a file that is no longer there locks nothing.
            if _is_same(path, file):
                return file
        except BlockingIOError:
            pass
        file.close()
    raise Locked(f"{path.stem} is being written by somebody else: wait and retry")


def _is_same(path: Path, file: TextIO) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False
