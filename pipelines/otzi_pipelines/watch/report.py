"""What a poll has found and done, for people and programs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from otzi.ledger.sources import SourceRow

__all__ = ["PollReport", "row_json"]


@dataclass(slots=True)
class PollReport:
    """What a poll has found and done."""

    folder: Path
    sealed: list[SourceRow] = field(default_factory=list)
    duplicates: list[SourceRow] = field(default_factory=list)
    quarantined: list[SourceRow] = field(default_factory=list)
    stalled: list[SourceRow] = field(default_factory=list)
    """Those of the quarantined whose transfer has stopped half-way."""
    waiting: list[SourceRow] = field(default_factory=list)
    """Whose end is still to come."""
    counts: dict[str, int] = field(default_factory=dict)
    """Files of this folder, by the state of their latest revision."""
    due_seconds: float | None = None
    """After which the first of these may be complete, if it does not change."""
    look_seconds: float = 0.0
    """CPU time of looking, without what was done then."""
    was_stopped: bool = False
    pipeline_code: int | None = None
    """Exit code of the pipeline, if it was run."""

    @property
    def did_something(self) -> bool:
        """Whether any file came to its end, or the pipeline was run."""
        ended = self.sealed or self.duplicates or self.quarantined
        return bool(ended) or self.pipeline_code is not None

    @property
    def exit_code(self) -> int:
        """0 if all is done, 5 if something was quarantined, 3 if work remains."""
        codes = [self.pipeline_code or 0]
        codes += [5] if self.quarantined else []
        codes += [3] if self.waiting or self.was_stopped else []
        return max(codes)

    def to_json(self) -> dict[str, Any]:
        """Give it as plain JSON."""
        names = ("sealed", "duplicates", "quarantined", "waiting")
        files = {name: [row_json(row) for row in getattr(self, name)] for name in names}
        said = {"folder": str(self.folder), "counts": self.counts}
        return said | files | {"pipeline_exit_code": self.pipeline_code}

    def lines(self) -> list[str]:
        """Give it as lines of text."""
        rows = [*self.sealed, *self.duplicates, *self.quarantined, *self.waiting]
        return [_line(row) for row in rows]


def row_json(row: SourceRow) -> dict[str, Any]:
    """Give what people want to know of a file, as plain JSON."""
    said = {
        "source": str(row.path),
        "state": row.state,
        "tomogram": row.tomogram,
        "revision": row.revision,
        "n_bytes": row.file.n_bytes,
        "reason": row.reason,
    }
    return said | row.detail


def _line(row: SourceRow) -> str:
    made = f" is {row.tomogram}" if row.state == "sealed" else ""
    revision = "" if row.revision == 1 else f", revision {row.revision}"
    return f"{row.state:<12} {row.account}{made}{revision}"
