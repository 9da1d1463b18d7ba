"""Ends that are asked for: a signal is noted, and the work ends where it can be taken up again."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from otzi.errors import Stopped

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from otzi.events import Event, Listener

__all__ = ["Stop", "stopping"]

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_INTERRUPTED = 130


class Stop:
    """Whether somebody has asked for the end, and who."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.by: signal.Signals | None = None

    def ask(self, number: int, frame: FrameType | None = None) -> None:
        """Note a signal, as its handler; whoever presses Ctrl-C once more does not want to wait."""
        if number == signal.SIGINT and self.by is signal.SIGINT:
            raise KeyboardInterrupt
        self.by = signal.Signals(number)
        self.asked.set()

    def check(self) -> None:
        """End here, if that was asked for.

        Raises
        ------
        Stopped
            If it was.
        """
        if self.asked.is_set():
            name = "somebody" if self.by is None else self.by.name
            raise Stopped(f"ended by {name}: the same command goes on from there")

    def listening(self, listen: Listener) -> Listener:
        """Give a listener at whose next event the work ends, once that was asked for.

        Threads at work end so too, at their next piece of it; what they have staged stays.
        """

        def tell(event: Event) -> None:
            listen(event)
            self.check()

        return tell

    def exit_code(self, *, work_remains: bool) -> int:
        """Give the exit code of a command that was ended so."""
        if self.by is signal.SIGINT:
            return _INTERRUPTED
        return Stopped.exit_code if work_remains else 0


@contextmanager
def stopping() -> Iterator[Stop]:
    """Have SIGTERM, SIGINT and SIGHUP noted instead of obeyed.

    Signals come to the main thread only: elsewhere nothing is ever noted.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, stop.ask) for number in _SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
