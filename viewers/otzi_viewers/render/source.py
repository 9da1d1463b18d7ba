"""A level of a tomogram as rays go through it, any box of it at a time."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from otzi.box import Box
from otzi.errors import ConfigurationError
from otzi_viewers.render.density import density_window, finite, low_passed, modulation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from otzi.box import Zyx
    from otzi.store.reader import LevelArray
    from otzi.tomogram import Tomogram
    from otzi_viewers.render.scene import Density

__all__ = ["SLAB_VOXELS", "VolumeSource", "quantised"]

SLAB_VOXELS = 64
"""Planes that are worked on at once."""


@dataclass(frozen=True)
class VolumeSource:
    """Class probabilities, in the scene's order, and then the density.

    Raises
    ------
    ConfigurationError
        If the probabilities are of another shape than the tomogram.
    """

    tomo: Tomogram
    probs: str
    classes: tuple[str, ...]
    density: Density
    level: int = 0

    def __post_init__(self) -> None:
        if self._probabilities.shape[1:] != self._raw.shape:
            raise ConfigurationError(
                f"probs/{self.probs} of {self.tomo.id} is {self._probabilities.shape[1:]}, raw is "
                f"{self._raw.shape}: segment it again"
            )

    @cached_property
    def _raw(self) -> LevelArray:
        return self.tomo.array("raw", self.level)

    @cached_property
    def _probabilities(self) -> LevelArray:
        return self.tomo.array(f"probs/{self.probs}", self.level)

    @cached_property
    def _channels(self) -> tuple[int, ...]:
        known = self.tomo.image(f"probs/{self.probs}").channels or ()
        return tuple(known.index(name) for name in self.classes)

    @property
    def shape(self) -> Zyx:
        """Of the level."""
        depth, height, width = self._raw.shape
        return depth, height, width

    @property
    def n_channels(self) -> int:
        """Classes and the density."""
        return len(self.classes) + 1

    @property
    def dtype(self) -> type[np.uint8 | np.uint16]:
        """Of what is read: 8 bits where the probabilities have as many, otherwise 16."""
        return np.uint8 if self._probabilities.dtype == np.uint8 else np.uint16

    @property
    def value_scale(self) -> float:
        """What stored values are multiplied by to lie in [0, 1]."""
        return 1 / float(np.iinfo(self.dtype).max)

    @property
    def spacing_voxels(self) -> NDArray[np.float64]:
        """``(3,)``: in voxels, the finest spacing of level 0."""
        spacing = np.asarray(self.tomo.spacing_angstrom)
        coarser: NDArray[np.float64] = spacing / spacing.min() * 2**self.level
        return coarser

    @property
    def extent_voxels(self) -> NDArray[np.float64]:
        """``(3,)``: the box of level 0."""
        spacing = np.asarray(self.tomo.spacing_angstrom)
        box: NDArray[np.float64] = spacing / spacing.min() * self.tomo.shape
        return box

    @property
    def voxel_angstrom(self) -> float:
        """The unit of world lengths."""
        return float(min(self.tomo.spacing_angstrom))

    def read(self, box: Box) -> NDArray[Any]:
        """Give the ``(z, y, x, channel)`` data of a box, the same whatever boxes are read."""
        data = np.empty((*box.shape, self.n_channels), self.dtype)
        for target, channel in enumerate(self._channels):
            data[..., target] = quantised(self._probabilities[(channel, *box.slices)], self.dtype)
        smooth = self._smooth(box)
        data[..., -1] = quantised(
            modulation(smooth, self._window, invert=self.density.invert), self.dtype
        )
        return data

    @property
    def _smoothing(self) -> int:
        # Levels above 0 are means already.
        return 0 if self.level else self.density.smoothing

    def _smooth(self, box: Box) -> NDArray[np.float32]:
        held = box.grow(self._smoothing).clip(self.shape)
        smooth = low_passed(finite(self._raw[held.slices], self._statistics[0]), self._smoothing)
        return smooth[box.within(held)]

    @cached_property
    def _statistics(self) -> tuple[float, float, float]:
        """Mean, smallest and largest value of the level that are finite, from one pass."""
        low, high, total, count = np.inf, -np.inf, 0.0, 0
        for slab in self._slabs():
            values = self._raw[slab.slices]
            values = values[np.isfinite(values)]
            if values.size:
                low, high = min(low, float(values.min())), max(high, float(values.max()))
                total += float(values.sum(dtype=np.float64))
                count += values.size
        if not count:
            return 0.0, 0.0, 0.0
        return total / count, low, high

    @cached_property
    def _window(self) -> tuple[float, float]:
        _, low, high = self._statistics
        return density_window(map(self._smooth, self._slabs()), (low, high), self.density)

    def _slabs(self) -> Iterator[Box]:
        depth, height, width = self.shape
        for z in range(0, depth, SLAB_VOXELS):
            yield Box((z, 0, 0), (min(z + SLAB_VOXELS, depth), height, width))


def quantised(values: NDArray[Any], dtype: type[np.uint8 | np.uint16]) -> NDArray[Any]:
    """Give values as codes: those in [0, 1] scaled to the full range, codes as they are."""
    if values.dtype == dtype:
        return values
    largest = np.float32(np.iinfo(dtype).max)
    codes: NDArray[Any] = np.rint(np.clip(values, 0, 1).astype(np.float32) * largest)
    return codes.astype(dtype)
