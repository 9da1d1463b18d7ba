"""How far a run is, for people: a table that stays in its place on a terminal."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rich.live import Live
from rich.table import Table
from rich.text import Text

from otzi.durations import format_seconds

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    from rich.console import Console as RichConsole

    from otzi_pipelines.run.progress import Standing

__all__ = ["LiveTable", "standing_table"]


def standing_table(
    standing: Standing, elapsed_seconds: float, *, is_stopping: bool = False
) -> Table:
    """Give the table: a row for each stage, with the tomograms that are at it.

    What is rare has a column where there is any. In a narrow terminal the last column gives way.
    """
    stages = standing.stages
    rare = [
        state
        for state in ("waiting", "quarantined")
        if any(stage.counts[state] for stage in stages.values())
    ]
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("stage", no_wrap=True)
    for name in ("done", "running", "left", *rare, "time left"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("now")
    for name, stage in stages.items():
        counts, n_running = stage.counts, len(stage.running)
        now = ", ".join(f"{id_} {share:.0%}" for id_, share in sorted(stage.running.items()))
        left = stage.seconds_left
        table.add_row(
            name,
            f"{counts['done']} of {stage.wanted}",
            str(n_running or "-"),
            str(stage.n_left - n_running or "-"),
            *(str(counts[state] or "-") for state in rare),
            "?" if left is None else format_seconds(left / standing.volumes_at_once),
            Text(now, no_wrap=True, overflow="ellipsis"),
        )
    table.caption = f"{format_seconds(elapsed_seconds)} so far, {_outlook(standing, is_stopping)}"
    table.caption_justify = "left"
    return table


def _outlook(standing: Standing, is_stopping: bool) -> str:
    if is_stopping:
        return "stopping: what is soon done may be, all else goes on next time"
    whole = standing.seconds_left
    if whole is None:
        return "the time left is not known yet"
    return f"about {format_seconds(whole)} left"


class LiveTable:
    """The table of a standing, drawn anew a few times a second."""

    def __init__(
        self, standing: Standing, console: RichConsole, is_stopping: Callable[[], bool]
    ) -> None:
        self._standing = standing
        self._is_stopping = is_stopping
        self._began = time.monotonic()
        self._live = Live(console=console, get_renderable=self._table, refresh_per_second=4)

    def _table(self) -> Table:
        elapsed = time.monotonic() - self._began
        return standing_table(self._standing, elapsed, is_stopping=self._is_stopping())

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()
