"""How well probabilities agree with a truth: sums over voxels that can be merged.  Pure.

Measure blocks in any order, on any machine, and add them; what is asked of the sum is asked of the
whole volume.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from otzi.compiled import compiled
from otzi.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["N_BINS", "Agreement", "checked_shares", "least_probability"]

N_BINS = 15
"""Equal bins of confidence, as in Guo et al. 2017 (arXiv:1706.04599)."""

_LEAST_PROBABILITY = 1e-7
"""Smaller ones count as this in the cross-entropy: certainty in error would be infinitely bad."""
_LEAST_OF_UINT8 = 1 / 510
"""Of probabilities stored in steps of 1/255: those below half a step are stored as 0."""
_ROUNDING = 1e-6
"""In bins: probabilities at an edge are below it, whatever the last bit says."""


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
    """``(15, 3)`` voxels, summed confidence and hits in each bin of the largest probability."""
    class_calibration: NDArray[np.float64]
    """``(c, 15, 3)`` voxels, summed probability and truth in each bin of a class's probability."""

    @classmethod
    def none(cls, n_classes: int) -> Self:
        """Give the agreement over no voxel, where sums begin."""
        return cls(
            np.zeros((n_classes, n_classes), np.int64),
            np.zeros(n_classes),
            np.zeros(n_classes),
            0.0,
            np.zeros((N_BINS, 3)),
            np.zeros((n_classes, N_BINS, 3)),
        )

    @classmethod
    def measure(cls, probabilities: NDArray[Any], truth: NDArray[Any]) -> Self:
        """Give the agreement over the voxels of a block.

        Nothing is known of voxels where all of the truth, or all probabilities, are 0: they are
        left out.

        Parameters
        ----------
        probabilities
            ``(c, …)`` that sum to 1 over c: floats or booleans, or uint8, 255 times that.
        truth
            ``(…)`` integers, the class; or ``(c, …)``, soft labels, of the same types as
            probabilities.

        Raises
        ------
        UsageError
            If the shapes do not fit, or a class is none of the c.
        """
        p, p_step, t, t_step, least = checked_shares(probabilities, truth)
        sums = cls.none(len(probabilities))
        surprise = _tally(
            (p, p_step, t, t_step),
            least,
            sums.confusion,
            sums.shared,
            sums.claimed,
            sums.calibration,
            sums.class_calibration,
        )
        return cls(
            sums.confusion,
            sums.shared,
            sums.claimed,
            surprise,
            sums.calibration,
            sums.class_calibration,
        )

    def __add__(self, other: Agreement) -> Agreement:
        """Give the agreement over the voxels of both."""
        return Agreement(
            self.confusion + other.confusion,
            self.shared + other.shared,
            self.claimed + other.claimed,
            self.surprise + other.surprise,
            self.calibration + other.calibration,
            self.class_calibration + other.class_calibration,
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
    def foreground_f1(self) -> float:
        """2 TP / (2 TP + FP + FN) of all classes but the first as one."""
        both = self.confusion[1:, 1:].sum()
        either = self.confusion[1:].sum() + self.confusion[:, 1:].sum()
        return float(_ratio(2 * both, either))

    @property
    def cross_entropy(self) -> float:
        """Mean ``-log(probability of the truth)``, in nats."""
        return float(_ratio(self.surprise, self.n_voxels))

    @property
    def calibration_error(self) -> float:
        """Expected calibration error: mean distance of confidence and accuracy, by bins."""
        _voxels, confidence, hits = self.calibration.T
        return float(_ratio(np.abs(confidence - hits).sum(), self.n_voxels))

    @property
    def class_calibration_error(self) -> NDArray[np.float64]:
        """``(c,)`` mean distance of a class's probability and its share of the truth, by bins."""
        _voxels, probability, truth = np.moveaxis(self.class_calibration, 2, 0)
        distance = np.abs(probability - truth).sum(1)
        return _ratio(distance, np.full_like(distance, self.n_voxels))

    def summary(self, classes: Sequence[str]) -> dict[str, Any]:
        """Give all of it as plain JSON; what is not defined is null."""
        return {
            "voxels": self.n_voxels,
            "dice": dict(zip(classes, map(_plain, self.dice), strict=True)),
            "macro_dice": _plain(self.macro_dice),
            "micro_f1": _plain(self.micro_f1),
            "foreground_f1": _plain(self.foreground_f1),
            "cross_entropy": _plain(self.cross_entropy),
            "calibration_error": _plain(self.calibration_error),
        }


def checked_shares(
    probabilities: NDArray[Any], truth: NDArray[Any]
) -> tuple[NDArray[Any], float, NDArray[Any], float, float]:
    """Give what compiled code takes of the arguments of `Agreement.measure`.

    Returns
    -------
    tuple
        Probabilities ``(c, n)`` and what its values are multiples of; the same of the truth; and
        what the least probability counts as.

    Raises
    ------
    UsageError
        If the shapes do not fit, or a class is none of the c.
    """
    if probabilities.dtype.kind not in "fb" and probabilities.dtype != np.uint8:
        raise UsageError(f"probabilities of type {probabilities.dtype}: give floats or uint8")
    p, p_step = _flat(probabilities)
    t, t_step = _flat(_as_soft(truth, probabilities.shape))
    return p, p_step, t, t_step, least_probability(probabilities.dtype)


def least_probability(dtype: np.dtype[Any]) -> float:
    """Give what smaller probabilities of a type count as."""
    return _LEAST_OF_UINT8 if dtype == np.uint8 else _LEAST_PROBABILITY


@compiled
def _tally(
    values: Any,
    least_probability: float,
    confusion: NDArray[np.int64],
    shared: NDArray[np.float64],
    claimed: NDArray[np.float64],
    calibration: NDArray[np.float64],
    class_calibration: NDArray[np.float64],
) -> float:
    """Add the voxels of a block to the sums, and give what they add to the surprise."""
    p, p_step, t, t_step = values
    n_classes, n_voxels = p.shape
    surprise = 0.0
    for i in range(n_voxels):
        predicted = true = 0
        for c in range(1, n_classes):
            if p[c, i] > p[predicted, i]:
                predicted = c
            if t[c, i] > t[true, i]:
                true = c
        if not (p[predicted, i] > 0 and t[true, i] > 0):
            continue
        confusion[true, predicted] += 1
        confidence = p[predicted, i] * p_step
        b = _bin_of(confidence)
        calibration[b, 0] += 1
        calibration[b, 1] += confidence
        calibration[b, 2] += predicted == true
        for c in range(n_classes):
            probability, truth = p[c, i] * p_step, t[c, i] * t_step
            shared[c] += probability * truth
            claimed[c] += probability + truth
            if truth > 0:
                surprise -= truth * log(max(probability, least_probability))
            b = _bin_of(probability)
            class_calibration[c, b, 0] += 1
            class_calibration[c, b, 1] += probability
            class_calibration[c, b, 2] += truth
    return surprise


@compiled
def _bin_of(probability: float) -> int:
    """Give the bin ``(i/15, (i + 1)/15]`` of a probability; 0 is in the first."""
    return min(max(ceil(probability * N_BINS - _ROUNDING) - 1, 0), N_BINS - 1)


def _flat(shares: NDArray[Any]) -> tuple[NDArray[Any], float]:
    """Give ``(c, n)`` in a type that is compiled for, and what its values are multiples of."""
    flat = shares.reshape(len(shares), -1)
    if flat.dtype == np.uint8:
        return flat, 1 / 255
    if flat.dtype == np.bool_:
        return flat.view(np.uint8), 1.0
    return flat.astype(np.float32 if flat.dtype.itemsize < 8 else np.float64, copy=False), 1.0


def _as_soft(truth: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    n_classes = shape[0]
    if truth.shape == shape and (truth.dtype.kind in "fb" or truth.dtype == np.uint8):
        return truth
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
    soft: NDArray[np.bool_] = truth == np.arange(n_classes).reshape(-1, *[1] * truth.ndim)
    return soft


def _ratio(part: Any, whole: Any) -> NDArray[np.float64]:
    undefined = np.full(np.shape(part), np.nan)
    ratio: NDArray[np.float64] = np.divide(part, whole, out=undefined, where=np.greater(whole, 0))
    return ratio


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
