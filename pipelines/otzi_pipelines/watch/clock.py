"""A clock that nobody sets: how long a file has been quiet is told by no time of day.

It counts from the start of the machine and goes on between processes, so that a run of ``--once``
knows how long ago the one before it was. After a start of the machine, or on another one, all
counting begins anew: a file waits once more, and none is taken too early.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from otzi.ledger.sources import Quiet

__all__ = ["Clock", "now", "seconds_between"]

Clock = Callable[[], Quiet]

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # the first counts sleep as well


def now() -> Quiet:
    """Give this moment: of which start of the machine, and the seconds since then."""
    try:
        boot = _BOOT_ID.read_text().strip()
    except OSError:
        # It is Linux's own, and services may be kept from it. The machine will do: what a later
        # start of it counts is less than what has passed.
        boot = os.uname().nodename
    return Quiet(boot, time.clock_gettime(_CLOCK))


def seconds_between(since: Quiet, moment: Quiet) -> float | None:
    """Give the seconds from one moment to another; None if that cannot be told."""
    seconds = moment.since_seconds - since.since_seconds
    return seconds if since.boot == moment.boot and seconds >= 0 else None
