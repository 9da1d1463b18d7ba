"""The log of the ledger: what happened to sources and stages, row after row, never changed."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otzi.ledger.sqlite import Catalog

__all__ = ["added", "append", "utc_now"]


def append(
    catalog: Catalog,
    kind: str,
    *,
    tomogram: str | None = None,
    stage: str | None = None,
    **detail: Any,
) -> None:
    """Add an event to the log; `detail` is plain JSON."""
    catalog.execute(*added(kind, tomogram, stage, detail))


def added(
    kind: str, tomogram: str | None, stage: str | None, detail: Mapping[str, Any]
) -> tuple[str, tuple[Any, ...]]:
    """Give the statement that adds an event to the log, and its values; see `append`."""
    statement = "INSERT INTO event (time, tomogram, stage, kind, detail) VALUES (?, ?, ?, ?, ?)"
    return statement, (utc_now(), tomogram, stage, kind, json.dumps(detail))


def utc_now() -> str:
    """Give the time as it stands in the ledger, for people: to the second, in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")
