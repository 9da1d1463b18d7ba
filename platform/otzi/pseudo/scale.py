"""One scale of the bank: how far its features see, and how they are computed.

The features are not what their scale says: the image is smoothed first and filtered a second time
with a small kernel, so that for scales up to 1 it is smoothed twice; the second Gaussian of the
difference has 0.66 of the small kernel's sigma whatever the scale; and the inner and outer scale of
the structure tensor are swapped. Source: ilastik's `OpPixelFeaturesPresmoothed` with `fastfilters`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import ceil, sqrt
from typing import TYPE_CHECKING

import numpy as np

from otzi.compiled import unsigned
from otzi.pseudo import filters, structure_tensor
from otzi.pseudo.filters import Kernels, differentiate, smooth
from otzi.pseudo.kernels import kernel_radius
from otzi.pseudo.presmooth import presmooth
from otzi.pseudo.stencils import MOST_MARGIN, PLANE, Tile, short_kernel, tiles
from otzi.pseudo.structure_tensor import Outside, TensorKernels, structure

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from otzi.box import Box

__all__ = [
    "DIFFERENCE",
    "FILTER_WINDOW",
    "GRADIENT",
    "HESSIAN",
    "LAPLACIAN",
    "PRESMOOTH_WINDOW",
    "SMOOTHING",
    "STRUCTURE",
    "Scale",
    "new_buffer",
    "new_scratch",
]

SMOOTHING = "gaussian_smoothing"
LAPLACIAN = "laplacian_of_gaussian"
GRADIENT = "gaussian_gradient_magnitude"
DIFFERENCE = "difference_of_gaussians"
STRUCTURE = "structure_tensor_eigenvalues"
HESSIAN = "hessian_of_gaussian_eigenvalues"

PRESMOOTH_WINDOW = 3.5
FILTER_WINDOW = 2.0
"""Where kernels are cut, in sigmas."""


@dataclass(frozen=True)
class Scale:
    """A scale in voxels and what follows from it."""

    scale: float
    swapped: bool = True
    """Inner and outer scale of the structure tensor, as ilastik does."""

    @property
    def needed_voxels(self) -> int:
        """Number of voxels that a volume must have on every axis."""
        return ceil(PRESMOOTH_WINDOW * self.scale) + 1

    @property
    def presmooth_sigma(self) -> float:
        """Of the Gaussian by which the image is smoothed first."""
        return self.scale if self.scale <= 1 else sqrt(self.scale**2 - 1)

    @property
    def filter_sigma(self) -> float:
        """Of the small kernels that filter the smoothed image."""
        return min(self.scale, 1.0)

    @property
    def narrow_sigma(self) -> float:
        """Of the Gaussian that is taken from the other for the difference of Gaussians."""
        return 0.66 * self.filter_sigma

    @property
    def tensor_sigmas(self) -> tuple[float, float]:
        """Of the structure tensor's gradient, and of what smooths its products."""
        inner, outer = 0.5 * self.filter_sigma, self.filter_sigma
        return (inner, outer) if self.swapped else (outer, inner)

    def halo_voxels(self, feature: str) -> int:
        """Give how far a feature sees; the structure tensor's gradient sees one more."""
        radius = kernel_radius(self.presmooth_sigma, PRESMOOTH_WINDOW) + self._filter_radius
        return radius + (feature == STRUCTURE)

    @property
    def margin_voxels(self) -> int:
        """What is needed of the smoothed image beside a block."""
        return self._filter_radius + 1

    def presmooth(
        self, volume: NDArray[np.float32], held: Box, inner: Box, buffer: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Give the smoothed image of `inner` and its margin, mirrored at the ends of `held`.

        `buffer` is what `new_buffer` gave, for any scale.
        """
        wanted = inner.grow(self.margin_voxels)
        sigma = self.presmooth_sigma
        return presmooth(volume, held, wanted, buffer, sigma=sigma, window=PRESMOOTH_WINDOW)

    def filter(
        self,
        image: NDArray[np.float32],
        held: Box,
        inner: Box,
        slab: Box,
        first_channels: Mapping[str, int],
        scratch: NDArray[np.float32],
        channels: NDArray[np.float32],
    ) -> None:
        """Write the features of `slab`, some planes of `inner`, to ``(channel, z, y, x)`` float32.

        `image` is what `presmooth` gave; `first_channels` names the features that are wanted.
        """
        smoothing, difference, laplacian, gradient, tensor, hessian = (
            first_channels.get(feature, -1)
            for feature in (SMOOTHING, DIFFERENCE, LAPLACIAN, GRADIENT, STRUCTURE, HESSIAN)
        )
        flat, first_plane = image.reshape(-1), slab.start[0] - inner.start[0]
        for tile in tiles(image.shape, self.margin_voxels, first_plane, slab.shape[0]):
            if max(smoothing, difference) >= 0:
                smooth(flat, tile, self._kernels, scratch, channels, smoothing, difference)
            if max(laplacian, gradient, hessian) >= 0:
                differentiate(
                    flat, tile, self._kernels, scratch, channels, laplacian, gradient, hessian
                )
            if tensor >= 0:
                kernels = self._tensor_kernels
                outside = _outside(tile, held, slab, int(kernels.outer_radius))
                structure(flat, tile, outside, kernels, scratch, channels, tensor)

    @property
    def _filter_radius(self) -> int:
        return kernel_radius(self.filter_sigma, FILTER_WINDOW)

    @cached_property
    def _kernels(self) -> Kernels:
        sigma = self.filter_sigma
        value, slope, curvature = (short_kernel(sigma, FILTER_WINDOW, order) for order in range(3))
        narrow = short_kernel(self.narrow_sigma, FILTER_WINDOW, 0)
        return Kernels(unsigned(self._filter_radius), value, slope, curvature, narrow)

    @cached_property
    def _tensor_kernels(self) -> TensorKernels:
        inner, outer = self.tensor_sigmas
        return TensorKernels(
            unsigned(kernel_radius(inner, FILTER_WINDOW)),
            short_kernel(inner, FILTER_WINDOW, 0),
            short_kernel(inner, FILTER_WINDOW, 1),
            unsigned(kernel_radius(outer, FILTER_WINDOW)),
            short_kernel(outer, FILTER_WINDOW, 0),
        )


def new_buffer(volume: NDArray[np.float32], inner: Box) -> NDArray[np.float32]:
    """Give what `Scale.presmooth` needs to write to; not to be shared by threads."""
    n_planes = inner.shape[0] + 2 * MOST_MARGIN
    return np.empty(n_planes * volume.shape[1] * volume.shape[2], np.float32)


def new_scratch() -> NDArray[np.float32]:
    """Give what `Scale.filter` needs for its intermediate images; not to be shared by threads."""
    return np.zeros(max(filters.N_IMAGES, structure_tensor.N_IMAGES) * int(PLANE), np.float32)


def _outside(tile: Tile, held: Box, slab: Box, radius: int) -> Outside:
    """Give how much of `radius` voxels beside a tile of `slab` is outside of `held`."""
    y, x, *extent = (int(v) for v in (tile.y, tile.x, tile.planes, tile.rows, tile.columns))
    counts = []
    corner = slab.start[0], slab.start[1] + y, slab.start[2] + x
    for start, n, low, high in zip(corner, extent, held.start, held.stop, strict=True):
        counts += [max(0, low - start + radius), max(0, start + n + radius - high)]
    return Outside(*map(unsigned, counts))
