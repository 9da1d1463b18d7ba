"""A level of a tomogram as rays go through it, any box of it at a time."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from otzi.box import Box, tile
from otzi.errors import ConfigurationError
from otzi.events import Listener, ignore, step
from otzi.parallel import in_threads
from otzi.store.derived import derived
from otzi_viewers.render.bricks import (
    BRICK_VOXELS,
    plane_maxima,
    row_maxima,
    stacked_maxima,
)
from otzi_viewers.render.density import density_window, finite, low_passed, modulation

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from otzi.box import Zyx
    from otzi.store.reader import LevelArray
    from otzi.tomogram import Tomogram
    from otzi_viewers.render.scene import Density

__all__ = ["READERS", "STRIP_VOXELS", "VolumeSource", "quantised", "strips", "world_extent"]

READERS = 2
"""Threads that read: more would need more memory."""
STRIP_VOXELS = 64
"""Planes, and rows of each, that are worked on at once: whole chunks."""
_RULES = 1
"""Raised whenever the same content gives other derived values."""


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
    cache_bytes: int = 0
    """Of decoded chunks that are kept for boxes that overlap."""

    def __post_init__(self) -> None:
        if self._probabilities.shape[1:] != self._raw.shape:
            raise ConfigurationError(
                f"probs/{self.probs} of {self.tomo.id} is {self._probabilities.shape[1:]}, raw is "
                f"{self._raw.shape}: segment it again"
            )

    @cached_property
    def _raw(self) -> LevelArray:
        return self.tomo.array("raw", self.level, self.cache_bytes // 2)

    @cached_property
    def _probabilities(self) -> LevelArray:
        return self.tomo.array(f"probs/{self.probs}", self.level, self.cache_bytes // 2)

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
        return world_extent(self.tomo)

    @property
    def voxel_angstrom(self) -> float:
        """The unit of world lengths."""
        return float(min(self.tomo.spacing_angstrom))

    def read(self, box: Box) -> NDArray[Any]:
        """Give the ``(z, y, x, channel)`` data of a box, the same whatever boxes are read."""
        data = np.empty((*box.shape, self.n_channels), self.dtype)
        for target, channel in enumerate(self._channels):
            data[..., target] = quantised(self._probabilities[(channel, *box.slices)], self.dtype)
        smooth = self._smooth(box, self._fill)
        data[..., -1] = quantised(
            modulation(smooth, self._window, invert=self.density.invert), self.dtype
        )
        return data

    def brick_maxima(self, listen: Listener = ignore) -> NDArray[Any]:
        """Give `otzi_viewers.render.bricks.brick_maxima` of the whole; computed once for all.

        They depend on no ramp and lie beside the probabilities, see `otzi.store.derived`.
        """
        digests = [self.tomo.digest(name) for name in (f"probs/{self.probs}", "raw")]
        name = f"bricks-{self.level}-{_key(digests[1], self.classes, self._unramped)}"
        folder = self.tomo.folder / "probs" / self.probs
        kept = derived(folder, digests[0], name, lambda: {"maxima": self._new_maxima(listen)})
        return kept["maxima"]

    def _new_maxima(self, listen: Listener) -> NDArray[Any]:
        depth, height, width = self.shape
        planes = []
        with step(listen, "occupancy", depth, "planes") as work:
            for z in range(0, depth, STRIP_VOXELS):
                slab = Box((z, 0, 0), (min(z + STRIP_VOXELS, depth), height, width))
                planes.append(self._slab_maxima(slab))
                work.advance(slab.shape[0])
        return stacked_maxima(np.concatenate(planes))

    def _slab_maxima(self, slab: Box) -> NDArray[Any]:
        z, y, x = slab.shape
        rows = np.empty((z, y, -(-x // BRICK_VOXELS), self.n_channels), self.dtype)

        def reduce(strip: Box) -> None:
            rows[:, strip.slices[1]] = row_maxima(self.read(strip.shift((slab.start[0], 0, 0))))

        for _ in in_threads(reduce, strips(slab.shape), "", "", n_threads=READERS):
            pass
        return plane_maxima(rows)

    @property
    def _unramped(self) -> dict[str, Any]:
        """What of the density's settings decides what is read."""
        settings = asdict(self.density)
        return {key: settings[key] for key in ("invert", "smoothing", "window")}

    @property
    def _smoothing(self) -> int:
        # Levels above 0 are means already.
        return 0 if self.level else self.density.smoothing

    def _smooth(self, box: Box, fill: float) -> NDArray[np.float32]:
        held = box.grow(self._smoothing).clip(self.shape)
        smooth = low_passed(finite(self._raw[held.slices], fill), self._smoothing)
        return smooth[box.within(held)]

    @property
    def _fill(self) -> float:
        """What stands for voxels that are not finite: the mean of the others."""
        return float(self._range["fill"])

    @property
    def _window(self) -> tuple[float, float]:
        low, high = self._range["window"]
        return float(low), float(high)

    @cached_property
    def _range(self) -> dict[str, NDArray[np.float64]]:
        name = f"density-{self.level}-{_key(self._unramped)}"
        return derived(self.tomo.folder / "raw", self.tomo.digest("raw"), name, self._new_range)

    def _new_range(self) -> dict[str, NDArray[np.float64]]:
        """Give mean and window of the density, from two passes."""
        low, high, total, count = np.inf, -np.inf, 0.0, 0
        for strip in strips(self.shape):
            values = self._raw[strip.slices]
            values = values[np.isfinite(values)]
            if values.size:
                low, high = min(low, float(values.min())), max(high, float(values.max()))
                total += float(values.sum(dtype=np.float64))
                count += values.size
        if not count:
            return {"fill": np.zeros(()), "window": np.zeros(2)}
        fill = total / count
        smooth = (self._smooth(strip, fill) for strip in strips(self.shape))
        window = density_window(smooth, (low, high), self.density)
        return {"fill": np.array(fill), "window": np.array(window)}


def world_extent(tomo: Tomogram) -> NDArray[np.float64]:
    """Give the box of level 0 in its finest voxel spacing, ``(3,)``."""
    spacing = np.asarray(tomo.spacing_angstrom)
    box: NDArray[np.float64] = spacing / spacing.min() * tomo.shape
    return box


def strips(shape: Zyx) -> list[Box]:
    """Give boxes of whole rows that hold every voxel of a volume of this shape exactly once."""
    return list(tile(shape, (STRIP_VOXELS, STRIP_VOXELS, shape[2])))


def _key(*what: Any) -> str:
    text = json.dumps([_RULES, *what], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def quantised(values: NDArray[Any], dtype: type[np.uint8 | np.uint16]) -> NDArray[Any]:
    """Give values as codes: those in [0, 1] scaled to the full range, codes as they are."""
    if values.dtype == dtype:
        return values
    largest = np.float32(np.iinfo(dtype).max)
    codes: NDArray[Any] = np.rint(np.clip(values, 0, 1).astype(np.float32) * largest)
    return codes.astype(dtype)
