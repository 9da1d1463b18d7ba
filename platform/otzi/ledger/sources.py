"""Sources in the ledger: the files of watched folders, and what became of each of their revisions.

::

    temporary ─► (gone)          a name that a copy uses on its way; only its inode is of interest
    seen ─► settling ─► sealed ─► superseded       by the next revision, once that is sealed
      ▲        │   └──► duplicate                  of a tomogram that has the same bytes
      └────────┴──────► quarantined                until the file changes, or somebody says retry
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from otzi.ledger.log import append, utc_now
from otzi.ledger.sqlite import read_catalog

if TYPE_CHECKING:
    from os import stat_result

    from otzi.ledger.sqlite import Catalog, Row

__all__ = [
    "OPEN_STATES",
    "FileState",
    "Quiet",
    "SourceRow",
    "SourceState",
    "Sources",
    "read_source_rows",
]

SourceState = Literal[
    "temporary", "seen", "settling", "sealed", "duplicate", "superseded", "quarantined"
]
OPEN_STATES = ("seen", "settling")
"""Of sources whose end is still to come."""

_INODE_BITS = (1 << 63) - 1  # SQLite has no larger numbers


class FileState(NamedTuple):
    """What tells one state of a file from another without reading it."""

    inode: int
    n_bytes: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, status: stat_result) -> FileState:
        """Give the state that `os.stat` found."""
        return cls(
            status.st_ino & _INODE_BITS, status.st_size, status.st_mtime_ns, status.st_ctime_ns
        )

    def has_same_content(self, other: FileState) -> bool:
        """Tell whether nothing hints that other bytes are there: length and time of change."""
        return (self.n_bytes, self.mtime_ns) == (other.n_bytes, other.mtime_ns)


class Quiet(NamedTuple):
    """Since when a file has not changed, on a clock that nobody sets."""

    boot: str
    since_seconds: float


@dataclass(frozen=True, slots=True)
class SourceRow:
    """One revision of one file."""

    path: Path
    folder: Path
    """The watched folder."""
    state: SourceState
    file: FileState
    quiet: Quiet
    revision: int = 1
    attempts: int = 0
    """How often taking it failed for a reason that may pass."""
    evidence: str | None = None
    """Why it was taken for complete: ``quiet``, ``renamed``, ``sha256``, ``done``."""
    reason: str | None = None
    """Why it is not taken."""
    sha256: str | None = None
    tomogram: str | None = None
    """That was made of it, or whose bytes it has."""
    pipeline: str | None = None
    """SHA-256 of the pipeline that was run on that."""
    detail: dict[str, Any] = field(default_factory=dict)
    first_seen: str = field(default_factory=utc_now)
    settled_at: str | None = None

    @property
    def is_open(self) -> bool:
        """Whether its end is still to come."""
        return self.state in OPEN_STATES

    @property
    def account(self) -> str:
        """The file, and why it is in its state if there is a reason."""
        path, reason = str(self.path), self.reason or ""
        return reason if reason.startswith(path) else f"{path} {reason}".rstrip()


class Sources:
    """The sources of a catalog; to write, a transaction must be in hand."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def rows(self) -> list[SourceRow]:
        """Give all revisions of all files, the oldest of each first."""
        query = f"SELECT {', '.join(_COLUMNS)} FROM source ORDER BY path, revision"
        return [_parsed(row) for row in self._catalog.execute(query)]

    def put(self, row: SourceRow, event: str | None = None, **detail: Any) -> None:
        """Keep a row in place of what was known of this revision; with an event for the log."""
        places = ", ".join("?" * len(_COLUMNS))
        self._catalog.execute(
            f"REPLACE INTO source ({', '.join(_COLUMNS)}) VALUES ({places})", _values(row)
        )
        if event is not None:
            detail = {"source": str(row.path), "revision": row.revision} | detail
            append(self._catalog, event, tomogram=row.tomogram, stage="watch", **detail)

    def remove(self, row: SourceRow) -> None:
        """Forget a revision."""
        key = (str(row.path), row.revision)
        self._catalog.execute("DELETE FROM source WHERE path = ? AND revision = ?", key)


def read_source_rows(collection: Path) -> list[SourceRow]:
    """Give all rows of the catalog of a collection, to which nothing is written."""
    query = "SELECT 1 FROM sqlite_master WHERE name = 'source'"
    with read_catalog(collection) as catalog:
        has_table = catalog is not None and catalog.execute(query).fetchall()
        return Sources(catalog).rows() if catalog is not None and has_table else []


_OWN = [item.name for item in fields(SourceRow) if item.name not in ("file", "quiet")]
_COLUMNS = [*_OWN, *FileState._fields, "boot", "quiet_since_seconds"]


def _values(row: SourceRow) -> Row:
    own = {name: getattr(row, name) for name in _OWN}
    own |= {"path": str(row.path), "folder": str(row.folder), "detail": json.dumps(row.detail)}
    return (*own.values(), *row.file, *row.quiet)


def _parsed(row: Row) -> SourceRow:
    *own, inode, n_bytes, mtime_ns, ctime_ns, boot, since_seconds = row
    values = dict(zip(_OWN, own, strict=True))
    values |= {"path": Path(values["path"]), "folder": _folder(values["folder"])}
    values |= {"detail": json.loads(values["detail"])}
    file = FileState(inode, n_bytes, mtime_ns, ctime_ns)
    return SourceRow(**values, file=file, quiet=Quiet(boot, since_seconds))


_folder = lru_cache(maxsize=16)(Path)  # the same one in thousands of rows
