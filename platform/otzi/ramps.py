"""Ramps: how probability becomes opacity, and the automatic left limit.  Pure.

Source: "Finding Nano-Ötzi" (arXiv 2104.01554), transfer functions; the threshold is the iterative
selection of Ridler and Calvard (1978), known as isodata.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["SliceThresholds", "isodata", "ramp", "slice_histograms"]

_MAX_ITERATIONS = 1000


def ramp(values: NDArray[Any], low: float, high: float = 1.0) -> NDArray[np.float32]:
    """Give ``clamp((values − low) / (high − low), 0, 1)``: any shape, float32.

    A `low` of 1 and more would divide by nothing: the span is at least 1e-3.
    """
    span = np.float32(max(high - low, 1e-3))
    scaled = (np.asarray(values, np.float32) - np.float32(low)) / span
    return np.clip(scaled, 0, 1, out=scaled)


def slice_histograms(codes: NDArray[Any], n_bins: int) -> NDArray[np.int64]:
    """Give the histogram of every slice: ``(z, n_bins)`` counts of ``(z, y, x)`` codes < n_bins."""
    n_slices = codes.shape[0]
    offsets = np.arange(n_slices, dtype=np.int64)[:, None] * n_bins
    flat = codes.reshape(n_slices, -1) + offsets
    return np.bincount(flat.ravel(), minlength=n_slices * n_bins).reshape(n_slices, n_bins)


def isodata(histogram: NDArray[np.int64]) -> float:
    """Give the iterative selection threshold in [0, 1], or NaN where all values are the same.

    From ``T = mean``, ``T ← (mean(p ≤ T) + mean(p > T)) / 2`` until it stands still. Bin i of
    `histogram`, ``(n_bins,)`` counts, holds the value ``i / (n_bins − 1)``: exact for quantised
    probabilities.
    """
    values = np.arange(len(histogram)) / (len(histogram) - 1)
    count, total = np.cumsum(histogram), np.cumsum(histogram * values)
    if np.count_nonzero(histogram) < 2:
        return float("nan")
    threshold = total[-1] / count[-1]
    for _ in range(_MAX_ITERATIONS):
        split = int(np.searchsorted(values, threshold, side="right")) - 1
        below, above = count[split], count[-1] - count[split]
        following = (total[split] / below + (total[-1] - total[split]) / above) / 2
        if following == threshold:
            break
        threshold = following
    return float(threshold)


@dataclass(frozen=True)
class SliceThresholds:
    """The thresholds of all slices of one class, and what follows from them."""

    curve: NDArray[np.float32]
    """``(z,)``, in [0, 1]; NaN for slices whose values are all the same."""

    @classmethod
    def from_histograms(cls, histograms: NDArray[np.int64]) -> SliceThresholds:
        """Give the thresholds of ``(z, n_bins)`` counts."""
        return cls(np.array([isodata(histogram) for histogram in histograms], np.float32))

    @property
    def low(self) -> float:
        """The left limit: the mean over the slices that have a threshold; 0 where none has."""
        return float(np.nanmean(self.curve)) if self.n_used else 0.0

    @property
    def n_used(self) -> int:
        """Number of slices that have a threshold."""
        return int(np.isfinite(self.curve).sum())
