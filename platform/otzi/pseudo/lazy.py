"""Features and pseudo-labels block by block: as lazy arrays, and as the function of one block.

A block is one task that reads itself and its halo, cut at the faces of the volume; the bank mirrors
there. So a slice costs its blocks, and the result does not depend on how the volume is cut. The
channels of a block for labels exist only a few planes at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from itertools import accumulate, pairwise, product
from math import prod
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import xarray as xr
from dask.delayed import delayed

from otzi.box import Box, Zyx
from otzi.errors import UsageError
from otzi.networks.weights import require_torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from otzi.networks.weights import Device
    from otzi.pseudo.bank import FeatureBank
    from otzi.pseudo.forest import EarlyExit, StrokeForest

__all__ = [
    "LabelBlock",
    "block_labeller",
    "block_memory_bytes",
    "features",
    "label_block",
    "pseudo_labels",
    "slab_planes",
]

_BLOCK_VOXELS = 128
_SLAB_BYTES = 32 * 10**6
_FEWEST_PLANES, _MOST_PLANES = 4, 16
_MARGIN_VOXELS = 3
"""What the bank keeps of the smoothed images beside a block, at most."""


def features(raw: xr.DataArray, bank: FeatureBank) -> xr.DataArray:
    """Give all channels of a volume, lazily: slice it, look at it, compute a part.

    A chunk has all channels, with all of ilastik's 61 times 4 bytes for each of its voxels: take a
    smaller bank for a look at a few.

    Parameters
    ----------
    raw
        ``(z, y, x)`` density, lazy or not; its chunks become those of the result.
    bank
        Of the channels.

    Returns
    -------
    xarray.DataArray
        ``(feature, z, y, x)`` float32, Dask-backed; coordinate ``feature`` holds the names.

    Raises
    ------
    UsageError
        If the volume is too thin for the bank.
    """
    data = _by_blocks(raw, bank, len(bank.names), partial(_feature_block, bank=bank))
    return _labelled("features", raw, data, "feature", bank.names)


def pseudo_labels(
    raw: xr.DataArray,
    bank: FeatureBank,
    forest: StrokeForest,
    early_exit: EarlyExit | None = None,
    device: Device = "cpu",
) -> xr.DataArray:
    """Give the class probabilities of a volume by a forest, lazily.

    Parameters
    ----------
    raw
        ``(z, y, x)`` density, lazy or not; its chunks become those of the result.
    bank, forest
        The forest has learned the channels of this bank.
    early_exit
        Trees and votes, such as ``(20, 0.95)``: no more trees once a class has such a mean share;
        faster and inexact. None for the exact forest.
    device
        ``cpu``, ``cuda``, or ``auto``, a CUDA device where there is one; the last bits differ.

    Returns
    -------
    xarray.DataArray
        ``(c, z, y, x)`` float32, Dask-backed, summing to 1 over c, or to 0 where a channel is NaN.

    Raises
    ------
    UsageError
        If the volume is too thin for the bank, or the forest has learned another one.
    DeviceUnavailable
        If there is no such device here.
    """
    if forest.bank != bank:
        raise UsageError(
            f"the forest has learned {len(forest.bank.names)} channels of another bank than this "
            f"of {len(bank.names)}: pass forest.bank"
        )
    block_labeller(device)  # says now what is missing here
    block = partial(_probability_block, early_exit=early_exit, device=device)
    data = _by_blocks(raw, bank, len(forest.classes), block, forest=delayed(forest, pure=True))
    return _labelled("pseudo_labels", raw, data, "c", forest.classes)


def label_block(
    volume: NDArray[Any],
    held: Box,
    inner: Box,
    forest: StrokeForest,
    early_exit: EarlyExit | None = None,
) -> tuple[NDArray[np.float32], int]:
    """Give the probabilities of a block, and how many of its voxels saw all trees.

    Parameters
    ----------
    volume
        ``(z, y, x)`` of any real dtype: the density of the box `held`.
    held, inner
        The block `inner` with the halo of the forest's bank, cut at the faces of the tomogram.
    forest, early_exit
        As in `pseudo_labels`.

    Returns
    -------
    tuple
        ``(c, z, y, x)`` float32 of `inner`, and the number.
    """
    probabilities = np.empty((len(forest.classes), *inner.shape), np.float32)
    n_continued = 0
    for slab, channels in forest.bank.slabs(volume, held, inner, slab_planes(forest.bank, inner)):
        part = np.empty((len(forest.classes), slab.n_voxels), np.float32)
        flat = channels.reshape(len(channels), -1)
        n_continued += forest.predict_into(flat, part, early_exit)
        probabilities[(slice(None), *slab.within(inner))] = part.reshape(-1, *slab.shape)
    return probabilities, n_continued


LabelBlock = Callable[
    ["NDArray[Any]", Box, Box, "StrokeForest", "EarlyExit | None"],
    "tuple[NDArray[np.float32], int]",
]
"""What `label_block` is, on any device."""


def block_labeller(device: Device) -> tuple[LabelBlock, str]:
    """Give the function that labels a block on a device, and what decides its last bits.

    A CPU needs no torch: the kernels of `label_block` are those for it.

    Raises
    ------
    ConfigurationError
        If torch is not installed and a CUDA device is asked for.
    DeviceUnavailable
        If there is no such device here.
    UsageError
        If it is no device.
    """
    compiled = label_block, "compiled kernels"
    if device == "cpu" or (device == "auto" and find_spec("torch") is None):
        return compiled
    require_torch()
    from otzi.tiles.infer import choose_device

    chosen = choose_device(device)
    if chosen.type == "cpu":
        return compiled
    from otzi.pseudo.device_forest import device_arithmetic, label_block_on

    return partial(label_block_on, device=chosen), device_arithmetic(chosen)


def slab_planes(bank: FeatureBank, inner: Box) -> int:
    """Give how many planes of a block have their channels in memory at a time."""
    plane_bytes = 4 * len(bank.names) * prod(inner.shape[1:])
    return min(_MOST_PLANES, max(_FEWEST_PLANES, _SLAB_BYTES // max(1, plane_bytes)))


def block_memory_bytes(bank: FeatureBank, block: Zyx, n_classes: int) -> int:
    """Give what `label_block` of a block takes at most, its density included.

    Measured with all of ilastik's features and 3 classes: 160 MB of the 192 MB given for a block of
    128³ voxels of float32, 135 MB where they are int8, and 34 MB of 51 MB for 64³ of those.
    """
    inner = Box.whole(block)
    held = inner.grow(bank.halo_voxels).n_voxels
    smoothed = inner.grow(_MARGIN_VOXELS).n_voxels * len(bank.scales)
    channels = len(bank.names) * slab_planes(bank, inner) * prod(block[1:])
    return 4 * (2 * held + smoothed + channels + n_classes * inner.n_voxels)


# Blocks as a Dask array


def _by_blocks(
    raw: xr.DataArray,
    bank: FeatureBank,
    n_channels: int,
    block: Callable[..., NDArray[np.float32]],
    **shared: Any,
) -> da.Array:
    volume = raw.data if isinstance(raw.data, da.Array) else da.from_array(raw.data, _BLOCK_VOXELS)
    z, y, x = volume.shape
    bank.check((z, y, x))
    parts = np.empty(volume.numblocks, object)
    for index, inner in zip(np.ndindex(parts.shape), _boxes(volume.chunks), strict=True):
        held = inner.grow(bank.halo_voxels).clip((z, y, x))
        parts[index] = da.map_blocks(
            block,
            volume[held.slices].rechunk(held.shape),
            held=held,
            inner=inner,
            new_axis=0,
            chunks=tuple((n,) for n in (n_channels, *inner.shape)),
            dtype=np.float32,
            meta=np.empty((0, 0, 0, 0), np.float32),
            **shared,
        )
    blocks: da.Array = da.block(parts.tolist())
    return blocks


def _boxes(chunks: tuple[tuple[int, ...], ...]) -> list[Box]:
    spans = [list(pairwise(accumulate(lengths, initial=0))) for lengths in chunks]
    return [Box((z[0], y[0], x[0]), (z[1], y[1], x[1])) for z, y, x in product(*spans)]


def _feature_block(
    volume: NDArray[Any], *, held: Box, inner: Box, bank: FeatureBank
) -> NDArray[np.float32]:
    channels = np.empty((len(bank.names), *inner.shape), np.float32)
    for slab, part in bank.slabs(volume, held, inner):
        channels[(slice(None), *slab.within(inner))] = part
    return channels


def _probability_block(
    volume: NDArray[Any],
    *,
    held: Box,
    inner: Box,
    forest: StrokeForest,
    early_exit: EarlyExit | None,
    device: Device,
) -> NDArray[np.float32]:
    label, _ = block_labeller(device)
    return label(volume, held, inner, forest, early_exit)[0]


def _labelled(
    name: str, raw: xr.DataArray, data: da.Array, axis: str, channels: Sequence[str]
) -> xr.DataArray:
    return xr.DataArray(
        data,
        dims=(axis, "z", "y", "x"),
        coords={axis: list(channels)} | {key: raw.coords[key] for key in raw.coords},
        name=name,
        attrs={key: value for key, value in raw.attrs.items() if key != "statistics"},
    )
