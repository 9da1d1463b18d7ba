"""What happens in a run, as data, and the standing that follows from it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "Began",
    "EndState",
    "Ended",
    "Moved",
    "RunEvent",
    "RunListener",
    "Settled",
    "SettledState",
    "StageStanding",
    "Standing",
    "Wanted",
    "event_json",
]

EndState = Literal["committed", "failed", "quarantined", "abandoned"]
SettledState = Literal["done", "waiting", "quarantined"]


@dataclass(frozen=True, slots=True)
class Wanted:
    """A run begins: so many tomograms go through each stage."""

    volumes: int
    stages: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Settled:
    """There is nothing more to do in this run for a stage of a tomogram."""

    tomogram: str
    stage: str
    state: SettledState
    """``waiting``: for a product that nobody makes here, such as strokes."""


@dataclass(frozen=True, slots=True)
class Began:
    """A stage of a tomogram is worked on."""

    tomogram: str
    stage: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Moved:
    """It came on by some units."""

    tomogram: str
    stage: str
    step: str
    """Of the stage, which may have several: ``"tiles"``."""
    units: int
    total: int | None
    unit: str


@dataclass(frozen=True, slots=True)
class Ended:
    """It is not worked on any more."""

    tomogram: str
    stage: str
    state: EndState
    seconds: float
    error: str | None = None
    retry_seconds: float | None = None


RunEvent = Wanted | Settled | Began | Moved | Ended
RunListener = Callable[[RunEvent], None]


def event_json(event: RunEvent) -> dict[str, Any]:
    """Give an event as plain JSON: its kind, and its fields that say something."""
    said = {key: value for key, value in asdict(event).items() if value is not None}
    return {"event": type(event).__name__.lower(), **said}


@dataclass
class StageStanding:
    """How far all tomograms are with one stage."""

    wanted: int
    states: dict[str, SettledState] = field(default_factory=dict)
    """Of each tomogram that is settled."""
    running: dict[str, float] = field(default_factory=dict)
    """The share that is done, of each tomogram that is worked on."""
    seconds: list[float] = field(default_factory=list)
    """That each took which was done in this run."""

    @property
    def counts(self) -> Counter[str]:
        """How many are done, waiting and quarantined."""
        return Counter(self.states.values())

    @property
    def n_left(self) -> int:
        """How many are not settled."""
        return self.wanted - len(self.states)

    @property
    def seconds_left(self) -> float | None:
        """Work left, one tomogram after another; None where nothing is known of it."""
        if not self.n_left:
            return 0.0
        if not self.seconds:
            return None
        return median(self.seconds) * (self.n_left - sum(self.running.values()))


@dataclass
class Standing:
    """How far a run is; a listener of its events."""

    volumes_at_once: int
    stages: dict[str, StageStanding] = field(default_factory=dict)
    _done: dict[tuple[str, str, str], int] = field(default_factory=dict)

    def __call__(self, event: RunEvent) -> None:
        """Take note of an event."""
        match event:
            case Wanted(_, stages):
                self.stages = {name: StageStanding(n) for name, n in stages.items()}
            case Settled(tomogram, stage, state):
                self.stages[stage].states[tomogram] = state
            case Began(tomogram, stage, _):
                self.stages[stage].running[tomogram] = 0.0
                self._done = {
                    key: n for key, n in self._done.items() if key[:2] != (tomogram, stage)
                }
            case Moved(tomogram, stage, step, units, total, _):
                key = (tomogram, stage, step)
                done = self._done[key] = self._done.get(key, 0) + units
                self.stages[stage].running[tomogram] = min(1.0, done / total) if total else 0.0
            case Ended(tomogram, stage, state, seconds, _, _):
                self.stages[stage].running.pop(tomogram, None)
                if state == "committed":
                    self.stages[stage].seconds.append(seconds)

    @property
    def seconds_left(self) -> float | None:
        """Until all is done, so many tomograms at a time; None where it cannot be told yet."""
        left = [stage.seconds_left for stage in self.stages.values()]
        if any(seconds is None for seconds in left):
            return None
        return sum(seconds for seconds in left if seconds is not None) / self.volumes_at_once

    @property
    def n_left(self) -> int:
        """Stages of tomograms that are not settled."""
        return sum(stage.n_left for stage in self.stages.values())

    def to_json(self) -> dict[str, Any]:
        """Give how far each stage is, as plain JSON."""
        return {
            name: {
                "wanted": stage.wanted,
                **{state: stage.counts[state] for state in ("done", "waiting", "quarantined")},
                "left": stage.n_left,
            }
            for name, stage in self.stages.items()
        }
