"""Probabilities times integer weights, summed in uint32: the same bits in any order.

A probability has 14 bits and a weight 18, so that the sum over all tiles fits a uint32. The steps
of a voxel's classes sum to exactly one at every stage: rounding acts on the cumulative sum over
classes, and each class is the difference of two rounded values.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from otzi.errors import ModelError
from otzi.tiles.plan import UNITY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["PROBABILITY_STEPS", "ProbabilityType", "accumulate", "finalise", "quantise"]

ProbabilityType = Literal["uint8", "float16", "float32"]

PROBABILITY_STEPS = 2**14 - 1
"""A probability of 1 in a tile: times `UNITY` it is the largest that a uint32 holds."""

_WHOLE = PROBABILITY_STEPS * UNITY
_TOLERANCE = 1e-3


def quantise(
    probabilities: NDArray[np.float32], n_steps: int = PROBABILITY_STEPS
) -> NDArray[np.uint16]:
    """Give ``(c, z, y, x)`` uint16 in steps of 1/n_steps that sum to it over c at every voxel.

    Parameters
    ----------
    probabilities
        ``(c, z, y, x)`` float32, each at least 0, summing to 1 over c.
    n_steps
        16383 in a tile, as many as can be blended; 255 for what is stored at once.

    Raises
    ------
    ModelError
        If they are no probabilities: negative, not finite, or of another sum.
    """
    steps = np.empty(probabilities.shape, np.uint16)
    cumulative = np.zeros(probabilities.shape[1:], np.float32)
    below = np.zeros(cumulative.shape, np.uint16)
    for probability, step in zip(probabilities, steps, strict=True):
        if not probability.min() >= 0:
            raise ModelError(
                f"the model gives {probability.min()} as a probability: they are 0 to 1, "
                "train it longer or at a lower learning rate"
            )
        cumulative += probability
        upto = np.rint(np.minimum(cumulative, 1) * n_steps).astype(np.uint16)
        np.subtract(upto, below, out=step)
        below = upto
    error = float(np.abs(cumulative - 1).max())
    if not error <= _TOLERANCE:
        raise ModelError(
            f"the model's probabilities miss a sum of 1 by {error:.3g}, at most {_TOLERANCE} is "
            "rounding: it needs a softmax over its classes"
        )
    steps[-1] += n_steps - below
    return steps


def accumulate(
    total: NDArray[np.uint32], part: NDArray[np.uint16], weights: Sequence[NDArray[np.uint32]]
) -> None:
    """Add ``(c, z, y, x)`` uint16 steps, times the weights of z, y and x, to `total` in place."""
    z, y, x = weights
    weight = z[:, None, None] * y[:, None] * x
    for into, steps in zip(total, part, strict=True):
        into += weight * steps


def finalise(total: NDArray[np.uint32], dtype: ProbabilityType) -> NDArray[Any]:
    """Give the probabilities of fully accumulated voxels.

    Parameters
    ----------
    total
        ``(c, z, y, x)`` uint32, summing to 16383 · 2¹⁸ over c.
    dtype
        ``"uint8"``: value/255, summing to exactly 255 over c and within one step of the exact
        value; ``"float16"`` or ``"float32"``: in [0, 1].
    """
    result = np.empty(total.shape, dtype)
    if dtype == "uint8":
        cumulative = np.zeros(total.shape[1:], np.uint32)
        below = np.zeros(cumulative.shape, np.uint8)
        for value, step in zip(total, result, strict=True):
            cumulative += value
            upto = _round_to_255(cumulative)
            np.subtract(upto, below, out=step)
            below = upto
    else:
        for value, probability in zip(total, result, strict=True):
            np.multiply(value, 1 / _WHOLE, out=probability, casting="same_kind")
    return result


def _round_to_255(cumulative: NDArray[np.uint32]) -> NDArray[np.uint8]:
    doubled = cumulative.astype(np.uint64) * 255 + _WHOLE // 2
    # floor(a / (16383 * 2^18)) in two steps: the second divides 32-bit numbers, which is faster.
    return ((doubled >> 18).astype(np.uint32) // np.uint32(PROBABILITY_STEPS)).astype(np.uint8)
