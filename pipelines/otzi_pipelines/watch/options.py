"""Options of watch as people write them."""

from __future__ import annotations

import re

from otzi.errors import UsageError

__all__ = ["parse_seconds"]

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|min|h)?")
_SECONDS = {None: 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


def parse_seconds(text: str, option: str) -> float:
    """Give the seconds of ``"30s"``, ``"5m"``, ``"1h"`` or ``"30"``.

    Raises
    ------
    UsageError
        If it is no duration.
    """
    match = _DURATION.fullmatch(text.strip().lower())
    if match is None:
        raise UsageError(f"{option} {text!r} is no duration: write 30s, 5m or 1h")
    return float(match[1]) * _SECONDS[match[2]]
