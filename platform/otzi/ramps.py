"""Ramps: how probability becomes opacity, and the automatic left limit.  Pure.

Source: "Finding Nano-Ötzi" (arXiv 2104.01554), transfer functions; the threshold is the iterative
selection of Ridler and Calvard (1978), known as isodata.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["SliceThresholds", "fit_quadratic", "isodata", "quadratic", "ramp"]

_MAX_ITERATIONS = 1000
_MAX_FITS = 50
_BIWEIGHT = 4.685
"""Deviations from which on a slice has no say: 95 % efficient where the errors are Gaussian."""
_DEVIATION_PER_MAD = 1.4826


def ramp(values: NDArray[Any], low: float, high: float = 1.0) -> NDArray[np.float32]:
    """Give ``clamp((values − low) / (high − low), 0, 1)``: any shape, float32.

    A `low` of 1 and more would divide by nothing: the span is at least 1e-3.
    """
    span = np.float32(max(high - low, 1e-3))
    scaled = (np.asarray(values, np.float32) - np.float32(low)) / span
    return np.clip(scaled, 0, 1, out=scaled)


def isodata(histogram: NDArray[np.integer[Any]]) -> float:
    """Give the iterative selection threshold in [0, 1], or NaN where all values are the same.

    From ``T = mean``, ``T ← (mean(p ≤ T) + mean(p > T)) / 2`` until it stands still. Bin i of
    `histogram`, ``(n_bins,)`` counts, holds the value ``i / (n_bins − 1)``: exact for quantised
    probabilities.
    """
    return _isodata(histogram)[0]


def _isodata(histogram: NDArray[np.integer[Any]]) -> tuple[float, float]:
    """Give the threshold and the contrast: the deviation between the two sides of it."""
    # In whole numbers: on which side a value lies that is the threshold must not hang on rounding.
    counts = histogram.astype(np.int64)
    count, total = np.cumsum(counts), np.cumsum(counts * np.arange(len(counts)))
    if np.count_nonzero(histogram) < 2:
        return float("nan"), 0.0
    threshold = total[-1] / count[-1]
    for _ in range(_MAX_ITERATIONS):
        split = int(threshold)
        below, above = count[split], count[-1] - count[split]
        low, high = total[split] / below, (total[-1] - total[split]) / above
        following = (low + high) / 2
        if following == threshold:
            break
        threshold = following
    contrast = (high - low) * np.sqrt(float(below) * float(above)) / count[-1]
    largest = len(counts) - 1
    return float(threshold / largest), float(contrast / largest)


@dataclass(frozen=True)
class SliceThresholds:
    """The thresholds of all slices of one class, and what follows from them."""

    curve: NDArray[np.float32]
    """``(z,)``, in [0, 1]; NaN for slices whose values are all the same."""
    contrast: NDArray[np.float32]
    """``(z,)``, in [0, 0.5]: the deviation between the means below and above the threshold."""

    @classmethod
    def from_histograms(cls, histograms: NDArray[np.integer[Any]]) -> SliceThresholds:
        """Give the thresholds of ``(z, n_bins)`` counts."""
        both = np.array([_isodata(histogram) for histogram in histograms], np.float32)
        return cls(both[:, 0], both[:, 1])

    @property
    def low(self) -> float:
        """The left limit: the mean over the slices that have a threshold; 0 where none has."""
        return float(np.nanmean(self.curve)) if self.n_used else 0.0

    @property
    def n_used(self) -> int:
        """Number of slices that have a threshold."""
        return int(np.isfinite(self.curve).sum())


def fit_quadratic(curve: NDArray[np.floating[Any]]) -> tuple[float, float, float]:
    """Give c₀, c₁, c₂ of the left limit that follows the slices: c₀ + c₁ u + c₂ u².

    u runs from −1 at the first slice to 1 at the last. The fit is by least squares, reweighted by
    Tukey's biweight until it stands still, so that single slices that stand out have no say.

    Parameters
    ----------
    curve
        ``(z,)`` thresholds, NaN where a slice has none; with fewer than three the fit is flat.
    """
    there = np.isfinite(curve)
    if there.sum() < 3:
        return (float(np.mean(curve[there])) if there.any() else 0.0), 0.0, 0.0
    powers = np.vander(_places(len(curve))[there], 3, increasing=True)
    values = curve[there].astype(np.float64)
    weights = np.ones(len(values))
    found = np.zeros(3)
    for _ in range(_MAX_FITS):
        root = np.sqrt(weights)
        before, found = found, np.linalg.lstsq(powers * root[:, None], values * root, rcond=None)[0]
        errors = np.abs(values - powers @ found)
        scale = _BIWEIGHT * _DEVIATION_PER_MAD * float(np.median(errors))
        if scale < 1e-9 or np.allclose(found, before, rtol=0, atol=1e-9):
            break
        weights = np.clip(1 - (errors / scale) ** 2, 0, None) ** 2
    c0, c1, c2 = map(float, found)
    return c0, c1, c2


def quadratic(coefficients: Sequence[float], depth: int) -> NDArray[np.float64]:
    """Give the left limit of every slice by `fit_quadratic`: ``(z,)`` in [0, 1]."""
    c0, c1, c2 = coefficients
    u = _places(depth)
    return np.clip(c0 + c1 * u + c2 * u * u, 0, 1)


def _places(depth: int) -> NDArray[np.float64]:
    """Give u of every slice; 0 where there is only one."""
    return np.linspace(-1, 1, depth) if depth > 1 else np.zeros(1)
