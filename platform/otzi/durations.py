"""Times as people read them."""

from __future__ import annotations

__all__ = ["format_seconds"]

_MOST_SECONDS = 100


def format_seconds(seconds: float) -> str:
    """Give a time as a person reads it: ``"42 s"``, ``"3 min"``, ``"5 h 20 min"``."""
    if seconds < _MOST_SECONDS:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
