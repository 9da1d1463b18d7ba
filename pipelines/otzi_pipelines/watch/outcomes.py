"""What an ingest means for the rows of a file: sealed, duplicate, or tried again.  Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from otzi.ledger.log import utc_now

if TYPE_CHECKING:
    from pathlib import Path

    from otzi.ledger.sources import Quiet, SourceRow
    from otzi_pipelines.ingest.plan import IngestItem

__all__ = ["Content", "Outcome", "outcome", "postponed", "quarantined"]

_MOST_ATTEMPTS = 10


class Content(NamedTuple):
    """What a tomogram says of the file it was made from."""

    name: str
    sha256: str
    owner: Path | None
    """The file in whose row it stands."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the rows of a file are to be changed, all at once."""

    row: SourceRow
    """The latest of the file, thereafter."""
    event: str | None = None
    """What that is in the log."""
    superseded: SourceRow | None = None
    """The revision that was sealed before."""
    forgotten: SourceRow | None = None
    """A revision that turned out to be none."""


def outcome(
    row: SourceRow,
    item: IngestItem,
    wanted_id: str,
    previous: SourceRow | None,
    content: Content | None,
    now: Quiet,
) -> Outcome:
    """Give what becomes of a file that was to be ingested.

    Parameters
    ----------
    row
        Of the file.
    item
        What the ingest made of it.
    wanted_id
        The id that it was to get.
    previous
        The revision before, if there is one.
    content
        Of the tomogram that has its bytes now; None if none has.
    now
        This moment.
    """
    if item.state == "postponed":
        return postponed(row, item.reason, now)
    if content is None:
        if row.evidence in ("quiet", "doubted", None):
            return quarantined(row, item.reason)
        # Somebody said that it was complete, before it could prove it by being quiet.
        return Outcome(
            replace(row, state="seen", quiet=now, evidence="doubted", reason=item.reason)
        )
    if item.state == "done":
        if previous is not None and previous.sha256 == content.sha256:
            return Outcome(replace(previous, file=row.file, quiet=now), forgotten=row)
        is_own = item.id == wanted_id or content.name == row.path.name
        if content.owner not in (None, row.path) or not (is_own or content.owner):
            reason = f"duplicate of {item.id}"
            return Outcome(_settled(row, item, content, "duplicate", reason), "duplicate")
    sealed = _settled(row, item, content, "sealed", None)
    if previous is None or previous.state != "sealed":
        return Outcome(sealed, "sealed")
    old = replace(previous, state="superseded", reason=f"superseded by revision {row.revision}")
    return Outcome(sealed, "sealed", old)


def quarantined(row: SourceRow, reason: str) -> Outcome:
    """Give the outcome of a file that is left alone until it changes."""
    return Outcome(
        replace(row, state="quarantined", reason=reason, settled_at=utc_now()), "quarantined"
    )


def postponed(row: SourceRow, reason: str, now: Quiet) -> Outcome:
    """Give the outcome of a file that is to be tried again, but not forever."""
    attempts = row.attempts + 1
    if attempts >= _MOST_ATTEMPTS:
        return quarantined(row, f"{reason} (after {attempts} attempts)")
    return Outcome(
        replace(row, state="seen", quiet=now, evidence=None, reason=reason, attempts=attempts)
    )


def _settled(
    row: SourceRow, item: IngestItem, content: Content, state: str, reason: str | None
) -> SourceRow:
    detail = row.detail | ({"warnings": list(item.warnings)} if item.warnings else {})
    return replace(
        row,
        state=state,  # type: ignore[arg-type]
        reason=reason,
        sha256=content.sha256,
        tomogram=item.id,
        detail=detail,
        attempts=0,
        settled_at=utc_now(),
    )
