"""Sampled Gaussian kernels as ilastik's feature library defines them.

Source: `fastfilters` and `vigra`, whose definitions ilastik's features follow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["gaussian_kernel", "kernel_radius"]


def kernel_radius(sigma: float, window: float) -> int:
    """Give the radius in voxels of a kernel that is cut at `window` sigma."""
    return int(np.floor(window * sigma + 0.5))


def gaussian_kernel(sigma: float, window: float, order: int) -> NDArray[np.float64]:
    """Give the right half, ``(radius + 1,)`` float64, of a derivative of a Gaussian.

    For correlation; the left half is the same, with the other sign for order 1. Sampled at voxels,
    then made exact for polynomials: order 0 sums to 1; order 1 gives 1 for ``x``; order 2 has no
    mean and gives 1 for ``x² / 2``.
    """
    radius = kernel_radius(sigma, window)
    x = np.arange(-radius, radius + 1, dtype=np.float64)
    kernel = np.exp(-(x**2) / (2 * sigma**2))
    if order == 0:
        kernel /= kernel.sum()
    elif order == 1:
        kernel *= x
        kernel /= (x * kernel).sum()
    else:
        kernel *= x**2 / sigma**2 - 1
        kernel -= kernel.mean()
        kernel /= (x**2 / 2 * kernel).sum()
    return kernel[radius:]
