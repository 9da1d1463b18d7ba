"""Probabilities times integer weights, summed in uint32: the same bits in any order.

A probability has 14 bits and a weight 18, so that the sum over all tiles fits a uint32. The steps
of a voxel's classes sum to exactly one at every stage: rounding acts on the cumulative sum over
classes, and each class is the difference of two rounded values. Channels after the classes are
measures of their own, as the spread of an ensemble: in [0, 1], and part of no sum.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from otzi.compiled import compiled
from otzi.errors import ModelError
from otzi.tiles.plan import UNITY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from otzi.box import Zyx

__all__ = [
    "PROBABILITY_STEPS",
    "SUM_TOLERANCE",
    "WHOLE",
    "ProbabilityType",
    "accumulate",
    "check_outputs",
    "finalise",
    "finalise_into",
    "quantise",
    "quantise_box",
]

ProbabilityType = Literal["uint8", "float16", "float32"]

PROBABILITY_STEPS = 2**14 - 1
"""A probability of 1 in a tile: times `UNITY` it is the largest that a uint32 holds."""

WHOLE = PROBABILITY_STEPS * UNITY
"""What the classes of a fully accumulated voxel sum to."""

SUM_TOLERANCE = 1e-3
"""By how much the probabilities of a voxel may miss a sum of 1: rounding, of bfloat16 at worst."""


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
    whole = np.ascontiguousarray(probabilities, np.float32)
    z, y, x = whole.shape[1:]
    return quantise_box(whole, (0, 0, 0), (z, y, x), n_classes=len(whole), n_steps=n_steps)


def quantise_box(
    outputs: NDArray[np.float32],
    start: Zyx,
    shape: Zyx,
    *,
    n_classes: int,
    n_steps: int = PROBABILITY_STEPS,
) -> NDArray[np.uint16]:
    """Give the steps of a box, ``(c, z, y, x)`` uint16, of what a model gives for a tile.

    Parameters
    ----------
    outputs
        ``(c, z, y, x)`` float32, C-contiguous: probabilities of `n_classes`, then measures.
    start, shape
        Of the box.
    n_classes
        Channels that sum to 1.
    n_steps
        What 1 becomes.

    Raises
    ------
    ModelError
        If the box holds something else than probabilities and measures.
    """
    steps = np.empty((len(outputs), *shape), np.uint16)
    if _quantise(outputs, *start, n_classes, np.float32(n_steps), steps):
        z, y, x = (slice(a, a + n) for a, n in zip(start, shape, strict=True))
        wrong = outputs[:, z, y, x]
        error = np.abs(wrong[:n_classes].sum(axis=0) - 1).max()
        check_outputs(wrong.min(), wrong[n_classes:].max(initial=0), error)
    return steps


def check_outputs(lowest: float, highest_measure: float, sum_error: float) -> None:
    """Check the extremes of what a model gives.

    Raises
    ------
    ModelError
        If one is beyond what probabilities have; the message says which.
    """
    if not lowest >= 0 or not highest_measure <= 1:
        wrong = highest_measure if lowest >= 0 else lowest
        raise ModelError(
            f"the model gives {wrong:g} as a probability: they are 0 to 1, train it longer or at "
            "a lower learning rate"
        )
    if not sum_error <= SUM_TOLERANCE:
        raise ModelError(
            f"the model's probabilities miss a sum of 1 by {sum_error:.3g}, at most "
            f"{SUM_TOLERANCE} is rounding: it needs a softmax over its classes"
        )


def accumulate(
    total: NDArray[np.uint32],
    steps: NDArray[np.uint16],
    weights: Sequence[NDArray[np.uint32]],
    start: Zyx = (0, 0, 0),
    *,
    planes: tuple[int, int] | None = None,
    is_first: bool = False,
) -> None:
    """Add steps, times the weights of z, y and x, to a box of `total` in place.

    Parameters
    ----------
    total
        ``(c, z, y, x)`` uint32, C-contiguous.
    steps
        ``(c, z, y, x)`` uint16, C-contiguous.
    weights
        Of the steps, along each axis.
    start
        Where the steps, or the first of `planes`, are added in `total`.
    planes
        The first z of the steps that are added, and the one after the last; all if None.
    is_first
        Whether `total` holds nothing yet, and is not read.
    """
    z, y, x = weights
    first, stop = planes or (0, steps.shape[1])
    _accumulate(total, steps, z, y, x, *start, first, stop, is_first)


def finalise(
    total: NDArray[np.uint32], dtype: ProbabilityType, n_classes: int | None = None
) -> NDArray[Any]:
    """Give the probabilities of fully accumulated voxels.

    Parameters
    ----------
    total
        ``(c, z, y, x)`` uint32, C-contiguous, summing to 16383 · 2¹⁸ over the classes.
    dtype
        ``"uint8"``: value/255, summing to exactly 255 over the classes and within one step of the
        exact value; ``"float16"`` or ``"float32"``: in [0, 1].
    n_classes
        Channels that sum to 1; all if None.
    """
    result = np.empty(total.shape, dtype)
    finalise_into(result, 0, total, len(total) if n_classes is None else n_classes)
    return result


def finalise_into(
    result: NDArray[Any], first_plane: int, total: NDArray[np.uint32], n_classes: int
) -> None:
    """Put what `finalise` gives for `total` into the planes of `result` from `first_plane` on."""
    if result.dtype == np.uint8:
        _finalise(total, n_classes, result, first_plane)
    elif result.dtype == np.float32:
        _finalise_floats(total, result, first_plane)
    else:  # which compiled code does not know
        planes = result[:, first_plane : first_plane + total.shape[1]]
        np.multiply(total, 1 / WHOLE, out=planes, casting="same_kind")


@compiled
def _quantise(
    outputs: NDArray[np.float32],
    z0: int,
    y0: int,
    x0: int,
    n_classes: int,
    n_steps: np.float32,
    steps: NDArray[np.uint16],
) -> int:
    """Fill in the steps of the box that begins at z0, y0, x0; give how many values are wrong."""
    n_channels, depth, rows, columns = steps.shape
    one, tolerance = np.float32(1), np.float32(SUM_TOLERANCE)
    cumulative = np.empty(columns, np.float32)
    below = np.empty(columns, np.int32)
    n_wrong = 0
    for z in range(depth):
        for y in range(rows):
            cumulative[:] = 0
            below[:] = 0
            wrong = np.int32(0)
            for c in range(n_classes):
                row, out = outputs[c, z0 + z, y0 + y, x0 : x0 + columns], steps[c, z, y]
                for x in range(columns):
                    p = row[x]
                    wrong += np.int32(not p >= 0)
                    upto = cumulative[x] + p
                    cumulative[x] = upto
                    step = np.int32(np.rint((upto if upto < one else one) * n_steps))
                    out[x] = np.uint16(step - below[x])
                    below[x] = step
            last = steps[n_classes - 1, z, y]
            for x in range(columns):
                wrong += np.int32(not abs(cumulative[x] - one) <= tolerance)
                last[x] += np.uint16(np.int32(n_steps) - below[x])
            for c in range(n_classes, n_channels):
                row, out = outputs[c, z0 + z, y0 + y, x0 : x0 + columns], steps[c, z, y]
                for x in range(columns):
                    p = row[x]
                    is_right = p >= 0 and p <= one
                    wrong += np.int32(not is_right)
                    out[x] = np.uint16(np.rint((p if is_right else one) * n_steps))
            n_wrong += int(wrong)
    return n_wrong


@compiled
def _accumulate(
    total: NDArray[np.uint32],
    steps: NDArray[np.uint16],
    weights_z: NDArray[np.uint32],
    weights_y: NDArray[np.uint32],
    weights_x: NDArray[np.uint32],
    z0: int,
    y0: int,
    x0: int,
    first_plane: int,
    stop_plane: int,
    is_first: bool,
) -> None:
    n_channels, _, rows, columns = steps.shape
    for c in range(n_channels):
        for z in range(first_plane, stop_plane):
            for y in range(rows):
                weight = np.uint32(weights_z[z] * weights_y[y])
                row = steps[c, z, y]
                into = total[c, z0 + z - first_plane, y0 + y, x0 : x0 + columns]
                if is_first:
                    for x in range(columns):
                        into[x] = np.uint32(weight * weights_x[x]) * np.uint32(row[x])
                else:
                    for x in range(columns):
                        into[x] += np.uint32(weight * weights_x[x]) * np.uint32(row[x])


@compiled
def _finalise(
    total: NDArray[np.uint32], n_classes: int, result: NDArray[np.uint8], first_plane: int
) -> None:
    n_channels, depth, rows, columns = total.shape
    cumulative = np.empty(columns, np.uint32)
    below = np.empty(columns, np.uint8)
    for z in range(depth):
        for y in range(rows):
            cumulative[:] = 0
            below[:] = 0
            for c in range(n_channels):
                row, out = total[c, z, y], result[c, first_plane + z, y]
                if c >= n_classes:
                    cumulative[:] = 0
                    below[:] = 0
                for x in range(columns):
                    cumulative[x] += row[x]
                    doubled = np.uint64(cumulative[x]) * np.uint64(255) + np.uint64(WHOLE // 2)
                    # floor(a / (16383 * 2^18)) in two steps: the second divides 32-bit numbers.
                    rest = np.uint32(doubled >> np.uint64(18))
                    upto = np.uint8(rest // np.uint32(PROBABILITY_STEPS))
                    out[x] = np.uint8(upto - below[x])
                    below[x] = upto


@compiled
def _finalise_floats(
    total: NDArray[np.uint32], result: NDArray[np.float32], first_plane: int
) -> None:
    n_channels, depth, rows, _ = total.shape
    for c in range(n_channels):
        for z in range(depth):
            for y in range(rows):
                row, out = total[c, z, y], result[c, first_plane + z, y]
                for x in range(row.size):
                    out[x] = np.float32(row[x] * (1 / WHOLE))
