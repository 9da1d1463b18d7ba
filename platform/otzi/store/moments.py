"""Statistics of a volume in one pass, block by block; merging is associative.  Pure.

The valid region is what is finite and not empty. Empty are the exact zeros of a field without
data: in floats all of them, in integers when zero is more than eight times as frequent as the
sixteen values nearest to it that occur.

Percentiles come from a histogram over the 65,536 leading bit patterns in the order of the numbers
they mean: exact for 8- and 16-bit types, and for float32 good to 1/128 of the distance from the
`reference`, which is to be a value amid the data.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from otzi.compiled import compiled
from otzi.errors import SourceError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["PERCENTS", "Moments"]

PERCENTS = (0.1, 0.5, 1.0, 50.0, 99.0, 99.5, 99.9)

_N_PATTERNS = 65536
_KINDS = ("|i1", "|u1", "<i2", "<u2", "<f2", "<f4")
_PIECE_VOXELS = 1 << 17
_STANDS_OUT = 8
_NEIGHBOURS = 16


class _Sums(NamedTuple):
    """What is summed up over finite values other than 0, and the number of zeros."""

    n_nonzero: int = 0
    zeros: int = 0
    mean: float = 0.0
    squares: float = 0.0
    """Of the distances from the mean."""
    minimum: float = np.inf
    maximum: float = -np.inf

    def merge(self, other: _Sums) -> _Sums:
        """Give the sums of both parts together (Chan, Golub and LeVeque 1979)."""
        n = max(1, self.n_nonzero + other.n_nonzero)
        distance, share = other.mean - self.mean, other.n_nonzero / n
        return _Sums(
            n_nonzero=self.n_nonzero + other.n_nonzero,
            zeros=self.zeros + other.zeros,
            mean=self.mean + distance * share,
            squares=self.squares + other.squares + distance**2 * (self.n_nonzero * share),
            minimum=min(self.minimum, other.minimum),
            maximum=max(self.maximum, other.maximum),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """What has been seen of a volume so far; zeros are kept apart until all of it is known."""

    dtype: np.dtype[Any]
    """int8, uint8, int16, uint16, float16 or float32."""
    reference: float
    """Float32 values are counted by their distance from this; 0 for the exact types."""
    counts: NDArray[np.int64]
    """``(65536,)``: how often each pattern of finite values other than 0 occurs."""
    zeros: int = 0
    nonfinite_voxels: int = 0
    mean: float = 0.0
    """Of the finite values other than 0, as are the following."""
    squares: float = 0.0
    """Sum of squared distances from the mean."""
    minimum: float = np.inf
    maximum: float = -np.inf

    @classmethod
    def none(cls, dtype: np.dtype[Any], reference: float = 0.0) -> Moments:
        """Give the moments of no voxel at all, with which merging begins.

        Raises
        ------
        UsageError
            If the type is not one of those above.
        """
        dtype = np.dtype(dtype).newbyteorder("=")
        if dtype.newbyteorder("<").str not in _KINDS:
            raise UsageError(f"no statistics of {dtype}: convert it to float32")
        if dtype != np.float32:
            reference = 0.0
        return cls(dtype, float(np.float32(reference)), np.zeros(_N_PATTERNS, np.int64))

    def add(self, block: NDArray[Any]) -> Moments:
        """Give the moments with those of a block, of any shape and this `dtype`, merged in.

        Work memory is a few MB, whatever the size of the block.
        """
        counts = np.zeros(_N_PATTERNS, np.int64)
        sums, n_voxels = _Sums(), 0
        for piece in _pieces(block):
            values = np.ascontiguousarray(piece).reshape(-1)
            bits = _leading_bits(values, self.reference)
            # Numba has no arithmetic of float16.
            wide = values.astype(np.float32) if values.dtype == np.float16 else values
            sums = sums.merge(_Sums(*_scan(wide, bits, counts)))
            n_voxels += values.size
        return self.merge(
            Moments(
                dtype=self.dtype,
                reference=self.reference,
                counts=counts[_bits_in_order(self.dtype)],
                zeros=sums.zeros,
                nonfinite_voxels=n_voxels - sums.n_nonzero - sums.zeros,
                mean=sums.mean,
                squares=sums.squares,
                minimum=sums.minimum,
                maximum=sums.maximum,
            )
        )

    def merge(self, other: Moments) -> Moments:
        """Give the moments of both parts together.

        Raises
        ------
        UsageError
            If their types or references differ.
        """
        if (self.dtype, self.reference) != (other.dtype, other.reference):
            raise UsageError("moments of other types or references cannot be merged")
        sums = self._sums.merge(other._sums)
        return Moments(
            dtype=self.dtype,
            reference=self.reference,
            counts=self.counts + other.counts,
            zeros=sums.zeros,
            nonfinite_voxels=self.nonfinite_voxels + other.nonfinite_voxels,
            mean=sums.mean,
            squares=sums.squares,
            minimum=sums.minimum,
            maximum=sums.maximum,
        )

    @property
    def _sums(self) -> _Sums:
        return _Sums(
            self.n_nonzero, self.zeros, self.mean, self.squares, self.minimum, self.maximum
        )

    # What follows from them

    @property
    def n_nonzero(self) -> int:
        """Number of finite voxels other than 0."""
        return int(self.counts.sum())

    @property
    def empty_voxels(self) -> int:
        """Number of exact zeros that are no data; none where there is nothing but zeros."""
        if not self.n_nonzero:
            return 0
        if self.dtype.kind == "f":
            return self.zeros
        occurring = np.flatnonzero(self.counts)
        distances = np.abs(_edges(self.dtype)[0][occurring])
        nearest = occurring[np.argsort(distances, kind="stable")[:_NEIGHBOURS]]
        return self.zeros if self.zeros > _STANDS_OUT * self.counts[nearest].mean() else 0

    @property
    def valid(self) -> Moments:
        """The moments of the valid region: zeros that are data merged in, the others left out."""
        if not self.zeros or self.empty_voxels:
            return self
        counts = np.zeros(_N_PATTERNS, np.int64)
        counts[_leading_bits(np.zeros(1, self.dtype), self.reference)] = self.zeros
        zeros = Moments.none(self.dtype, self.reference)
        counts = counts[_bits_in_order(self.dtype)]
        return self.merge(replace(zeros, counts=counts, minimum=0.0, maximum=0.0))

    @property
    def standard_deviation(self) -> float:
        """Of the values counted, by their number (not one less)."""
        return math.sqrt(self.squares / max(1, self.n_nonzero))

    def percentiles(self, percents: Sequence[float]) -> list[float]:
        """Give percentiles of the values counted, linear between order statistics as NumPy's."""
        positions = (self.n_nonzero - 1) * np.asarray(percents, np.float64) / 100
        below = self._order_statistics(np.floor(positions))
        above = self._order_statistics(np.ceil(positions))
        values = below + (above - below) * (positions - np.floor(positions))
        return [float(v) for v in values]

    def fraction_outside(self, low: float, high: float) -> float:
        """Give how much of the values counted lies below `low` or above `high`."""
        least, greatest = (edges + self.reference for edges in _edges(self.dtype))
        outside = self.counts[(greatest < low) | (least > high)]
        return int(outside.sum()) / max(1, self.n_nonzero)

    def _order_statistics(self, ranks: NDArray[np.float64]) -> NDArray[np.float64]:
        cumulated = np.cumsum(self.counts)
        patterns = np.searchsorted(cumulated, ranks, side="right")
        counts = self.counts[patterns]
        within = (ranks - cumulated[patterns] + counts + 0.5) / counts
        low, high = (edges[patterns] for edges in _edges(self.dtype))
        values = low + (high - low) * within + self.reference
        return np.clip(values, self.minimum, self.maximum)

    def to_json(self) -> dict[str, Any]:
        """Give the statistics of the volume, those of the valid region where that matters.

        Raises
        ------
        SourceError
            If not a single voxel is finite.
        """
        if not self.n_nonzero and not self.zeros:
            raise SourceError(
                f"none of the {self.nonfinite_voxels} voxels is finite: there is nothing to see"
            )
        valid = self.valid
        percentiles = valid.percentiles(PERCENTS)
        return {
            "minimum": min(self.minimum, 0.0) if self.zeros else self.minimum,
            "maximum": max(self.maximum, 0.0) if self.zeros else self.maximum,
            "mean": valid.mean,
            "standard_deviation": valid.standard_deviation,
            "percentiles": {f"{p:g}": v for p, v in zip(PERCENTS, percentiles, strict=True)},
            "nonfinite_voxels": self.nonfinite_voxels,
            "empty_voxels": self.empty_voxels,
        }


def _pieces(block: NDArray[Any]) -> list[NDArray[Any]]:
    """Give the block as views of at most some planes, rows or voxels each."""
    if block.size <= _PIECE_VOXELS:
        return [block]
    length = max(1, _PIECE_VOXELS * block.shape[0] // block.size)
    parts = (block[i : i + length] for i in range(0, block.shape[0], length))
    if length > 1 or block.ndim == 1:
        return list(parts)
    return [piece for part in parts for piece in _pieces(part[0])]


def _leading_bits(values: NDArray[Any], reference: float) -> NDArray[np.uint16]:
    """Give the leading 16 bits of each value, of its distance from the reference in float32."""
    if values.dtype == np.float32:
        with np.errstate(over="ignore", invalid="ignore"):
            distances = values - np.float32(reference)
        return distances.view(np.uint16)[1 if sys.byteorder == "little" else 0 :: 2]
    if values.dtype.itemsize == 2:
        return values.view(np.uint16)
    return values.astype(np.int16).view(np.uint16)


@compiled
def _scan(
    values: NDArray[Any], bits: NDArray[np.uint16], counts: NDArray[np.int64]
) -> tuple[int, int, float, float, float, float]:
    """Count the finite values other than 0 by their bits; give their number and the rest of them.

    Number, zeros, mean, sum of squared distances from the mean, minimum and maximum. Sums are of
    distances from the first value, so that a small deviation on a large mean is not lost.
    """
    n_nonzero = zeros = 0
    first = total = squares = 0.0
    minimum, maximum = np.inf, -np.inf
    for i in range(values.size):
        value = float(values[i])
        if value == 0.0:
            zeros += 1
        elif math.isfinite(value):
            if n_nonzero == 0:
                first = value
            n_nonzero += 1
            counts[bits[i]] += 1
            distance = value - first
            total += distance
            squares += distance * distance
            minimum = min(minimum, value)
            maximum = max(maximum, value)
    if n_nonzero == 0:
        return 0, zeros, 0.0, 0.0, minimum, maximum
    shift = total / n_nonzero
    return n_nonzero, zeros, first + shift, max(0.0, squares - total * shift), minimum, maximum


@lru_cache(maxsize=8)
def _bits_in_order(dtype: np.dtype[Any]) -> NDArray[np.uint16]:
    """Give the 65,536 patterns of 16 bits from the least to the greatest number."""
    bits = np.arange(_N_PATTERNS, dtype=np.uint16)
    if dtype.kind == "u":
        return bits
    negative, positive = bits[0x8000:], bits[:0x8000]
    return np.concatenate([negative if dtype.kind == "i" else negative[::-1], positive])


def _edges(dtype: np.dtype[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Give the least and the greatest value of each pattern; one and the same in exact types."""
    bits = _bits_in_order(dtype)
    if dtype == np.float32:
        first = bits.astype(np.uint32) << 16
        with np.errstate(invalid="ignore"):
            ends = [e.view(np.float32).astype(np.float64) for e in (first, first | 0xFFFF)]
        return np.nan_to_num(np.fmin(*ends)), np.nan_to_num(np.fmax(*ends))
    exact = {"u": np.uint16, "i": np.int16, "f": np.float16}[dtype.kind]
    values = bits.view(exact).astype(np.float64)
    return values, values
