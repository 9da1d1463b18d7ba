"""Why a source was left out: one small JSON beside the tomograms, until it is taken after all."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from otzi.errors import disk_errors
from otzi.files import writing_whole
from otzi.ledger.quarantine import QUARANTINE

if TYPE_CHECKING:
    from pathlib import Path

    from otzi_pipelines.ingest.plan import IngestItem

__all__ = ["keep_report", "remove_reports"]


def keep_report(collection: Path, item: IngestItem) -> Path:
    """Write ``quarantine/ID.PATH.json``, PATH being a digest; the source itself is left alone.

    It holds ``id``, ``source``, ``n_bytes`` (null if nobody can tell), ``reason`` and ``time``.

    Raises
    ------
    OutOfSpace, AccessDenied, TemporaryFailure
        If it cannot be written.
    """
    source = item.source.resolve()
    try:
        n_bytes = source.stat().st_size
    except OSError:
        n_bytes = None
    report = {
        "id": item.id,
        "source": str(source),
        "n_bytes": n_bytes,
        "reason": item.reason,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    path = collection / QUARANTINE / f"{item.id}.{_digest(source)}.json"
    with disk_errors(path, "writing"):
        path.parent.mkdir(parents=True, exist_ok=True)
        with writing_whole(path) as file:
            file.write((json.dumps(report, indent=2) + "\n").encode())
    return path


def remove_reports(collection: Path, source: Path) -> None:
    """Remove what was reported of a source, under whatever id.

    Raises
    ------
    AccessDenied, TemporaryFailure
        If it cannot be removed.
    """
    folder = collection / QUARANTINE
    with disk_errors(folder, "tidying"):
        for path in folder.glob(f"*.{_digest(source.resolve())}.json"):
            path.unlink(missing_ok=True)


def _digest(source: Path) -> str:
    return hashlib.sha256(str(source).encode("utf-8", "surrogateescape")).hexdigest()[:12]
