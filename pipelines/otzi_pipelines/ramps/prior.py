"""What a collection says of a class's left limit, and which tomograms stand out.  Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["ClassPrior", "class_priors"]

_FEWEST_TOMOGRAMS = 4
_FARTHEST_DEVIATIONS = 3.5
_SMALLEST_DEVIATION = 0.01
"""Left limits are rarely more alike: what differs by a step of the slider does not stand out."""
_DEVIATION_PER_MAD = 1.4826


@dataclass(frozen=True, slots=True)
class ClassPrior:
    """The left limits of one class over the tomograms in which it was found."""

    median: float
    mad: float
    """Median absolute deviation from the median."""
    n_tomograms: int

    @property
    def can_judge(self) -> bool:
        """Whether there are enough tomograms to say that one stands out."""
        return self.n_tomograms >= _FEWEST_TOMOGRAMS

    def deviations(self, low: float) -> float:
        """Give how many robust deviations a left limit is from the median."""
        return abs(low - self.median) / max(_DEVIATION_PER_MAD * self.mad, _SMALLEST_DEVIATION)

    def objection(self, low: float, n_used: int) -> str | None:
        """Give why the left limit of a tomogram is not to be relied on; None where it is.

        `n_used` is the number of its slices that have a threshold.
        """
        if not self.can_judge:
            return None
        if not n_used:
            return f"no slice has a threshold, the median of {self.n_tomograms} tomograms is taken"
        if (far := self.deviations(low)) > _FARTHEST_DEVIATIONS:
            return (
                f"{low:.3f} is {far:.1f} deviations from {self.median:.3f}, the median of "
                f"{self.n_tomograms} tomograms"
            )
        return None

    def to_json(self) -> dict[str, Any]:
        """Give the prior as plain JSON."""
        return {
            "median": round(self.median, 6),
            "mad": round(self.mad, 6),
            "n_tomograms": self.n_tomograms,
        }


def class_priors(tomograms: Iterable[Mapping[str, float | None]]) -> dict[str, ClassPrior]:
    """Give the prior of every class, by name.

    Parameters
    ----------
    tomograms
        For each the left limit of every class, estimated from it alone; None where it has none.
    """
    lows: dict[str, list[float]] = {}
    for tomogram in tomograms:
        for name, low in tomogram.items():
            found = lows.setdefault(name, [])
            if low is not None:
                found.append(low)
    return {name: _prior(np.array(found)) for name, found in lows.items() if found}


def _prior(lows: np.ndarray[Any, np.dtype[np.float64]]) -> ClassPrior:
    median = float(np.median(lows))
    return ClassPrior(median, float(np.median(np.abs(lows - median))), len(lows))
