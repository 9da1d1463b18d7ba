"""One at a time, in the order of their numbers: for work that must not depend on who is quicker."""

from __future__ import annotations

from contextlib import contextmanager
from threading import Condition
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["InOrder"]

_LOOK_SECONDS = 0.2


class InOrder:
    """A gate that the smallest number of all who are on their way to it passes alone."""

    def __init__(self) -> None:
        self._coming: set[int] = set()
        self._changed = Condition()

    def announce(self, number: int) -> None:
        """Have larger numbers wait for this one."""
        with self._changed:
            self._coming.add(number)

    def forget(self, number: int) -> None:
        """Let larger numbers pass."""
        with self._changed:
            self._coming.discard(number)
            self._changed.notify_all()

    @contextmanager
    def turn(self, number: int, is_over: Callable[[], bool]) -> Iterator[None]:
        """Wait for the turn of a number that was announced, but no longer than until it is over."""
        with self._changed:
            while not is_over() and min(self._coming) != number:
                self._changed.wait(_LOOK_SECONDS)
        try:
            yield
        finally:
            self.forget(number)
