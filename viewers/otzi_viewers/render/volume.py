"""The volume of a picture: class probabilities and density of a pyramid level, packed together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from otzi.box import Box
from otzi.errors import MemoryBudgetError
from otzi.events import Listener, ignore
from otzi.memory import format_bytes
from otzi.parallel import in_threads
from otzi_viewers.render.source import READERS, STRIP_VOXELS, VolumeSource, quantised, strips

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from otzi.box import Zyx
    from otzi.tomogram import Tomogram
    from otzi_viewers.render.transfer import Transfer

__all__ = [
    "READ_BYTES_PER_VOXEL",
    "Volume",
    "affordable_level",
    "halved",
    "is_affordable",
    "load_volume",
    "occluder",
    "occluder_part",
    "packed",
    "strip_bytes",
]

READ_BYTES_PER_VOXEL = 20
"""Arrays that are there at the same time while density is low-passed, scaled and packed."""


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
    data = np.empty((*source.shape, source.n_channels), source.dtype)

    def read(strip: Box) -> None:
        data[strip.slices] = source.read(strip)

    for _ in in_threads(read, strips(source.shape), "volume", "strips", listen, READERS):
        pass
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
    """Packed channels, twice if they do not fill whole lanes; the occluder; strips being read."""
    n_voxels = int(np.prod(shape))
    lanes = 0 if n_channels % 4 == 0 else -(-n_channels // 4) * 4
    packed_bytes = n_voxels * (n_channels + lanes) * itemsize
    return packed_bytes + n_voxels // 2 + strip_bytes(shape, n_channels, itemsize)


def strip_bytes(shape: Sequence[int], n_channels: int, itemsize: int) -> int:
    """Give what it takes to read a volume strip by strip."""
    depth, height, width = shape
    n_strips = -(-depth // STRIP_VOXELS) * -(-height // STRIP_VOXELS)
    voxels = min(STRIP_VOXELS, depth) * min(STRIP_VOXELS, height) * width
    each = n_channels * itemsize + READ_BYTES_PER_VOXEL
    return min(READERS, n_strips) * voxels * each


def occluder(volume: Volume, transfer: Transfer) -> NDArray[np.uint8]:
    """Give what stands in the light: ``min(Σ r_i, 1) · r_raw`` at half the resolution.

    ``(⌈z/2⌉, ⌈y/2⌉, ⌈x/2⌉)`` uint8, 255 being 1. With the density and without what is cut off,
    because only what is drawn may cast a shadow: inside a class that fills the volume, nothing else
    gives particles their shape.
    """
    whole = np.empty([-(-n // 2) for n in volume.shape], np.uint8)

    def fill(strip: Box) -> None:
        part = occluder_part(volume, volume.data[strip.slices], strip, transfer)
        whole[halved(strip).slices] = part

    for _ in in_threads(fill, strips(volume.shape), "occluder", "strips"):
        pass
    return whole


def halved(box: Box) -> Box:
    """Give the samples of the occluder that a box with even starts fills."""
    z, y, x = (a // 2 for a in box.start)
    last_z, last_y, last_x = (-(-b // 2) for b in box.stop)
    return Box((z, y, x), (last_z, last_y, last_x))


def occluder_part(
    volume: VolumeSource | Volume, data: NDArray[Any], box: Box, transfer: Transfer
) -> NDArray[np.uint8]:
    """Give the part of `occluder` that follows from the data of a box with even starts."""
    total: NDArray[np.float32] = np.zeros(box.shape, np.float32)
    for channel in range(data.shape[-1] - 1):
        mask = _ramped(data, channel, transfer)
        if transfer.clip[channel].any():
            mask[_cut_off(volume, transfer.clip[channel], box)] = 0
        total += mask
    np.minimum(total, 1, out=total)
    total *= _ramped(data, -1, transfer)
    even = np.pad(total, [(0, n % 2) for n in total.shape], mode="edge")
    # One axis after the other: the same bits whatever the box.
    pairs = even[::2] + even[1::2]
    rows = pairs[:, ::2] + pairs[:, 1::2]
    cells = rows[:, :, ::2] + rows[:, :, 1::2]
    return np.rint(cells * np.float32(255 / 8)).astype(np.uint8)


def _cut_off(
    volume: VolumeSource | Volume, plane: NDArray[np.float64], box: Box
) -> NDArray[np.bool_]:
    """Give which voxels of a box lie before a clip plane."""
    side = np.full(1, plane[3])
    for axis, (start, stop) in enumerate(zip(box.start, box.stop, strict=True)):
        centres = (np.arange(start, stop) + 0.5) * volume.spacing_voxels[axis]
        reach = plane[axis] * (centres - volume.extent_voxels[axis] / 2)
        side = side + np.expand_dims(reach, tuple(i for i in range(3) if i != axis))
    return np.broadcast_to(side < 0, box.shape)


def _ramped(data: NDArray[Any], channel: int, transfer: Transfer) -> NDArray[np.float32]:
    values = data[..., channel] * np.float32(transfer.value_scale)
    values -= np.float32(transfer.low[channel])
    values *= np.float32(transfer.inverse_span[channel])
    return np.clip(values, 0, 1, out=values)
