"""The only place that prints: data to standard output, everything for people to standard error."""

from __future__ import annotations

import copy
import json
import sys
from typing import TYPE_CHECKING, Any

from rich.console import Console as RichConsole
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from otzi.events import Advanced, Event, Finished, Noted, Started, Warned
from otzi.memory import format_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType
    from typing import Self

__all__ = ["Console"]


class Console:
    """What a verb talks to: one result to standard output, events and messages to standard error.

    Verbosity is 0 as a rule, 1 and more with ``-v``, less than 0 with ``-q``. An instance is a
    listener of events: bars where standard error is a terminal, otherwise one line for each piece
    of work that ended.
    """

    def __init__(self, *, verbosity: int = 0, as_json: bool = False) -> None:
        self.verbosity = verbosity
        self.as_json = as_json
        self._err = RichConsole(stderr=True, highlight=False, soft_wrap=True)
        self._bars: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._depth = 0
        self._has_result = True

    def without_result(self) -> Self:
        """Give this console for a verb that another verb calls: it says all, but has no result."""
        other = copy.copy(self)
        other._has_result = False
        return other

    def result(self, document: Mapping[str, Any], text: str) -> None:
        """Print the result of the verb: the document with ``--json``, otherwise the text."""
        self._print(json.dumps(document, indent=2) if self.as_json else text)

    def line(self, document: Mapping[str, Any], text: str) -> None:
        """Print one of several results of a verb: with ``--json`` as a line of its own."""
        self._print(json.dumps(document) if self.as_json else text)

    def _print(self, text: str) -> None:
        if text and self._has_result:
            sys.stdout.write(text + "\n")
            sys.stdout.flush()

    @property
    def terminal(self) -> RichConsole | None:
        """The terminal that people are told things on, for what draws there; None without one."""
        return self._err if self._err.is_terminal and self.verbosity >= 0 else None

    def say(self, message: str) -> None:
        """Tell a person something; silent with ``-q``."""
        if self.verbosity >= 0:
            self._err.print(message, markup=False)

    def warn(self, message: str) -> None:
        """Tell a person something that needs looking at."""
        self._err.print(f"warning: {message}", style="yellow", markup=False)

    def error(self, message: str) -> None:
        """Tell a person why it does not go on."""
        self._err.print(f"otzi: {message}", style="red", markup=False)

    def traceback(self) -> None:
        """Print the traceback of the error in hand."""
        self._err.print_exception()

    def __call__(self, event: Event) -> None:
        """Show an event."""
        match event:
            case Warned(message):
                self.warn(message)
            case Noted(message):
                self.say(message)
            case Started(name, total, unit):
                self._begin(name, total, unit)
            case Advanced(name, units):
                if self._bars and name in self._tasks:
                    self._bars.advance(self._tasks[name], units)
            case Finished(name, seconds, peak):
                self._end(name, seconds, peak)

    def _begin(self, name: str, total: int | None, unit: str) -> None:
        self._depth += 1
        if self.verbosity < 0 or not self._err.is_terminal:
            return
        if self._bars is None:
            self._bars = Progress(
                TextColumn("{task.description:<24}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[unit]}"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                TextColumn("left"),
                console=self._err,
                transient=True,
            )
            self._bars.start()
        self._tasks[name] = self._bars.add_task(name, total=total, unit=unit)

    def _end(self, name: str, seconds: float, peak_memory_bytes: int) -> None:
        self._depth -= 1
        if self._bars and name in self._tasks:
            self._bars.remove_task(self._tasks.pop(name))
        if self._depth == 0:
            self.close()
        if self._depth <= 0 or self.verbosity > 0:
            self.say(f"{name:<24}{seconds:8.1f} s   peak memory {format_bytes(peak_memory_bytes)}")

    def close(self) -> None:
        """Take the bars off the terminal."""
        if self._bars:
            self._bars.stop()
            self._bars = None
            self._tasks.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
