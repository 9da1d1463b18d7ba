"""What is known of the files of a folder, carried on from one look at it to the next.  Pure."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from otzi.ledger.sources import SourceRow
from otzi_pipelines.watch.clock import seconds_between

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from otzi.ledger.sources import FileState, Quiet
    from otzi_pipelines.watch.scan import Seen

__all__ = ["Changes", "carry_on"]


@dataclass(slots=True)
class Changes:
    """How the rows of a folder differ from those of the look before."""

    rows: dict[Path, SourceRow]
    """The latest of every file, as they are now."""
    put: list[SourceRow] = field(default_factory=list)
    gone: list[SourceRow] = field(default_factory=list)
    """To be forgotten: their files vanished before they were taken."""
    freed: list[SourceRow] = field(default_factory=list)
    """No longer quarantined: their files have changed."""


def carry_on(rows: Mapping[Path, SourceRow], seen: Seen, folder: Path, now: Quiet) -> Changes:
    """Give the rows after a look at the folder.

    A file is quiet for as long as no look has found it changed; what was taken and has changed is a
    new revision, which waits like a new file.

    Parameters
    ----------
    rows
        The latest of every file of this folder.
    seen
        What the look has found.
    folder
        The watched folder.
    now
        The moment of the look.
    """
    changes = Changes(dict(rows))
    on_their_way = {row.file.inode for row in rows.values() if row.state == "temporary"}
    for path, file in seen.temporary.items():
        if path not in rows or rows[path].file.inode != file.inode:
            _put(changes, SourceRow(path, folder, "temporary", file, now))
    for path, file in seen.sources.items():
        old = rows.get(path)
        row = SourceRow(path, folder, "seen", file, now) if old is None else _next(old, file, now)
        if row == old:
            continue
        if row.state == "seen" and file.inode in on_their_way:
            row = replace(row, evidence="renamed")
        if old is not None and old.state == "quarantined":
            changes.freed.append(old)
        _put(changes, row)
    for path, row in rows.items():
        is_there = path in seen.sources or path in seen.temporary
        is_hidden = not seen.closed.isdisjoint(path.parents)
        if not (is_there or is_hidden) and (row.is_open or row.state == "temporary"):
            changes.gone.append(row)
            del changes.rows[path]
    return changes


def _seen_anew(row: SourceRow, file: FileState, now: Quiet) -> SourceRow:
    """Give the row of a file that has changed and must prove itself again."""
    fresh = replace(row, state="seen", file=file, quiet=now)
    return replace(fresh, reason=None, evidence=None, attempts=0)


def _next(row: SourceRow, file: FileState, now: Quiet) -> SourceRow:
    if row.file == file:
        if not row.is_open:
            return row
        if seconds_between(row.quiet, now) is None:
            return replace(row, quiet=now)
        return replace(row, state="settling")
    if row.is_open or row.state == "quarantined":
        return _seen_anew(row, file, now)
    if row.file.has_same_content(file):
        return replace(row, file=file)
    revision = row.revision + 1
    tomogram = row.tomogram if row.state == "sealed" else None
    new = SourceRow(row.path, row.folder, "seen", file, now, revision=revision)
    return replace(new, tomogram=tomogram)


def _put(changes: Changes, row: SourceRow) -> None:
    changes.rows[row.path] = row
    changes.put.append(row)
