"""Every error that otzi raises on purpose.

Each is also a builtin's, so that callers who know only Python can catch it, and each carries the
exit code with which the command line ends::

    OtziError                                                   1
    ├── UsageError            ValueError            2    arguments that cannot be meant
    │   ├── NotFoundError     LookupError           2    a file, product or class that is not there
    │   ├── StrokesError      ValueError            2    strokes that do not belong to this tomogram
    │   └── MemoryBudgetError MemoryError           2    the work does not fit into --memory
    ├── VerificationError     ValueError            4    what is stored is not what was written
    │   └── CorruptShard      OSError               4    a shard that is missing or damaged
    ├── SourceError           ValueError            5    a source file that is not taken
    │   ├── NotAnMRC          ValueError            5    not an MRC file
    │   ├── TruncatedMRC      EOFError              5    shorter than its header says
    │   └── UnsupportedMRC    NotImplementedError   5    an MRC file, but no tomogram
    ├── DeviceUnavailable     RuntimeError          69   a device that is not here
    │   └── ExecutorUnavailable RuntimeError        69   a cluster that is not here, or no more
    ├── WorkersKilled         RuntimeError          1    a task ended every worker that tried it
    ├── CannotCreate          FileExistsError       73   the output cannot be made there
    ├── TemporaryFailure      OSError               75   try again later
    │   ├── OutOfSpace        OSError               75   the disk is full
    │   ├── Locked            BlockingIOError       75   somebody else writes this
    │   └── Stopped           InterruptedError      3    asked to end, and work remains
    ├── AccessDenied          PermissionError       77   not allowed
    └── ConfigurationError    ValueError            78   settings and models that do not fit
        ├── NoCompiler        ValueError            78   nothing here that compiles C++
        ├── NotACollection    ValueError            78   a folder that is no collection
        └── ModelError        ValueError            78   a model that cannot be used here

A message names the value, the limit and the remedy, in one line.
"""

from __future__ import annotations

import errno
import re
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "SOME_LEFT_OUT",
    "AccessDenied",
    "CannotCreate",
    "ConfigurationError",
    "CorruptShard",
    "DeviceUnavailable",
    "ExecutorUnavailable",
    "Locked",
    "MemoryBudgetError",
    "ModelError",
    "NoCompiler",
    "NotACollection",
    "NotAnMRC",
    "NotFoundError",
    "OtziError",
    "OutOfSpace",
    "SourceError",
    "Stopped",
    "StrokesError",
    "TemporaryFailure",
    "TruncatedMRC",
    "UnsupportedMRC",
    "UsageError",
    "VerificationError",
    "WorkersKilled",
    "checked_name",
    "disk_errors",
    "is_name",
]


SOME_LEFT_OUT = 5
"""Exit code of a verb that left some tomograms out and went on with the others."""


class OtziError(Exception):
    """What all errors of otzi have in common: a one-line message and an exit code."""

    exit_code: int = 1

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else type(self).__name__


class UsageError(OtziError, ValueError):
    """Arguments that cannot be meant."""

    exit_code = 2


class NotFoundError(UsageError, LookupError):
    """A file, tomogram, product or class that is not there."""


class StrokesError(UsageError):
    """Strokes that do not belong to this tomogram."""


class MemoryBudgetError(UsageError, MemoryError):
    """The work does not fit into the memory allowed."""


class VerificationError(OtziError, ValueError):
    """What is stored is not what was written."""

    exit_code = 4


class CorruptShard(VerificationError, OSError):
    """A shard that is missing or damaged."""


class SourceError(OtziError, ValueError):
    """A source file that is not taken."""

    exit_code = 5


class NotAnMRC(SourceError):
    """Not an MRC file."""


class TruncatedMRC(SourceError, EOFError):
    """An MRC file shorter than its header says."""


class UnsupportedMRC(SourceError, NotImplementedError):
    """An MRC file, but no tomogram that otzi takes."""


class DeviceUnavailable(OtziError, RuntimeError):
    """A device that is not here."""

    exit_code = 69


class ExecutorUnavailable(DeviceUnavailable):
    """A cluster that is not here, or no more."""


class WorkersKilled(OtziError, RuntimeError):
    """A task that ended every worker that tried it."""


class CannotCreate(OtziError, FileExistsError):
    """The output cannot be made at this place."""

    exit_code = 73


class TemporaryFailure(OtziError, OSError):
    """Try again later."""

    exit_code = 75


class OutOfSpace(TemporaryFailure):
    """The disk is full."""


class Locked(TemporaryFailure, BlockingIOError):
    """Somebody else is writing this."""


class Stopped(TemporaryFailure, InterruptedError):
    """Asked to end, and work remains."""

    exit_code = 3


class AccessDenied(OtziError, PermissionError):
    """The file system does not allow it."""

    exit_code = 77


class ConfigurationError(OtziError, ValueError):
    """Settings, models and collections that do not fit together."""

    exit_code = 78


class NoCompiler(ConfigurationError):
    """There is nothing here that compiles C++."""


class NotACollection(ConfigurationError):
    """A folder that is no collection."""


class ModelError(ConfigurationError):
    """A model that cannot be used here."""


_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")


def is_name(name: str) -> bool:
    """Tell whether a name may become a folder, a key and a part of an address."""
    return bool(_NAME.fullmatch(name)) and ".." not in name


def checked_name(name: str, kind: str) -> str:
    """Give `name` back if it may become a folder, a key and a part of an address.

    Raises
    ------
    UsageError
        If it is empty, too long, or has other than letters, digits, ``_``, ``.`` and ``-``.
    """
    if not is_name(name):
        raise UsageError(
            f"{kind} {name!r} is not a name: use 1 to 128 letters, digits, '_', '.' or '-', "
            "beginning with a letter or digit"
        )
    return name


@contextmanager
def disk_errors(path: str | Path, doing: str) -> Iterator[None]:
    """Turn an `OSError` of the file system into one that names the path and the remedy.

    Raises
    ------
    OutOfSpace, AccessDenied, TemporaryFailure
        By the error number.
    """
    try:
        yield
    except OtziError:
        raise
    except OSError as error:
        raise _named(error, Path(path), doing) from error


def _named(error: OSError, path: Path, doing: str) -> OtziError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return OutOfSpace(
            f"no space left while {doing} {path}: free some and run the command again, "
            "what is published already stays"
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return AccessDenied(f"no permission while {doing} {path}: check the owner and mode of it")
    if error.errno == errno.ENOENT:
        return NotFoundError(f"{error.filename or path} is not there (while {doing} {path})")
    return TemporaryFailure(f"{error.strerror or error} while {doing} {path}: run it again")
