"""Gaussian filters of one scale, a tile at a time: smoothing and derivatives.

Each reads a smoothed image with a margin and writes its channels; passes along z and y are shared
by all that need them.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from otzi.compiled import fused, unsigned
from otzi.pseudo.eigen import eigenvalues
from otzi.pseudo.stencils import PLANE, Taps, Tile, along_z, even, odd, put

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["N_IMAGES", "Kernels", "differentiate", "smooth"]

_ONE = unsigned(1)
_Z0, _Z1, _Z2 = (unsigned(i) * PLANE for i in range(3))
_Z0Y0, _Z0Y1, _Z0Y2, _Z1Y0, _Z1Y1, _Z2Y0 = (unsigned(i) * PLANE for i in range(3, 9))
"""Images of a tile after each pass, named by the order of derivative along z and y."""
_A, _B, _C, _D = (unsigned(i) * PLANE for i in range(9, 13))
"""Results."""
N_IMAGES = 13
"""How many intermediate images there are."""


class Kernels(NamedTuple):
    """Kernels of one scale."""

    radius: int
    """Of the largest."""
    value: Taps
    slope: Taps
    curvature: Taps
    narrow: Taps
    """The Gaussian that is taken from the other for the difference of Gaussians."""


@fused
def smooth(
    image: NDArray[np.float32],
    tile: Tile,
    kernels: Kernels,
    scratch: NDArray[np.float32],
    channels: NDArray[np.float32],
    smoothed: int,
    difference: int,
) -> None:
    """Write the channels `smoothed` and `difference` of Gaussians of a tile.

    `image` is flat float32, `scratch` has ``N_IMAGES * PLANE`` float32, `channels` is ``(channel,
    z, y, x)`` float32; a negative channel is not written.
    """
    radius, value, narrow = kernels.radius, kernels.value, kernels.narrow
    width = tile.columns + radius + radius
    far, start, stop = radius * width, radius * width, (radius + tile.rows) * width
    for z in range(tile.planes):
        along_z(even, image, tile, z, radius, radius, value, scratch, _Z0)
        along_z(even, image, tile, z, radius, radius, narrow, scratch, _Z1)
        for i in range(start, stop):
            scratch[_Z0Y0 + i] = even(scratch, _Z0 + i, width, far, value)
            scratch[_Z1Y0 + i] = even(scratch, _Z1 + i, width, far, narrow)
        for i in range(start, stop):
            wider = even(scratch, _Z0Y0 + i, _ONE, radius, value)
            scratch[_A + i] = wider
            scratch[_B + i] = wider - even(scratch, _Z1Y0 + i, _ONE, radius, narrow)
        put(scratch, _A, 1, tile, radius, channels, smoothed, z)
        put(scratch, _B, 1, tile, radius, channels, difference, z)


@fused
def differentiate(
    image: NDArray[np.float32],
    tile: Tile,
    kernels: Kernels,
    scratch: NDArray[np.float32],
    channels: NDArray[np.float32],
    laplacian: int,
    gradient: int,
    hessian: int,
) -> None:
    """Write the Laplacian, the gradient's magnitude and the Hessian's three eigenvalues of a tile.

    Arrays and channels are as for `smooth`; the eigenvalues begin at `hessian`.
    """
    radius, value = kernels.radius, kernels.value
    slope, curvature = kernels.slope, kernels.curvature
    width = tile.columns + radius + radius
    far, start, stop = radius * width, radius * width, (radius + tile.rows) * width
    for z in range(tile.planes):
        along_z(even, image, tile, z, radius, radius, value, scratch, _Z0)
        along_z(odd, image, tile, z, radius, radius, slope, scratch, _Z1)
        along_z(even, image, tile, z, radius, radius, curvature, scratch, _Z2)
        for i in range(start, stop):
            scratch[_Z0Y0 + i] = even(scratch, _Z0 + i, width, far, value)
            scratch[_Z0Y1 + i] = odd(scratch, _Z0 + i, width, far, slope)
            scratch[_Z0Y2 + i] = even(scratch, _Z0 + i, width, far, curvature)
            scratch[_Z1Y0 + i] = even(scratch, _Z1 + i, width, far, value)
            scratch[_Z1Y1 + i] = odd(scratch, _Z1 + i, width, far, slope)
            scratch[_Z2Y0 + i] = even(scratch, _Z2 + i, width, far, value)
        # With more results in one loop the compiler gives up showing that none overlaps.
        for i in range(start, stop):
            zz = even(scratch, _Z2Y0 + i, _ONE, radius, value)
            zy = even(scratch, _Z1Y1 + i, _ONE, radius, value)
            zx = odd(scratch, _Z1Y0 + i, _ONE, radius, slope)
            yy = even(scratch, _Z0Y2 + i, _ONE, radius, value)
            yx = odd(scratch, _Z0Y1 + i, _ONE, radius, slope)
            xx = even(scratch, _Z0Y0 + i, _ONE, radius, curvature)
            scratch[_A + i] = zz + yy + xx
            scratch[_B + i], scratch[_C + i], scratch[_D + i] = eigenvalues(zz, zy, zx, yy, yx, xx)
        put(scratch, _A, 1, tile, radius, channels, laplacian, z)
        put(scratch, _B, 3, tile, radius, channels, hessian, z)
        for i in range(start, stop):
            dz = even(scratch, _Z1Y0 + i, _ONE, radius, value)
            dy = even(scratch, _Z0Y1 + i, _ONE, radius, value)
            dx = odd(scratch, _Z0Y0 + i, _ONE, radius, slope)
            scratch[_A + i] = math.sqrt(dz * dz + dy * dy + dx * dx)
        put(scratch, _A, 1, tile, radius, channels, gradient, z)
