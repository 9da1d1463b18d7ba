"""How far the stages of a collection are, for people and for Prometheus."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from otzi.ledger.stages import StageRow

__all__ = ["StageCounts", "prometheus_text", "stage_counts", "whole_seconds_left"]

_STATES = ("ready", "leased", "committed", "failed", "quarantined")
_LEFT = ("ready", "leased", "failed")


@dataclass(frozen=True, slots=True)
class StageCounts:
    """One stage over all tomograms."""

    stage: str
    states: dict[str, int]
    """How many tomograms are in each state; every state is there."""
    usual_seconds: float | None
    """That it took in the median; None where it never ran."""

    @property
    def n_left(self) -> int:
        """How many are not done, and not given up."""
        return sum(self.states[state] for state in _LEFT)

    @property
    def seconds_left(self) -> float | None:
        """Work left, one tomogram after another; None where nothing is known of it."""
        if not self.n_left:
            return 0.0
        return None if self.usual_seconds is None else self.usual_seconds * self.n_left

    def to_json(self) -> dict[str, Any]:
        """Give it as plain JSON."""
        return {
            **self.states,
            "usual_seconds": self.usual_seconds,
            "seconds_left": self.seconds_left,
        }


def stage_counts(rows: Sequence[StageRow]) -> list[StageCounts]:
    """Give the counts of every stage, in the order of their names."""
    counts = []
    for stage in sorted({row.stage for row in rows}):
        mine = [row for row in rows if row.stage == stage]
        found: Counter[str] = Counter(row.state for row in mine)
        took = [row.seconds for row in mine if row.seconds is not None]
        states = {state: found[state] for state in _STATES}
        counts.append(StageCounts(stage, states, median(took) if took else None))
    return counts


def whole_seconds_left(counts: Sequence[StageCounts]) -> float | None:
    """Give how long all takes still, as many tomograms at a time as are worked on now.

    None where a stage never ran.
    """
    left = [one.seconds_left for one in counts]
    if any(seconds is None for seconds in left):
        return None
    at_once = max(1, sum(one.states["leased"] for one in counts))
    return sum(seconds for seconds in left if seconds is not None) / at_once


def prometheus_text(
    counts: Iterable[StageCounts], product_bytes: dict[str, int], n_tomograms: int
) -> str:
    """Give the metrics of a collection in the text format of Prometheus.

    Parameters
    ----------
    counts
        Of its stages.
    product_bytes
        Size of what is published, by product.
    n_tomograms
        In the collection.
    """
    lines = _metric("otzi_tomograms", "Tomograms in the collection.", [({}, n_tomograms)])
    lines += _metric(
        "otzi_product_bytes",
        "Size of what is published.",
        [({"product": product}, n) for product, n in sorted(product_bytes.items())],
    )
    lines += _metric(
        "otzi_stage_tomograms",
        "Tomograms by stage of the pipeline and its state.",
        [
            ({"stage": one.stage, "state": state}, n)
            for one in counts
            for state, n in one.states.items()
        ],
    )
    lines += _metric(
        "otzi_stage_usual_seconds",
        "Median time that a stage took for a tomogram.",
        [
            ({"stage": one.stage}, one.usual_seconds)
            for one in counts
            if one.usual_seconds is not None
        ],
    )
    return "\n".join(lines) + "\n"


def _metric(name: str, said: str, samples: Iterable[tuple[dict[str, str], float]]) -> list[str]:
    lines = [f"# HELP {name} {said}", f"# TYPE {name} gauge"]
    for labels, value in samples:
        listed = ",".join(f'{key}="{text}"' for key, text in labels.items())
        lines.append(f"{name}{{{listed}}} {value:.12g}" if listed else f"{name} {value:.12g}")
    return lines
