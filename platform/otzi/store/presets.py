"""Presets of ``raw``: the source's own type, half precision, or one byte with a stated error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from otzi.errors import SourceError, UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from otzi.store.moments import Moments

__all__ = ["PRESETS", "Quantisation", "checked_preset", "quantisation_for", "stored_dtype"]

PRESETS = ("exact", "train", "compact")

_LARGEST_FLOAT16 = 65504.0
_HALF_STEP = 2.0**-11  # of a float16 value, relative
_TOLERATED_STEP = 0.01  # in standard deviations
_LEAST_NORMAL_FLOAT16 = 2.0**-14
_RANGE_DEVIATIONS = 5.0
_LARGEST_INT8 = 127
_TOLERATED_CLIPPING = 1e-3


@dataclass(frozen=True, slots=True)
class Quantisation:
    """How a value is stored: ``value = stored · scale + offset``, within `dtype`."""

    dtype: np.dtype[Any]
    """float16 or int8."""
    scale: float = 1.0
    offset: float = 0.0

    @property
    def is_identity(self) -> bool:
        """Whether stored values are the values themselves."""
        return (self.scale, self.offset) == (1.0, 0.0)

    def clipped_fraction(self, moments: Moments) -> float:
        """Give how much of the valid region of a volume saturates."""
        if self.dtype != np.int8:
            return 0.0
        reach = self.scale * _LARGEST_INT8
        return moments.valid.fraction_outside(self.offset - reach, self.offset + reach)

    def encode(self, values: NDArray[Any]) -> NDArray[Any]:
        """Give the stored values of a block, of any shape; int8 saturates at ±127."""
        if self.is_identity and self.dtype == np.float16:
            return values.astype(np.float16)
        stored = (values.astype(np.float32) - np.float32(self.offset)) / np.float32(self.scale)
        if self.dtype == np.int8:
            np.rint(stored, out=stored)
            np.clip(stored, -_LARGEST_INT8, _LARGEST_INT8, out=stored)
        return stored.astype(self.dtype)

    def decode(self, stored: NDArray[Any]) -> NDArray[np.float32]:
        """Give the values back, float32."""
        return stored.astype(np.float32) * np.float32(self.scale) + np.float32(self.offset)


def checked_preset(preset: str) -> str:
    """Give `preset` back if there is one of that name.

    Raises
    ------
    UsageError
        If there is none.
    """
    if preset not in PRESETS:
        raise UsageError(f"no preset {preset!r}: there are {', '.join(PRESETS)}")
    return preset


def stored_dtype(preset: str, source: np.dtype[Any]) -> np.dtype[Any]:
    """Give the type in which a preset stores a source of this type."""
    stored: dict[str, np.dtype[Any]] = {"train": np.dtype(np.float16), "compact": np.dtype(np.int8)}
    return stored.get(checked_preset(preset), source.newbyteorder("="))


def quantisation_for(preset: str, moments: Moments) -> Quantisation | None:
    """Give how a volume of these moments is stored; None for as it is.

    ``train`` stores the values themselves where float16 resolves them, otherwise standardised;
    ``compact`` spreads the mean ± 5 standard deviations over ±127, 25.4 steps in each.

    Raises
    ------
    SourceError
        If ``compact`` is to hold values that are not finite, or clips more than 0.1 % of them.
    """
    if checked_preset(preset) == "exact":
        return None
    valid = moments.valid
    mean, deviation = valid.mean, valid.standard_deviation or 1.0
    if preset == "train":
        dtype = np.dtype(np.float16)
        largest = max(abs(moments.minimum), abs(moments.maximum)) if moments.n_nonzero else 0.0
        is_resolved = abs(mean) * _HALF_STEP < _TOLERATED_STEP * deviation
        if largest <= _LARGEST_FLOAT16 and is_resolved and deviation > _LEAST_NORMAL_FLOAT16:
            return Quantisation(dtype)
        return Quantisation(dtype, deviation, mean)
    if moments.nonfinite_voxels:
        raise SourceError(
            f"{moments.nonfinite_voxels} voxels are not finite and int8 cannot say so: "
            "use --preset exact or train, or pass --nonfinite fill"
        )
    quantisation = Quantisation(
        np.dtype(np.int8), _RANGE_DEVIATIONS * deviation / _LARGEST_INT8, mean
    )
    clipped = quantisation.clipped_fraction(moments)
    if clipped > _TOLERATED_CLIPPING:
        raise SourceError(
            f"int8 would clip {clipped:.2%} of the voxels, {_TOLERATED_CLIPPING:.1%} is the "
            "limit: use --preset exact or train"
        )
    return quantisation
