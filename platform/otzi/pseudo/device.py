"""The feature bank on a device of torch: the same channels, for the blocks of a GPU."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from itertools import combinations_with_replacement
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from otzi.box import Box
from otzi.errors import MemoryBudgetError
from otzi.pseudo.device_image import Orders, PlacedImage, eigenvalues
from otzi.pseudo.kernels import gaussian_kernel
from otzi.pseudo.scale import (
    DIFFERENCE,
    FILTER_WINDOW,
    GRADIENT,
    HESSIAN,
    LAPLACIAN,
    PRESMOOTH_WINDOW,
    SMOOTHING,
    STRUCTURE,
    Scale,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from otzi.pseudo.bank import FeatureBank

__all__ = ["DeviceBank", "fitting_device", "working_memory_bytes"]

_VALUE: Orders = (0, 0, 0)
_SLOPES: tuple[Orders, ...] = ((1, 0, 0), (0, 1, 0), (0, 0, 1))
_CURVATURES: tuple[Orders, ...] = (
    (2, 0, 0), (1, 1, 0), (1, 0, 1), (0, 2, 0), (0, 1, 1), (0, 0, 2),
)  # fmt: skip
"""Of zz, zy, zx, yy, yx, xx."""
_DIAGONAL = (_CURVATURES[0], _CURVATURES[3], _CURVATURES[5])

_INTERMEDIATE_IMAGES = 40
"""More than exist of a slab at a time beside its channels: 36, counted for a block of 96³."""
_CPU_BYTES = 256 * 10**6


def working_memory_bytes(device: torch.device) -> int:
    """Give what a step may take of a device: half of what is free there, a little of a CPU's."""
    if device.type != "cuda":
        return _CPU_BYTES
    free, _ = torch.cuda.mem_get_info(device)
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return (free + kept) // 2


@contextmanager
def fitting_device(inner: Box) -> Iterator[None]:
    """Turn a full device into an error that says what to do.

    Raises
    ------
    MemoryBudgetError
        If the memory of the device is full.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise MemoryBudgetError(
            f"a block of {' × '.join(map(str, inner.shape))} voxels with its halo does not fit "
            "into the GPU's memory: take smaller blocks, fewer --scales, or --device cpu"
        ) from error


@dataclass(frozen=True)
class DeviceBank:
    """A feature bank whose channels are computed, and stay, on a device."""

    bank: FeatureBank
    device: torch.device

    def slabs(
        self, volume: NDArray[Any], held: Box, inner: Box, planes: int | None = None
    ) -> Iterator[tuple[Box, torch.Tensor]]:
        """Yield all channels of `inner`, some planes at a time, as `FeatureBank.slabs` does.

        Parameters
        ----------
        volume
            ``(z, y, x)`` of any real dtype, in the machine's memory: the density of `held`.
        held, inner
            The block `inner` with the bank's halo, cut at the faces of the tomogram.
        planes
            At most; by the free memory of the device if None.

        Yields
        ------
        tuple
            The box, and ``(channel, z, y, x)`` float32 on the device.

        Raises
        ------
        MemoryBudgetError
            If the smoothed images of the block do not fit into the device's memory.
        """
        with fitting_device(inner):
            density = torch.from_numpy(np.require(volume, np.float32, ["C", "A", "W"]))
            raw = PlacedImage(density.to(self.device), held, held)
            images = [(scale, _presmoothed(raw, scale, inner)) for scale in self._scales]
            del raw
            n_channels = len(self.bank.names)
            plane_bytes = 4 * (n_channels + _INTERMEDIATE_IMAGES) * prod(inner.shape[1:])
            fitting = working_memory_bytes(self.device) // max(1, plane_bytes)
            step = max(1, min(planes or fitting, inner.shape[0]))
        for z in range(inner.start[0], inner.stop[0], step):
            slab = Box((z, *inner.start[1:]), (z + step, *inner.stop[1:])).intersect(inner)
            with fitting_device(inner):
                channels = torch.empty(
                    (n_channels, *slab.shape), dtype=torch.float32, device=self.device
                )
                for scale, image in images:
                    self._write(scale, image, slab, channels)
            yield slab, channels

    @property
    def _scales(self) -> list[Scale]:
        swapped = self.bank.structure_tensor == "shipped"
        return [Scale(s, swapped=swapped) for s in sorted({s for _, s in self.bank.origins})]

    def _write(self, scale: Scale, image: PlacedImage, slab: Box, channels: torch.Tensor) -> None:
        """Write the channels of one scale."""
        first = {
            feature: i
            for i, (feature, s) in reversed([*enumerate(self.bank.origins)])
            if s == scale.scale
        }
        wanted: list[Orders] = []
        if first.keys() & {SMOOTHING, DIFFERENCE}:
            wanted += [_VALUE]
        if GRADIENT in first:
            wanted += _SLOPES
        if first.keys() & {LAPLACIAN, HESSIAN}:
            wanted += _CURVATURES if HESSIAN in first else _DIAGONAL
        kernels = [gaussian_kernel(scale.filter_sigma, FILTER_WINDOW, order) for order in range(3)]
        found = image.filtered(kernels, wanted, slab)
        if SMOOTHING in first:
            channels[first[SMOOTHING]] = found[_VALUE]
        if DIFFERENCE in first:
            narrow = gaussian_kernel(scale.narrow_sigma, FILTER_WINDOW, 0)
            channels[first[DIFFERENCE]] = found[_VALUE] - image.smoothed(narrow, slab).values
        if GRADIENT in first:
            z, y, x = (found[orders] for orders in _SLOPES)
            channels[first[GRADIENT]] = (z * z + y * y + x * x).sqrt_()
        if LAPLACIAN in first:
            z, y, x = (found[orders] for orders in _DIAGONAL)
            channels[first[LAPLACIAN]] = z + y + x
        if HESSIAN in first:
            _put(channels, first[HESSIAN], eigenvalues([found[orders] for orders in _CURVATURES]))
        del found
        if STRUCTURE in first:
            _put(channels, first[STRUCTURE], eigenvalues(_structure_tensor(image, scale, slab)))


def _presmoothed(raw: PlacedImage, scale: Scale, inner: Box) -> PlacedImage:
    kernel = gaussian_kernel(scale.presmooth_sigma, PRESMOOTH_WINDOW, 0)
    return raw.smoothed(kernel, inner.grow(scale.margin_voxels).intersect(raw.ends))


def _structure_tensor(image: PlacedImage, scale: Scale, slab: Box) -> list[torch.Tensor]:
    """Give zz, zy, zx, yy, yx, xx of the gradient's products; mirrored are the products."""
    inner, outer = scale.tensor_sigmas
    kernels = [gaussian_kernel(inner, FILTER_WINDOW, order) for order in range(2)]
    smoothing = gaussian_kernel(outer, FILTER_WINDOW, 0)
    around = slab.grow(len(smoothing) - 1).intersect(image.ends)
    gradient = image.filtered(kernels, _SLOPES, around)
    return [
        PlacedImage(gradient[i] * gradient[j], around, image.ends).smoothed(smoothing, slab).values
        for i, j in combinations_with_replacement(_SLOPES, 2)
    ]


def _put(channels: torch.Tensor, first: int, values: tuple[torch.Tensor, ...]) -> None:
    for i, value in enumerate(values, first):
        channels[i] = value
