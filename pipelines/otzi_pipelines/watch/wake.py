"""Waiting between two looks; where the system tells of changes, a change ends it early.

What the system tells is no evidence of anything: network file systems tell nothing, and a file
that is being written tells much. It only makes the next look come sooner.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from otzi.errors import UsageError
from otzi_pipelines.watch.settle import is_temporary

if TYPE_CHECKING:
    from pathlib import Path
    from threading import Event

__all__ = ["check_can_wake", "wait_for_change"]

_DEBOUNCE_MS = 200


def check_can_wake() -> None:
    """Make sure that changes can be waited for.

    Raises
    ------
    UsageError
        If the package for that is missing.
    """
    try:
        import watchfiles  # noqa: F401
    except ModuleNotFoundError as error:
        raise UsageError("--wake needs watchfiles: pip install 'otzi[watch]'") from error


def wait_for_change(folder: Path, seconds: float, least_seconds: float, stop: Event) -> None:
    """Wait for a change below a folder, for at least and at most so many seconds.

    A set `stop` ends it at once. Where the system tells nothing, all the seconds are waited.
    """
    if stop.wait(least_seconds) or seconds <= least_seconds:
        return
    import watchfiles

    with suppress(OSError, RuntimeError):  # the folder is gone, or there are too many watches
        changes = watchfiles.watch(
            folder,
            watch_filter=lambda _, path: not is_temporary(path.rpartition("/")[2]),
            debounce=_DEBOUNCE_MS,
            stop_event=stop,
            rust_timeout=int(1000 * (seconds - least_seconds)),
            yield_on_timeout=True,
            raise_interrupt=False,
        )
        next(changes, None)
        return
    stop.wait(seconds - least_seconds)
