"""What a product's voxels must be: probabilities that sum to 1, labels that name a class."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from otzi.errors import VerificationError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from otzi.store.reader import LevelArray

__all__ = ["check_classes", "check_sums"]

_FLOAT_STEPS = 8


def check_sums(array: LevelArray, *, may_be_unknown: bool) -> None:
    """Check that ``(c, z, y, x)`` sums to 1 over c, within the step of its type; chunk by chunk.

    Parameters
    ----------
    array
        uint8 (255 times the value), or floating.
    may_be_unknown
        Whether all may be 0 somewhere: soft labels are where nothing is known.

    Raises
    ------
    VerificationError
        At the first chunk where they do not; the message has the worst sum.
    """
    is_integer = array.dtype.kind == "u"
    whole = float(np.iinfo(array.dtype).max) if is_integer else 1.0
    step = 1.0 if is_integer else _FLOAT_STEPS * float(np.finfo(array.dtype).eps)
    for region in _chunks(array):
        total = array[(slice(None), *region)].sum(axis=0, dtype=np.float64)
        error = np.abs(total - whole)
        if may_be_unknown:
            error[total == 0] = 0
        if not error.max() <= step:  # also for what is not a number
            worst = float(total.flat[error.argmax()]) / whole
            raise VerificationError(
                f"the classes sum to {worst:.4g} at {_words(region, error)}, it must be 1 within "
                f"{step / whole:.2g}"
            )


def check_classes(array: LevelArray, largest: int) -> None:
    """Check that ``(z, y, x)`` integers are labels up to `largest`, or the type's own for unknown.

    Raises
    ------
    VerificationError
        At the first chunk that holds something else.
    """
    unknown = np.iinfo(array.dtype).max
    for region in _chunks(array):
        labels = array[region]
        wrong = ((labels < 0) | (labels > largest)) & (labels != unknown)
        if wrong.any():
            raise VerificationError(
                f"label {labels.flat[wrong.argmax()]} at {_words(region, wrong)}, there are 0 to "
                f"{largest}, and {unknown} for unknown"
            )


def _chunks(array: LevelArray) -> list[tuple[slice, ...]]:
    """Give the region of every chunk, z, y, x."""
    axes = zip(array.shape[-3:], array.chunk[-3:], strict=True)
    return list(product(*([slice(i, i + c) for i in range(0, n, c)] for n, c in axes)))


def _words(region: tuple[slice, ...], score: NDArray[Any]) -> str:
    place = np.unravel_index(score.argmax(), score.shape)
    z, y, x = (s.start + int(i) for s, i in zip(region, place, strict=True))
    return f"z, y, x = {z}, {y}, {x}"
