"""Memory as an argument: sizes as people write them, and the peak that a run reached."""

from __future__ import annotations

import ctypes
import os
import re
import resource
import sys
from pathlib import Path
from threading import Lock
from weakref import WeakSet

from otzi.errors import UsageError

__all__ = [
    "PeakMemory",
    "available_memory_bytes",
    "format_bytes",
    "give_back_freed_memory",
    "parse_bytes",
    "peak_memory_bytes",
    "resident_memory_bytes",
    "usable_cores",
]

# mallopt(3)
_TRIM_THRESHOLD = -1
_MMAP_THRESHOLD = -3

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_BINARY = {"ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
_lock = Lock()
_before_reset = 0
_meters: WeakSet[PeakMemory] = WeakSet()

_SIZE = re.compile(r"\s*(\d+(?:\.\d*)?)\s*([kmgt]i?)?b?\s*", re.IGNORECASE)


def parse_bytes(text: str) -> int:
    """Give the number of bytes of ``"2GB"``, ``"512 MiB"`` or ``"1000000"``.

    Raises
    ------
    UsageError
        If the text is no size.
    """
    match = _SIZE.fullmatch(text)
    if not match or float(match[1]) <= 0:
        raise UsageError(f"{text!r} is no size: write it as 2GB, 512MiB or a number of bytes")
    unit = (match[2] or "").lower()
    return int(float(match[1]) * (_BINARY | _UNITS)[unit])


def format_bytes(n_bytes: float) -> str:
    """Give a size as a person reads it: ``"1.4 GB"``."""
    for unit in ("B", "kB", "MB", "GB"):
        if n_bytes < 1000:
            return f"{n_bytes:.0f} {unit}" if unit in ("B", "kB") else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.1f} TB"


def peak_memory_bytes() -> int:
    """Give the largest resident set that this process has had.

    Not ``ru_maxrss`` where there is better: that one counts the parent, too, up to the moment in
    which it started this program.
    """
    return max(_before_reset, _peak_since_reset())


class PeakMemory:
    """The largest resident set of this process since this was made; any number at a time.

    Linux forgets its own record when it is asked to; elsewhere the peak is that of the process.
    """

    def __init__(self) -> None:
        self._bytes = 0
        with _lock:
            _keep_peak()
            self.is_since_start = _reset_peak()
            """Whether what was before does not count."""
            _meters.add(self)

    @property
    def peak_bytes(self) -> int:
        """The peak up to now."""
        with _lock:
            return max(self._bytes, _peak_since_reset())

    def keep(self, peak_bytes: int) -> None:
        """Take note of a peak that the system is about to forget."""
        self._bytes = max(self._bytes, peak_bytes)


def _keep_peak() -> None:
    """Have everybody note the peak since the last reset."""
    global _before_reset
    peak = _peak_since_reset()
    _before_reset = max(_before_reset, peak)
    for meter in _meters:
        meter.keep(peak)


def _reset_peak() -> bool:
    """Have the system count the peak anew from here, and tell whether it can."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _peak_since_reset() -> int:
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def resident_memory_bytes() -> int:
    """Give the resident set of this process now; its largest where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return peak_memory_bytes()
    return pages * os.sysconf("SC_PAGE_SIZE")


def give_back_freed_memory() -> None:
    """Have blocks of a megabyte and more go back to the system as soon as they are freed.

    Left alone, glibc keeps blocks of up to 32 MB for itself, in pieces that soon fit nothing: a
    process that holds little can have a large resident set. Other C libraries are left alone.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        for parameter in (_MMAP_THRESHOLD, _TRIM_THRESHOLD):
            mallopt(parameter, 1 << 20)


def available_memory_bytes() -> int:
    """Give the physical memory that is free to take now."""
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return 4 * 10**9


def usable_cores() -> int:
    """Give the number of processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
