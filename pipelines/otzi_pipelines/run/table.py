"""How far a run is, for people: a table that stays in its place on a terminal."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rich.live import Live
from rich.table import Table

from otzi.durations import format_seconds

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from rich.console import Console as RichConsole

    from otzi_pipelines.run.progress import Standing

__all__ = ["LiveTable", "standing_table"]


def standing_table(standing: Standing, elapsed_seconds: float) -> Table:
    """Give the table: a row for each stage, with the tomograms that are at it."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("stage")
    for name in ("done", "running", "left", "waiting", "quarantined"):
        table.add_column(name, justify="right")
    table.add_column("time left", justify="right")
    table.add_column("now")
    for name, stage in standing.stages.items():
        counts, n_running = stage.counts, len(stage.running)
        now = ", ".join(f"{id_} {share:.0%}" for id_, share in sorted(stage.running.items()))
        left = stage.seconds_left
        table.add_row(
            name,
            f"{counts['done']} of {stage.wanted}",
            str(n_running or "-"),
            str(stage.n_left - n_running or "-"),
            str(counts["waiting"] or "-"),
            str(counts["quarantined"] or "-"),
            "?" if left is None else format_seconds(left / standing.volumes_at_once),
            now,
        )
    whole = standing.seconds_left
    table.caption = f"{format_seconds(elapsed_seconds)} so far, " + (
        "the time left is not known yet" if whole is None else f"about {format_seconds(whole)} left"
    )
    table.caption_justify = "left"
    return table


class LiveTable:
    """The table of a standing, drawn anew a few times a second."""

    def __init__(self, standing: Standing, console: RichConsole) -> None:
        self._standing = standing
        self._began = time.monotonic()
        self._live = Live(console=console, get_renderable=self._table, refresh_per_second=4)

    def _table(self) -> Table:
        return standing_table(self._standing, time.monotonic() - self._began)

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
