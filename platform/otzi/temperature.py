"""Temperature scaling: probabilities that are as sure as they are right.  Pure.

After Guo et al. 2017 (arXiv:1706.04599). Logits are divided by T, or, what is the same,
probabilities are raised to the power 1/T and divided by their sum: so it can be fitted to what is
stored, and serves networks that have no logits. The T of the least cross-entropy is fitted; as a
function of 1/T that is convex, and its slope is gathered at several T in one pass over the voxels.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, log
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np

from otzi.compiled import compiled
from otzi.errors import UsageError
from otzi.metrics import checked_shares

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["TEMPERATURES", "TemperatureFit", "tempered"]

A = TypeVar("A", bound=Any)

TEMPERATURES = 2.0 ** (np.arange(-12, 21) / 4)
"""From 1/8 to 32: between them the slope is interpolated, beyond them nothing is fitted."""


def tempered(probabilities: A, temperature: float, axis: int) -> A:
    """Give probabilities that are less sure above temperature 1, and surer below.

    What is certain stays so.

    Parameters
    ----------
    probabilities
        Array or tensor of floats in [0, 1], summing to 1 over the classes.
    temperature
        Above 0.
    axis
        Of the classes.
    """
    powers = probabilities ** (1 / temperature)
    scaled: A = powers / powers.sum(axis=axis, keepdims=True)
    return scaled


@dataclass(frozen=True, slots=True, eq=False)
class TemperatureFit:
    """Sums over voxels from which the best temperature follows; measured in blocks, and added."""

    slopes: NDArray[np.float64]
    """Of the summed cross-entropy by 1/T, at each of `TEMPERATURES`, in nats."""
    n_voxels: int

    @classmethod
    def none(cls) -> Self:
        """Give the fit to no voxel, where sums begin."""
        return cls(np.zeros(len(TEMPERATURES)), 0)

    @classmethod
    def measure(cls, probabilities: NDArray[Any], truth: NDArray[Any]) -> Self:
        """Give the fit to the voxels of a block.

        Parameters and what is left out are those of `otzi.metrics.Agreement.measure`; so is what
        counts as the least probability.
        """
        p, p_step, t, t_step, least = checked_shares(probabilities, truth)
        slopes = np.zeros(len(TEMPERATURES))
        n_voxels = _add_slopes((p, p_step, t, t_step), least, 1 / TEMPERATURES, slopes)
        return cls(slopes, n_voxels)

    def __add__(self, other: TemperatureFit) -> TemperatureFit:
        """Give the fit to the voxels of both."""
        return TemperatureFit(self.slopes + other.slopes, self.n_voxels + other.n_voxels)

    def best(self) -> float:
        """Give the temperature of the least cross-entropy.

        Raises
        ------
        UsageError
            If there is no voxel, or the best is not within `TEMPERATURES`.
        """
        from scipy.interpolate import PchipInterpolator

        if not self.n_voxels:
            raise UsageError("no labelled voxel to fit a temperature to: name a truth with some")
        if not self.slopes[-1] < 0 < self.slopes[0]:
            bound = TEMPERATURES[0] if self.slopes[0] <= 0 else TEMPERATURES[-1]
            raise UsageError(
                f"no temperature from {TEMPERATURES[0]:g} to {TEMPERATURES[-1]:g} is the best, the "
                f"cross-entropy falls beyond {bound:g}: the truth says nothing of these "
                "probabilities, or agrees throughout; name another"
            )
        (found,) = PchipInterpolator(np.log(TEMPERATURES), self.slopes).roots(extrapolate=False)
        return exp(found)


@compiled
def _add_slopes(
    values: Any, least: float, exponents: NDArray[np.float64], slopes: NDArray[np.float64]
) -> int:
    """Add the slopes of the voxels of a block, and give how many voxels there are.

    The cross-entropy of a voxel at exponent e = 1/T is log Σ p^e - e Σ t log p: its slope is the
    mean of log p by weights p^e, less that by the truth.
    """
    p, p_step, t, t_step = values
    n_classes, n_all = p.shape
    logs = np.empty(n_classes)
    n_voxels = 0
    for i in range(n_all):
        told = known = by_truth = largest = 0.0
        for c in range(n_classes):
            told += p[c, i]
            truth = t[c, i] * t_step
            logs[c] = log(max(p[c, i] * p_step, least))
            largest = logs[c] if c == 0 else max(largest, logs[c])
            known += truth
            by_truth += truth * logs[c]
        if not (told > 0 and known > 0):
            continue
        n_voxels += 1
        for j in range(len(exponents)):
            total = mean = 0.0
            for c in range(n_classes):
                weight = exp(exponents[j] * (logs[c] - largest))
                total += weight
                mean += weight * logs[c]
            slopes[j] += mean / total - by_truth / known
    return n_voxels
