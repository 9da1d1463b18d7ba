"""The volume of a picture: class probabilities and density of a pyramid level, packed together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from otzi.errors import ConfigurationError, MemoryBudgetError
from otzi.events import Listener, ignore, step
from otzi.memory import format_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from otzi.tomogram import Tomogram
    from otzi_viewers.render.scene import Density
    from otzi_viewers.render.transfer import Transfer

__all__ = ["Volume", "affordable_level", "load_volume", "normalised_density", "occluder", "packed"]

_SLAB_VOXELS = 64
_LOW_PASS_VOXELS = 3


@dataclass(frozen=True)
class Volume:
    """What rays go through.  World lengths are in voxels: the finest spacing of level 0."""

    data: NDArray[Any]
    """``(z, y, x, c + 1)`` uint8 or uint16: class probabilities, then density; full range is 1."""
    spacing_voxels: NDArray[np.float64]
    """``(3,)``: spacing of `data`."""
    extent_voxels: NDArray[np.float64]
    """``(3,)``: the box of level 0; pyramids drop odd last voxels, the box does not."""
    voxel_angstrom: float
    """The unit of world lengths."""
    level: int = 0

    @property
    def value_scale(self) -> float:
        """What stored values are multiplied by to lie in [0, 1]."""
        return 1 / float(np.iinfo(self.data.dtype).max)


def packed(
    probabilities: NDArray[Any],
    density: NDArray[np.float32],
    spacing_angstrom: Sequence[float] = (1.0, 1.0, 1.0),
) -> Volume:
    """Give the volume of arrays in memory: ``(c, z, y, x)`` and ``(z, y, x)`` in [0, 1].

    Stored with 8 bits where the probabilities are uint8, otherwise with 16.
    """
    dtype = np.uint8 if probabilities.dtype == np.uint8 else np.uint16
    data = np.empty((*density.shape, len(probabilities) + 1), dtype)
    for channel, values in enumerate(probabilities):
        data[..., channel] = _quantised(values, dtype)
    data[..., -1] = _quantised(density, dtype)
    spacing = np.asarray(spacing_angstrom, np.float64)
    relative = spacing / spacing.min()
    return Volume(data, relative, relative * density.shape, float(spacing.min()))


def load_volume(
    tomo: Tomogram,
    probs: str,
    classes: Sequence[str],
    density: Density,
    level: int = 0,
    listen: Listener = ignore,
) -> Volume:
    """Give a level of a tomogram with these classes, in this order.

    Raises
    ------
    ConfigurationError
        If the probabilities are of another shape than the tomogram.
    """
    product = f"probs/{probs}"
    channels = tomo.image(product).channels or ()
    stored = tomo.array(product, level)
    raw = tomo.array("raw", level)
    if stored.shape[1:] != raw.shape:
        raise ConfigurationError(
            f"{product} of {tomo.id} is {stored.shape[1:]}, raw is {raw.shape}: segment it again"
        )
    dtype = np.uint8 if stored.dtype == np.uint8 else np.uint16
    data = np.empty((*raw.shape, len(classes) + 1), dtype)
    with step(listen, "volume", len(classes) + 1, "channels") as work:
        for target, name in enumerate(classes):
            for z in range(0, raw.shape[0], _SLAB_VOXELS):
                slab = slice(z, z + _SLAB_VOXELS)
                data[slab, ..., target] = _quantised(stored[channels.index(name), slab], dtype)
            work.advance()
        smoothing = 0 if level else density.smoothing
        modulation = normalised_density(raw[...], density, smoothing)
        for z in range(0, raw.shape[0], _SLAB_VOXELS):
            slab = slice(z, z + _SLAB_VOXELS)
            data[slab, ..., -1] = _quantised(modulation[slab], dtype)
        work.advance()
    spacing = np.asarray(tomo.spacing_angstrom)
    finest = spacing.min()
    return Volume(
        data=data,
        spacing_voxels=spacing / finest * 2**level,
        extent_voxels=spacing / finest * tomo.shape,
        voxel_angstrom=float(finest),
        level=level,
    )


def affordable_level(tomo: Tomogram, probs: str, n_classes: int, memory_bytes: int) -> int:
    """Give the finest level that can be packed within `memory_bytes`.

    Raises
    ------
    MemoryBudgetError
        If not even the coarsest can.
    """
    product = f"probs/{probs}"
    n_levels = min(tomo.image(name).n_levels for name in (product, "raw"))
    for level in range(n_levels):
        raw, stored = tomo.array("raw", level), tomo.array(product, level)
        itemsize = 1 if stored.dtype == np.uint8 else 2
        # Packed channels; the density as stored and, while percentiles are taken, as two floats.
        per_voxel = (n_classes + 1) * itemsize + raw.dtype.itemsize + 8
        need = per_voxel * int(np.prod(raw.shape))
        if need <= memory_bytes:
            return level
    raise MemoryBudgetError(
        f"the coarsest level of {tomo.id} needs {format_bytes(need)}, {format_bytes(memory_bytes)} "
        "are allowed: allow more with --memory"
    )


def normalised_density(
    raw: NDArray[Any], density: Density, smoothing: int = 1
) -> NDArray[np.float32]:
    """Give the density as it modulates opacity: ``(z, y, x)`` float32 in [0, 1], matter near 1.

    The mean over 3³ voxels, `smoothing` times (levels above 0 are means already), then the window
    between two percentiles, inverted where matter is dark. What is not finite becomes the mean.
    """
    values = raw.astype(np.float32)
    missing = ~np.isfinite(values)
    if missing.any():
        values[missing] = 0 if missing.all() else values[~missing].mean(dtype=np.float64)
    for _ in range(smoothing):
        ndimage.uniform_filter(values, _LOW_PASS_VOXELS, output=values, mode="nearest")
    low, high = np.percentile(values, density.window)
    if density.invert:
        low, high = high, low
    values -= np.float32(low)
    values /= np.float32(high - low) or np.float32(1)
    return np.clip(values, 0, 1, out=values)


def occluder(data: NDArray[Any], transfer: Transfer) -> NDArray[np.uint8]:
    """Give what stands in the light: ``min(Σ r_i, 1) · r_raw`` at half the resolution.

    ``(⌈z/2⌉, ⌈y/2⌉, ⌈x/2⌉)`` uint8, 255 being 1. With the density, because only what is drawn may
    cast a shadow: inside a class that fills the volume, nothing else gives particles their shape.
    """
    depth, height, width, _ = data.shape
    halves = tuple((n + 1) // 2 for n in (depth, height, width))
    result = np.empty(halves, np.uint8)
    for start in range(0, halves[0], _SLAB_VOXELS // 2):
        slab = data[2 * start : 2 * start + _SLAB_VOXELS]
        total: NDArray[np.float32] = np.zeros(slab.shape[:-1], np.float32)
        for channel in range(data.shape[-1] - 1):
            total += _ramped(slab, channel, transfer)
        np.minimum(total, 1, out=total)
        total *= _ramped(slab, -1, transfer)
        even = np.pad(total, [(0, n % 2) for n in total.shape], mode="edge")
        z, y, x = (n // 2 for n in even.shape)
        mean = even.reshape(z, 2, y, 2, x, 2).mean(axis=(1, 3, 5))
        result[start : start + z] = np.rint(mean * 255)
    return result


def _ramped(data: NDArray[Any], channel: int, transfer: Transfer) -> NDArray[np.float32]:
    values = data[..., channel] * np.float32(transfer.value_scale)
    values -= np.float32(transfer.low[channel])
    values *= np.float32(transfer.inverse_span[channel])
    return np.clip(values, 0, 1, out=values)


def _quantised(values: NDArray[Any], dtype: type[np.uint8 | np.uint16]) -> NDArray[Any]:
    if values.dtype == dtype:
        return values
    largest = np.float32(np.iinfo(dtype).max)
    codes: NDArray[Any] = np.rint(np.clip(values, 0, 1).astype(np.float32) * largest)
    return codes.astype(dtype)
