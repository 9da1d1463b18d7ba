"""Reports of sources that were left out, as they lie in the folder ``quarantine``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["QUARANTINE", "read_reports"]

QUARANTINE = "quarantine"
_KEYS = ("id", "source", "n_bytes", "reason", "time")


def read_reports(collection: Path) -> list[dict[str, Any]]:
    """Give the reports of sources that were left out, in the order of their ids."""
    return [_report(path) for path in sorted((collection / QUARANTINE).glob("*.json"))]


def _report(path: Path) -> dict[str, Any]:
    try:
        report = json.loads(path.read_text("utf-8"))
        return {key: report[key] for key in _KEYS}
    except (ValueError, KeyError, TypeError):
        return {"id": path.stem, "reason": f"the report {path} cannot be read: remove it"}
