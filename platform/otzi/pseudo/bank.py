"""The feature bank: ilastik's 37 features of a volume, 61 channels, exactly as it ships them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from math import prod
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from otzi.box import Box, Zyx
from otzi.errors import UsageError
from otzi.pseudo.scale import (
    DIFFERENCE,
    GRADIENT,
    HESSIAN,
    LAPLACIAN,
    SMOOTHING,
    STRUCTURE,
    Scale,
    new_buffer,
    new_scratch,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

__all__ = ["FEATURES", "SCALES", "FeatureBank"]

SCALES = (0.3, 0.7, 1.0, 1.6, 3.5, 5.0, 10.0)
FEATURES = (SMOOTHING, LAPLACIAN, GRADIENT, DIFFERENCE, STRUCTURE, HESSIAN)
_TENSOR_FEATURES = (STRUCTURE, HESSIAN)
_SMALLEST_SCALE_OF_ALL = 0.7
_SLAB_PLANES = 16


@dataclass(frozen=True)
class FeatureBank:
    """A choice of features and scales; all of ilastik's by default.

    Raises
    ------
    UsageError
        For a feature or a scale that there is not, or none at all.
    """

    scales: tuple[float, ...] = SCALES
    """In voxels; 0.3 has Gaussian smoothing only."""
    features: tuple[str, ...] = FEATURES
    """Kinds, in the order of `FEATURES`."""
    structure_tensor: Literal["shipped", "vigra"] = "shipped"
    """``shipped``: inner and outer scale swapped, as ilastik does; ``vigra``: as they are named."""

    def __post_init__(self) -> None:
        if not set(self.features) <= set(FEATURES) or not self.features:
            raise UsageError(
                f"features {', '.join(self.features) or 'none'}: choose from {', '.join(FEATURES)}"
            )
        if not set(self.scales) <= set(SCALES) or not self.scales:
            chosen = ", ".join(f"{scale:g}" for scale in self.scales) or "none"
            raise UsageError(f"scales {chosen}: choose from {', '.join(map(str, SCALES))}")
        if self.structure_tensor not in ("shipped", "vigra"):
            raise UsageError(f"structure tensor {self.structure_tensor!r}: shipped or vigra")
        # In one order, and tuples whatever was given: equal banks are equal and hash alike.
        object.__setattr__(self, "scales", tuple(s for s in SCALES if s in self.scales))
        object.__setattr__(self, "features", tuple(f for f in FEATURES if f in self.features))
        if not self.names:
            raise UsageError("scale 0.3 has Gaussian smoothing only: add it or a larger scale")

    @property
    def names(self) -> tuple[str, ...]:
        """Channel names: by feature, then scale, then eigenvalue, the largest first."""
        return tuple(
            f"{feature}_{scale:g}" + (f"_{i}" if feature in _TENSOR_FEATURES else "")
            for feature, scale in self._pairs
            for i in range(_n_channels(feature))
        )

    @property
    def origins(self) -> tuple[tuple[str, float], ...]:
        """Feature and scale of each channel, in the order of `names`."""
        return tuple(pair for pair in self._pairs for _ in range(_n_channels(pair[0])))

    @property
    def halo_voxels(self) -> int:
        """How far a channel sees."""
        return max(self._scale(scale).halo_voxels(feature) for feature, scale in self._pairs)

    def to_json(self) -> dict[str, Any]:
        """Give the bank as plain JSON; `FeatureBank(**…)` of it is the same bank."""
        return {
            "scales": list(self.scales),
            "features": list(self.features),
            "structure_tensor": self.structure_tensor,
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> FeatureBank:
        """Give the bank that `to_json` wrote."""
        tensor = document["structure_tensor"]
        return cls(tuple(document["scales"]), tuple(document["features"]), tensor)

    def check(self, shape: Zyx) -> None:
        """Check that a volume is thick enough for every scale.

        Raises
        ------
        UsageError
            If it is not; the message names the smallest scale that it is too thin for.
        """
        for scale in self._used_scales:
            if scale.needed_voxels > min(shape):
                raise UsageError(
                    f"scale {scale.scale:g} needs {scale.needed_voxels} voxels on every axis, the "
                    f"volume has {' × '.join(map(str, shape))}: leave out the scales from "
                    f"{scale.scale:g}"
                )

    def compute(self, volume: NDArray[Any]) -> NDArray[np.float32]:
        """Give all channels of a volume in memory: ``(channel, z, y, x)`` float32.

        `volume` is ``(z, y, x)`` of any real dtype.

        Raises
        ------
        UsageError
            If it is too thin for a scale.
        """
        z, y, x = volume.shape
        self.check((z, y, x))
        whole = Box.whole((z, y, x))
        channels = np.empty((len(self.names), z, y, x), np.float32)
        for slab, part in self.slabs(volume, whole, whole):
            channels[(slice(None), *slab.slices)] = part
        return channels

    def slabs(
        self, volume: NDArray[Any], held: Box, inner: Box, planes: int = _SLAB_PLANES
    ) -> Iterator[tuple[Box, NDArray[np.float32]]]:
        """Yield all channels of `inner`, some planes at a time: the box and ``(channel, z, y, x)``.

        `volume` holds the box `held` of the tomogram: `inner` and a halo of `halo_voxels`, cut at
        the tomogram's faces. Only the smoothed images of `inner` and one slab of channels are in
        memory: the array is written again for the next slab.
        """
        volume = np.require(volume, np.float32, ["C", "A", "W"])
        scales = self._used_scales
        buffer = new_buffer(volume, inner)
        images = [scale.presmooth(volume, held, inner, buffer) for scale in scales]
        del volume, buffer
        firsts = [self._first_channels(scale.scale) for scale in scales]
        scratch = new_scratch()
        most = len(self.names), min(planes, inner.shape[0]), *inner.shape[1:]
        memory = np.empty(prod(most), np.float32)
        for z in range(inner.start[0], inner.stop[0], planes):
            slab = Box((z, *inner.start[1:]), (z + planes, *inner.stop[1:])).intersect(inner)
            shape = len(self.names), *slab.shape
            channels = memory[: prod(shape)].reshape(shape)
            for scale, image, first in zip(scales, images, firsts, strict=True):
                scale.filter(image, held, inner, slab, first, scratch, channels)
            yield slab, channels

    @property
    def _pairs(self) -> tuple[tuple[str, float], ...]:
        """Feature and scale of each of up to 37 features."""
        return tuple(
            (feature, scale)
            for feature, scale in product(self.features, self.scales)
            if feature == SMOOTHING or scale >= _SMALLEST_SCALE_OF_ALL
        )

    @property
    def _used_scales(self) -> list[Scale]:
        return [self._scale(s) for s in sorted({s for _, s in self._pairs})]

    def _scale(self, scale: float) -> Scale:
        return Scale(scale, swapped=self.structure_tensor == "shipped")

    def _first_channels(self, scale: float) -> dict[str, int]:
        """Give where the channels of each feature of a scale begin."""
        first, firsts = 0, {}
        for feature, s in self._pairs:
            if s == scale:
                firsts[feature] = first
            first += _n_channels(feature)
        return firsts


def _n_channels(feature: str) -> int:
    return 3 if feature in _TENSOR_FEATURES else 1
