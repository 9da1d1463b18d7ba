"""Verb doctor: what this machine can do, and what would help where it cannot."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import platform
import shutil
import sqlite3
import sys
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from otzi.cli import verb
from otzi.collection import open_collection
from otzi.console import Console
from otzi.cuda_device import find_cuda_device
from otzi.errors import ConfigurationError, DeviceUnavailable, UsageError, VerificationError
from otzi.filesystem import file_system
from otzi.ledger.sqlite import check_place, largest_bytes, ledger_path
from otzi.memory import available_memory_bytes, format_bytes, usable_cores

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Check", "checks", "doctor"]

_UNUSABLE = 78
_OLDEST_PYTHON = (3, 11)
_OLDEST_SQLITE = (3, 24, 0)
_LEAST_MEMORY_BYTES = 2 * 10**9
_LEAST_DISK_BYTES = 10 * 10**9
_LIBRARIES = ("zarr", "dask", "distributed", "numcodecs", "numba", "numpy", "scipy", "xarray")
_FEWEST_WATCHES = 8192
_INOTIFY = Path("/proc/sys/fs/inotify/max_user_watches")
_TIMEX_BYTES = 512
_CLOCK_IS_FREE = 5  # TIME_ERROR of adjtimex(2)
_EXTRAS = {"torch": "train", "safetensors": "train", "neuroglancer": "view"}


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the diagnosis."""

    what: str
    state: Literal["ok", "warning", "error"]
    found: str
    remedy: str = ""
    """What to do, where it is not ok."""

    def to_json(self) -> dict[str, str]:
        """Give the check as plain JSON."""
        return asdict(self)


def checks(collection: Path | None) -> Iterator[Check]:
    """Yield what this machine has; of the disk under `collection`, or where it would be made."""
    yield _python()
    yield from (_library(name, "error", "otzi") for name in _LIBRARIES)
    yield from (_library(name, "warning", f"'otzi[{extra}]'") for name, extra in _EXTRAS.items())
    yield Check("cores", "ok", str(usable_cores()))
    yield _memory()
    yield from _disk(collection or Path())
    yield _sqlite()
    yield _clock()
    yield _inotify()
    yield _numba_cache()
    yield _compiler()
    yield _cuda()
    yield _drawing()
    yield _browser()


@verb
def doctor(
    console: Console,
    collection: Annotated[
        str | None, typer.Argument(help="Look at the disk of this collection, or its store.")
    ] = None,
    viewable: Annotated[
        bool,
        typer.Option(
            "--viewable", help="Look at what Neuroglancer can show of it, or of an OME-Zarr image."
        ),
    ] = False,
) -> int:
    """Show what this machine can do, with a remedy for what it cannot."""
    if viewable and collection is None:
        raise UsageError("--viewable: name the collection or the OME-Zarr image to look at")
    if viewable:
        found = list(_viewable(Path(collection or "")))
    elif collection and "://" in collection:
        place = open_collection(collection)
        n = len(place.ids)
        found = [Check("object store", "ok", f"{n} tomograms"), *checks(place.workspace)]
    else:
        found = list(checks(Path(collection) if collection else None))
    lines = []
    for check in found:
        lines.append(f"{check.state:<8} {check.what:<14} {check.found}")
        if check.remedy:
            lines.append(f"{'':<24}{check.remedy}")
    console.result({"checks": [check.to_json() for check in found]}, "\n".join(lines))
    return _UNUSABLE if any(check.state == "error" for check in found) else 0


def _viewable(place: Path) -> Iterator[Check]:
    from otzi.viewable_images import problems_below

    for image, problems in problems_below(place):
        if not problems:
            yield Check(image, "ok", "can be shown")
        for problem in problems:
            found, _, remedy = problem.partition(": ")
            yield Check(image, "warning", found, remedy)


def _python() -> Check:
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    if sys.version_info < _OLDEST_PYTHON:
        return Check("Python", "error", found, "install Python 3.11 or later")
    return Check("Python", "ok", found)


def _library(name: str, where_missing: Literal["warning", "error"], package: str) -> Check:
    try:
        return Check(name, "ok", version(name))
    except PackageNotFoundError:
        return Check(name, where_missing, "not installed", f"pip install {package}")


def _memory() -> Check:
    free = available_memory_bytes()
    if free < _LEAST_MEMORY_BYTES:
        remedy = f"{format_bytes(_LEAST_MEMORY_BYTES)} is little already: pass --memory"
        return Check("free memory", "warning", format_bytes(free), remedy)
    return Check("free memory", "ok", format_bytes(free))


def _disk(folder: Path) -> Iterator[Check]:
    there = _nearest(folder)
    free = shutil.disk_usage(there).free
    largest, damage = 0, ""
    try:
        largest = largest_bytes(folder)
    except VerificationError as error:
        damage = str(error)
    is_enough = free >= max(_LEAST_DISK_BYTES, 2 * largest)
    yield Check(
        "free disk",
        "ok" if is_enough else "warning",
        f"{format_bytes(free)} at {there}",
        "" if is_enough else _more_room(largest),
    )
    yield Check("file system", "ok", file_system(there) or "unknown")
    if not os.access(there, os.W_OK):
        yield Check("permission", "warning", f"{there} is read-only for you", "read it, or copy it")
    try:
        check_place(folder)
    except ConfigurationError as error:
        yield Check("catalog", "warning", "reading works, writing does not", str(error))
    else:
        state: Literal["ok", "warning"] = "warning" if damage else "ok"
        yield Check("catalog", state, str(ledger_path(folder)), damage)


def _sqlite() -> Check:
    found = sqlite3.sqlite_version
    if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
        oldest = ".".join(map(str, _OLDEST_SQLITE))
        return Check("SQLite", "error", found, f"use a Python with SQLite {oldest} or later")
    return Check("SQLite", "ok", found)


def _more_room(largest: int) -> str:
    if largest:
        return (
            f"free some: the largest tomogram takes {format_bytes(largest)} and is made beside it"
        )
    return "free some: a tomogram takes 1.2 times its MRC file"


def _clock() -> Check:
    """Tell whether something keeps the clock: leases of several machines end by it."""
    adjtimex = getattr(ctypes.CDLL(None), "adjtimex", None) if sys.platform == "linux" else None
    state = adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES)) if adjtimex else -1
    if state < 0:  # services may be kept from it
        return Check("clock", "ok", "cannot tell who keeps it")
    if state == _CLOCK_IS_FREE:
        remedy = "start chronyd or systemd-timesyncd where several machines share a ledger"
        return Check("clock", "warning", "no time server keeps it", remedy)
    return Check("clock", "ok", "kept by a time server")


def _inotify() -> Check:
    """Tell how many folders `otzi watch --wake` can be told of; without it looks are enough."""
    try:
        n = int(_INOTIFY.read_text())
    except (OSError, ValueError):
        return Check("inotify", "ok", "none: `otzi watch` looks by the clock alone")
    if n < _FEWEST_WATCHES:
        remedy = f"for --wake on many folders: sysctl fs.inotify.max_user_watches={_FEWEST_WATCHES}"
        return Check("inotify", "warning", f"{n} folders", remedy)
    return Check("inotify", "ok", f"{n} folders")


def _numba_cache() -> Check:
    named = os.environ.get("NUMBA_CACHE_DIR")
    usual = [Path(__file__).parent / "__pycache__", Path.home() / ".cache" / "numba"]
    for place in [Path(named)] if named else usual:
        if os.access(_nearest(place), os.W_OK):
            return Check("numba cache", "ok", str(place))
    remedy = "set NUMBA_CACHE_DIR to a folder of yours, or kernels are compiled in every run"
    return Check("numba cache", "warning", "no folder for it can be written to", remedy)


def _nearest(path: Path) -> Path:
    """Give the path, or the nearest folder above it that exists."""
    return next(p for p in (path.resolve(), *path.resolve().parents) if p.exists())


def _compiler() -> Check:
    name = os.environ.get("CXX", "c++")
    found = shutil.which(name) or shutil.which("g++") or shutil.which("clang++")
    if found:
        return Check("C++ compiler", "ok", found)
    remedy = "install g++ or clang++: without one, pictures are small and take long"
    return Check("C++ compiler", "warning", "none", remedy)


def _cuda() -> Check:
    remedy = "networks run on the CPU; nothing is missing but speed"
    if importlib.util.find_spec("torch") is None:
        return Check("CUDA", "warning", "cannot tell without torch", remedy)
    import torch

    if not torch.cuda.is_available():
        return Check("CUDA", "warning", "no device", remedy)
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return Check("CUDA", "ok", ", ".join(names))


def _drawing() -> Check:
    try:
        found = find_cuda_device()
    except DeviceUnavailable as error:
        reason, _, remedy = str(error).partition(": ")
        return Check("drawing", "warning", f"on the CPU: {reason}", remedy)
    return Check("drawing", "ok", f"on {found}, {found.compiler}")


def _browser() -> Check:
    for name in ("chromium", "chromium-browser", "google-chrome", "chrome"):
        if found := shutil.which(name):
            return Check("chromium", "ok", found)
    return Check("chromium", "warning", "none", "install chromium to run the viewer's own tests")
