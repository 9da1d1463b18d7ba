"""What happens during long work, as data: bars, logs and tests are listeners."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING

from otzi.memory import peak_memory_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "Advanced",
    "Event",
    "Finished",
    "Listener",
    "Noted",
    "Started",
    "Step",
    "Warned",
    "ignore",
    "one_at_a_time",
    "step",
]


@dataclass(frozen=True, slots=True)
class Started:
    """A piece of work began."""

    name: str
    """What it is, for people: ``"features"``."""
    total: int | None
    """How many units it has, if that is known."""
    unit: str
    """What is counted: ``"tiles"``."""


@dataclass(frozen=True, slots=True)
class Advanced:
    """Some units of a piece of work are done."""

    name: str
    units: int


@dataclass(frozen=True, slots=True)
class Finished:
    """A piece of work ended."""

    name: str
    seconds: float
    peak_memory_bytes: int


@dataclass(frozen=True, slots=True)
class Noted:
    """Something a person may want to know."""

    message: str


@dataclass(frozen=True, slots=True)
class Warned:
    """Something a person should look at."""

    message: str


Event = Started | Advanced | Finished | Noted | Warned
Listener = Callable[[Event], None]


def ignore(event: Event) -> None:
    """Do nothing with the event."""


def one_at_a_time(listen: Listener) -> Listener:
    """Give a listener that threads may tell at once: it hears them one after another."""
    lock = Lock()

    def tell(event: Event) -> None:
        with lock:
            listen(event)

    return tell


@dataclass(slots=True)
class Step:
    """A piece of work under way."""

    name: str
    listen: Listener
    started: float = field(default_factory=time.monotonic)

    def advance(self, units: int = 1) -> None:
        """Tell that `units` more are done."""
        self.listen(Advanced(self.name, units))


@contextmanager
def step(listen: Listener, name: str, total: int | None = None, unit: str = "") -> Iterator[Step]:
    """Tell of the beginning and the end of a piece of work."""
    work = Step(name, listen)
    listen(Started(name, total, unit))
    try:
        yield work
    finally:
        listen(Finished(name, time.monotonic() - work.started, peak_memory_bytes()))
