"""When a run has stalled: nothing came on for far longer than it uses to take."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from statistics import median

__all__ = ["Watchdog"]

_REMEMBERED = 200
_TIMES_THE_USUAL = 20


@dataclass
class Watchdog:
    """Looks at the times, given in seconds of any one clock, at which work came on."""

    least_seconds: float
    """So long nothing may come on, however quick it was before."""
    last: float
    """When it came on last, or began."""
    _pauses: deque[float] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))

    def moved(self, now: float) -> None:
        """Take note that work came on."""
        self._pauses.append(now - self.last)
        self.last = now

    def idle(self, now: float) -> None:
        """Take note that there was nothing to do until now."""
        self.last = now

    @property
    def limit_seconds(self) -> float:
        """How long a pause may be."""
        usual = median(self._pauses) if self._pauses else 0.0
        return max(self.least_seconds, _TIMES_THE_USUAL * usual)

    def has_stalled(self, now: float) -> bool:
        """Tell whether the pause is too long."""
        return now - self.last > self.limit_seconds
