"""How well probabilities agree with a truth: sums over voxels that can be merged.  Pure.

Measure blocks in any order, on any machine, and add them; what is asked of the sum is asked of the
whole volume.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from otzi.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["Agreement"]

_BINS = 15
"""Equal bins of confidence, as in Guo et al. 2017 (arXiv:1706.04599)."""

_LEAST_PROBABILITY = 1e-7
"""Smaller ones count as this in the cross-entropy: certainty in error would be infinitely bad."""


@dataclass(frozen=True, slots=True, eq=False)
class Agreement:
    """Sums over voxels of predicted class probabilities against a truth."""

    confusion: NDArray[np.int64]
    """``(c, c)`` voxels of a true class (row) with most probability in a class (column)."""
    shared: NDArray[np.float64]
    """``(c,)`` sums of probability times truth."""
    claimed: NDArray[np.float64]
    """``(c,)`` sums of probability plus truth."""
    surprise: float
    """Sum of ``-log(probability of the truth)``, in nats."""
    calibration: NDArray[np.float64]
    """``(15, 3)`` voxels, summed confidence and hits in each bin of confidence."""

    @classmethod
    def none(cls, n_classes: int) -> Self:
        """Give the agreement over no voxel, where sums begin."""
        return cls(
            np.zeros((n_classes, n_classes), np.int64),
            np.zeros(n_classes),
            np.zeros(n_classes),
            0.0,
            np.zeros((_BINS, 3)),
        )

    @classmethod
    def measure(cls, probabilities: NDArray[Any], truth: NDArray[Any]) -> Self:
        """Give the agreement over the voxels of a block.

        Parameters
        ----------
        probabilities
            ``(c, …)`` floats in [0, 1] that sum to 1 over c.
        truth
            ``(…)`` integers, the class; or ``(c, …)`` floats, soft labels.

        Raises
        ------
        UsageError
            If the shapes do not fit, or a class is none of the c.
        """
        n_classes = len(probabilities)
        p = probabilities.reshape(n_classes, -1).astype(np.float64)
        t = _as_soft(truth, probabilities.shape)
        predicted, true = p.argmax(0), t.argmax(0)
        confusion = np.bincount(true * n_classes + predicted, minlength=n_classes**2)
        confidence = p.max(0)
        bins = np.clip(np.ceil(confidence * _BINS).astype(int) - 1, 0, _BINS - 1)
        columns = (np.ones_like(confidence), confidence, predicted == true)
        return cls(
            confusion.reshape(n_classes, n_classes),
            (p * t).sum(1),
            (p + t).sum(1),
            -float((t * np.log(np.maximum(p, _LEAST_PROBABILITY))).sum()),
            np.stack([np.bincount(bins, weights=w, minlength=_BINS) for w in columns], axis=1),
        )

    def __add__(self, other: Agreement) -> Agreement:
        """Give the agreement over the voxels of both."""
        return Agreement(
            self.confusion + other.confusion,
            self.shared + other.shared,
            self.claimed + other.claimed,
            self.surprise + other.surprise,
            self.calibration + other.calibration,
        )

    @property
    def n_voxels(self) -> int:
        """Voxels measured."""
        return int(self.confusion.sum())

    @property
    def dice(self) -> NDArray[np.float64]:
        """``(c,)`` 2 TP / (2 TP + FP + FN), NaN for a class that is neither there nor predicted."""
        return _ratio(2 * np.diag(self.confusion), self.confusion.sum(0) + self.confusion.sum(1))

    @property
    def soft_dice(self) -> NDArray[np.float64]:
        """``(c,)`` the same of the probabilities themselves: 2 Σ p t / Σ (p + t)."""
        return _ratio(2 * self.shared, self.claimed)

    @property
    def macro_dice(self) -> float:
        """Mean Dice over the classes that are there or predicted."""
        there = self.dice[~np.isnan(self.dice)]
        return float(there.mean()) if there.size else float("nan")

    @property
    def micro_f1(self) -> float:
        """2 TP / (2 TP + FP + FN) over all classes together: the share of voxels that are right."""
        return float(_ratio(np.trace(self.confusion), self.confusion.sum()))

    @property
    def cross_entropy(self) -> float:
        """Mean ``-log(probability of the truth)``, in nats."""
        return float(_ratio(self.surprise, self.n_voxels))

    @property
    def calibration_error(self) -> float:
        """Expected calibration error: mean distance of confidence and accuracy, by bins."""
        _voxels, confidence, hits = self.calibration.T
        return float(_ratio(np.abs(confidence - hits).sum(), self.n_voxels))

    def summary(self, classes: Sequence[str]) -> dict[str, Any]:
        """Give all of it as plain JSON; what is not defined is null."""
        return {
            "voxels": self.n_voxels,
            "dice": dict(zip(classes, map(_plain, self.dice), strict=True)),
            "macro_dice": _plain(self.macro_dice),
            "micro_f1": _plain(self.micro_f1),
            "cross_entropy": _plain(self.cross_entropy),
            "calibration_error": _plain(self.calibration_error),
        }


def _as_soft(truth: NDArray[Any], shape: tuple[int, ...]) -> NDArray[np.float64]:
    n_classes = shape[0]
    if truth.shape == shape and truth.dtype.kind == "f":
        return truth.reshape(n_classes, -1).astype(np.float64)
    if truth.shape != shape[1:] or truth.dtype.kind not in "iu":
        raise UsageError(
            f"a truth of shape {truth.shape} and type {truth.dtype} does not fit probabilities of "
            f"{shape}: give {shape[1:]} integers or {shape} floats"
        )
    if truth.size and not 0 <= truth.min() <= truth.max() < n_classes:
        raise UsageError(
            f"a truth with classes {truth.min()} to {truth.max()} does not fit {n_classes} "
            f"probabilities: give 0 to {n_classes - 1}"
        )
    soft = np.zeros((n_classes, truth.size))
    soft[truth.ravel(), np.arange(truth.size)] = 1
    return soft


def _ratio(part: Any, whole: Any) -> NDArray[np.float64]:
    undefined = np.full(np.shape(part), np.nan)
    ratio: NDArray[np.float64] = np.divide(part, whole, out=undefined, where=np.greater(whole, 0))
    return ratio


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
