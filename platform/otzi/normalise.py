"""One normalisation for a whole volume: clipped, shifted and scaled.

Never per tile or chunk: what depends on the tile shows as seams.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from otzi.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from xarray import DataArray

__all__ = ["MIN_MAX", "ROBUST", "Normalisation"]

ROBUST = "whole volume: clipped to its percentiles 0.1 and 99.9, zero mean, unit deviation"
"""The normalisation that our own networks are trained on."""

MIN_MAX = "min–max of the volume to [0, 1]"
"""The one of the published networks."""


@dataclass(frozen=True, slots=True)
class Normalisation:
    """The linear map that brings a volume to the range that a network expects."""

    offset: float
    """What becomes 0, in the units of the data."""
    scale: float
    """What becomes 1 above that, in the units of the data."""
    low: float
    """Values below are clipped: gold and dust would otherwise rule the contrast."""
    high: float
    """Values above are clipped."""

    @classmethod
    def from_statistics(cls, statistics: Mapping[str, Any], way: str = ROBUST) -> Normalisation:
        """Give the normalisation that the statistics of a product imply.

        Raises
        ------
        ConfigurationError
            If `way` is neither `ROBUST` nor `MIN_MAX`.
        """
        if way == MIN_MAX:
            low, high = float(statistics["minimum"]), float(statistics["maximum"])
            return cls(offset=low, scale=high - low, low=low, high=high)
        if way != ROBUST:
            raise ConfigurationError(f"normalisation {way!r}: choose {ROBUST!r} or {MIN_MAX!r}")
        percentiles = statistics["percentiles"]
        return cls(
            offset=float(statistics["mean"]),
            scale=float(statistics["standard_deviation"]),
            low=float(percentiles["0.1"]),
            high=float(percentiles["99.9"]),
        )

    @classmethod
    def of(cls, raw: DataArray, way: str = ROBUST) -> Normalisation:
        """Give the normalisation of a lazy ``(z, y, x)`` volume from its ``statistics`` attribute.

        Raises
        ------
        ConfigurationError
            If the volume carries no statistics: a tomogram's ``raw`` does. If there is no such
            `way`.
        """
        if "statistics" not in raw.attrs:
            raise ConfigurationError(
                "the volume carries no statistics: take tomo.raw, or pass a Normalisation"
            )
        return cls.from_statistics(raw.attrs["statistics"], way)

    @classmethod
    def from_array(cls, volume: NDArray[Any]) -> Normalisation:
        """Give the `ROBUST` normalisation of a volume in memory, from its finite voxels."""
        finite = volume[np.isfinite(volume)].astype(np.float64)
        if not finite.size:
            raise ConfigurationError("the volume has no finite voxel: nothing to normalise by")
        low, high = np.percentile(finite, (0.1, 99.9))
        return cls(float(finite.mean()), float(finite.std()), float(low), float(high))

    def __call__(self, volume: NDArray[Any]) -> NDArray[np.float32]:
        """Give the normalised volume: any shape, float32; what is not finite becomes 0."""
        values = volume.astype(np.float32)
        np.clip(values, np.float32(self.low), np.float32(self.high), out=values)
        values -= np.float32(self.offset)
        values /= np.float32(self.scale or 1.0)
        return np.nan_to_num(values, copy=False, nan=0.0)
