"""The volume of a picture: class probabilities and density of a pyramid level, packed together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from otzi.box import Box
from otzi.errors import MemoryBudgetError
from otzi.events import Listener, ignore, step
from otzi.memory import format_bytes
from otzi_viewers.render.source import SLAB_VOXELS, VolumeSource, quantised

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from otzi.box import Zyx
    from otzi.tomogram import Tomogram
    from otzi_viewers.render.transfer import Transfer

__all__ = [
    "Volume",
    "affordable_level",
    "is_affordable",
    "load_volume",
    "occluder",
    "occluder_slab",
    "packed",
]


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
    def shape(self) -> Zyx:
        """Of the level, in voxels."""
        depth, height, width, _ = self.data.shape
        return depth, height, width

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
        data[..., channel] = quantised(values, dtype)
    data[..., -1] = quantised(density, dtype)
    spacing = np.asarray(spacing_angstrom, np.float64)
    relative = spacing / spacing.min()
    return Volume(data, relative, relative * density.shape, float(spacing.min()))


def load_volume(source: VolumeSource, listen: Listener = ignore) -> Volume:
    """Give the whole of a source in memory."""
    depth, height, width = source.shape
    data = np.empty((*source.shape, source.n_channels), source.dtype)
    with step(listen, "volume", depth, "planes") as work:
        for z in range(0, depth, SLAB_VOXELS):
            box = Box((z, 0, 0), (min(z + SLAB_VOXELS, depth), height, width))
            data[z : box.stop[0]] = source.read(box)
            work.advance(box.shape[0])
    return Volume(
        data=data,
        spacing_voxels=source.spacing_voxels,
        extent_voxels=source.extent_voxels,
        voxel_angstrom=source.voxel_angstrom,
        level=source.level,
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
        need = _needed_bytes(raw.shape, n_classes + 1, itemsize)
        if need <= memory_bytes:
            return level
    raise MemoryBudgetError(
        f"the coarsest level of {tomo.id} needs {format_bytes(need)}, {format_bytes(memory_bytes)} "
        "are allowed: allow more with --memory"
    )


def is_affordable(source: VolumeSource, memory_bytes: int) -> bool:
    """Tell whether the whole of a source can be loaded within `memory_bytes`."""
    itemsize = np.dtype(source.dtype).itemsize
    return _needed_bytes(source.shape, source.n_channels, itemsize) <= memory_bytes


def _needed_bytes(shape: Sequence[int], n_channels: int, itemsize: int) -> int:
    """Packed channels, twice if they do not fill whole lanes, and a slab of density as floats."""
    n_voxels = int(np.prod(shape))
    lanes = 0 if n_channels % 4 == 0 else -(-n_channels // 4) * 4
    slab = SLAB_VOXELS * n_voxels // shape[0] * 20
    return n_voxels * (n_channels + lanes) * itemsize + n_voxels // 2 + min(slab, 20 * n_voxels)


def occluder(volume: Volume, transfer: Transfer) -> NDArray[np.uint8]:
    """Give what stands in the light: ``min(Σ r_i, 1) · r_raw`` at half the resolution.

    ``(⌈z/2⌉, ⌈y/2⌉, ⌈x/2⌉)`` uint8, 255 being 1. With the density and without what is cut off,
    because only what is drawn may cast a shadow: inside a class that fills the volume, nothing else
    gives particles their shape.
    """
    depth = len(volume.data)
    slabs = (volume.data[z : z + SLAB_VOXELS] for z in range(0, depth, SLAB_VOXELS))
    return np.concatenate(
        [occluder_slab(volume, slab, n * SLAB_VOXELS, transfer) for n, slab in enumerate(slabs)]
    )


def occluder_slab(
    box: VolumeSource | Volume, slab: NDArray[Any], first: int, transfer: Transfer
) -> NDArray[np.uint8]:
    """Give the part of `occluder` of a slab of data that begins at plane `first`, an even one."""
    total: NDArray[np.float32] = np.zeros(slab.shape[:-1], np.float32)
    for channel in range(slab.shape[-1] - 1):
        mask = _ramped(slab, channel, transfer)
        if transfer.clip[channel].any():
            mask[_cut_off(box, transfer.clip[channel], first, slab.shape)] = 0
        total += mask
    np.minimum(total, 1, out=total)
    total *= _ramped(slab, -1, transfer)
    even = np.pad(total, [(0, n % 2) for n in total.shape], mode="edge")
    z, y, x = (n // 2 for n in even.shape)
    mean: NDArray[np.float32] = even.reshape(z, 2, y, 2, x, 2).mean(axis=(1, 3, 5))
    return np.rint(mean * 255).astype(np.uint8)


def _cut_off(
    volume: VolumeSource | Volume, plane: NDArray[np.float64], first: int, shape: tuple[int, ...]
) -> NDArray[np.bool_]:
    """Give which voxels of a slab that begins at plane `first` lie before a clip plane."""
    starts, lengths = (first, 0, 0), shape[:3]
    side = np.full(1, plane[3])
    for axis, (start, length) in enumerate(zip(starts, lengths, strict=True)):
        centres = (np.arange(start, start + length) + 0.5) * volume.spacing_voxels[axis]
        reach = plane[axis] * (centres - volume.extent_voxels[axis] / 2)
        side = side + np.expand_dims(reach, tuple(i for i in range(3) if i != axis))
    return np.broadcast_to(side < 0, lengths)


def _ramped(data: NDArray[Any], channel: int, transfer: Transfer) -> NDArray[np.float32]:
    values = data[..., channel] * np.float32(transfer.value_scale)
    values -= np.float32(transfer.low[channel])
    values *= np.float32(transfer.inverse_span[channel])
    return np.clip(values, 0, 1, out=values)
