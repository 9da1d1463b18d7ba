"""Eigenvalues of the structure tensor of one scale, a tile at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from otzi.compiled import fused, inlined, unsigned
from otzi.pseudo.eigen import eigenvalues
from otzi.pseudo.stencils import PLANE, Taps, Tile, along_z, even, odd, put

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["N_IMAGES", "Outside", "TensorKernels", "structure"]

_ZERO, _ONE, _TWO, _THREE, _FOUR, _FIVE, _SIX = (unsigned(i) for i in range(7))
_Z0, _Z1, _Z0Y0, _Z0Y1, _Z1Y0 = (unsigned(i) * PLANE for i in range(5))
"""Images of a tile after each pass, named by the order of derivative along z and y."""
_DZ, _DY, _DX = (unsigned(i) * PLANE for i in range(5, 8))
"""The gradient."""
_FIRST, _SECOND, _THIRD = _DZ, _DY, _DX
"""Eigenvalues take the place of the gradient."""
_ALONG_Z, _ALONG_ZY, _RING = (unsigned(i) * PLANE for i in (8, 14, 20))
"""Where the products zz, zy, zx, yy, yx, xx begin: smoothed, and as they are in some planes."""
_RING_PLANES = _FIVE
"""As many as the smoothing along z sees."""
N_IMAGES = 20 + 5 * 6
"""How many intermediate images there are."""


class TensorKernels(NamedTuple):
    """Kernels of the gradient, and the one that smooths its products."""

    inner_radius: int
    value: Taps
    slope: Taps
    outer_radius: int
    outer: Taps


class Outside(NamedTuple):
    """How many voxels of a tile's margin of products lie outside of the tomogram."""

    z_before: int
    z_after: int
    y_before: int
    y_after: int
    x_before: int
    x_after: int


@fused
def structure(
    image: NDArray[np.float32],
    tile: Tile,
    outside: Outside,
    kernels: TensorKernels,
    scratch: NDArray[np.float32],
    channels: NDArray[np.float32],
    first_channel: int,
) -> None:
    """Write the three eigenvalues of the smoothed products of the gradient of a tile.

    `image` is flat float32, `scratch` has ``N_IMAGES * PLANE`` float32, `channels` is ``(channel,
    z, y, x)`` float32.
    """
    radius = kernels.outer_radius
    margin = kernels.inner_radius + radius
    width = tile.columns + margin + margin
    start, stop = margin * width, (margin + tile.rows) * width
    for p in range(tile.planes + radius + radius):
        _multiply_gradient(image, tile, p - radius, kernels, scratch, _ring(p))
        _mirror(scratch, _ring(p), tile, p, outside, kernels)
        if p < radius + radius:
            continue
        _smooth_along_z(scratch, p - radius, start - radius * width, stop + radius * width, kernels)
        for k in range(_ZERO, _SIX * PLANE, PLANE):
            for i in range(k + start, k + stop):
                scratch[_ALONG_ZY + i] = even(
                    scratch, _ALONG_Z + i, width, radius * width, kernels.outer
                )
        _write_eigenvalues(scratch, start, stop, kernels)
        put(scratch, _FIRST, 3, tile, margin, channels, first_channel, p - radius - radius)


@inlined
def _ring(p: int) -> int:
    """Give where the products of plane `p` lie: in the place of those five planes before."""
    return _RING + p % _RING_PLANES * _SIX * PLANE


@inlined
def _multiply_gradient(
    image: NDArray[np.float32],
    tile: Tile,
    z: int,
    kernels: TensorKernels,
    scratch: NDArray[np.float32],
    products: int,
) -> None:
    """Write the six products of the gradient in plane `z` of a tile and its margin."""
    radius, value, slope = kernels.inner_radius, kernels.value, kernels.slope
    margin = radius + kernels.outer_radius
    width, height = tile.columns + margin + margin, tile.rows + margin + margin
    far, start, stop = radius * width, radius * width, (height - radius) * width
    along_z(even, image, tile, z, margin, radius, value, scratch, _Z0)
    along_z(odd, image, tile, z, margin, radius, slope, scratch, _Z1)
    for i in range(start, stop):
        scratch[_Z0Y0 + i] = even(scratch, _Z0 + i, width, far, value)
        scratch[_Z0Y1 + i] = odd(scratch, _Z0 + i, width, far, slope)
        scratch[_Z1Y0 + i] = even(scratch, _Z1 + i, width, far, value)
    for i in range(start, stop):
        scratch[_DZ + i] = even(scratch, _Z1Y0 + i, _ONE, radius, value)
        scratch[_DY + i] = even(scratch, _Z0Y1 + i, _ONE, radius, value)
        scratch[_DX + i] = odd(scratch, _Z0Y0 + i, _ONE, radius, slope)
    for i in range(start, stop):
        dz, dy, dx = scratch[_DZ + i], scratch[_DY + i], scratch[_DX + i]
        scratch[products + i] = dz * dz
        scratch[products + PLANE + i] = dz * dy
        scratch[products + _TWO * PLANE + i] = dz * dx
        scratch[products + _THREE * PLANE + i] = dy * dy
        scratch[products + _FOUR * PLANE + i] = dy * dx
        scratch[products + _FIVE * PLANE + i] = dx * dx


@inlined
def _mirror(
    scratch: NDArray[np.float32],
    products: int,
    tile: Tile,
    p: int,
    outside: Outside,
    kernels: TensorKernels,
) -> None:
    """Make the products outside of the tomogram the mirrored ones of the inside.

    There the image is mirrored, which turns the sign of the derivative across the face, and so that
    of its product with another; but it is the product that has to be mirrored.
    """
    radius = kernels.outer_radius
    depth, height = tile.planes + radius + radius, tile.rows + radius + radius
    width = tile.columns + radius + radius
    line = width + kernels.inner_radius + kernels.inner_radius
    zy, zx, yx = products + PLANE, products + _TWO * PLANE, products + _FOUR * PLANE
    for y in range(height):
        left = (kernels.inner_radius + y) * line + kernels.inner_radius
        right = left + width - outside.x_after
        if p < outside.z_before or p >= depth - outside.z_after:
            _negate(scratch, zy + left, zx + left, width)
        if y < outside.y_before or y >= height - outside.y_after:
            _negate(scratch, zy + left, yx + left, width)
        _negate(scratch, zx + left, yx + left, outside.x_before)
        _negate(scratch, zx + right, yx + right, outside.x_after)


@inlined
def _negate(values: NDArray[np.float32], one: int, other: int, n: int) -> None:
    for i in range(n):
        values[one + i] = -values[one + i]
        values[other + i] = -values[other + i]


@inlined
def _smooth_along_z(
    scratch: NDArray[np.float32], p: int, start: int, stop: int, kernels: TensorKernels
) -> None:
    """Smooth the products of plane `p` along z."""
    radius, taps = kernels.outer_radius, kernels.outer
    centre, before, after = _ring(p), _ring(p - _ONE), _ring(p + _ONE)
    far_before, far_after = _ring(p - radius), _ring(p + radius)
    for k in range(_ZERO, _SIX * PLANE, PLANE):
        for i in range(k + start, k + stop):
            scratch[_ALONG_Z + i] = (
                taps[0] * scratch[centre + i]
                + taps[1] * (scratch[before + i] + scratch[after + i])
                + taps[2] * (scratch[far_before + i] + scratch[far_after + i])
            )


@inlined
def _write_eigenvalues(
    scratch: NDArray[np.float32], start: int, stop: int, kernels: TensorKernels
) -> None:
    """Smooth the products along x and write the eigenvalues."""
    radius, taps = kernels.outer_radius, kernels.outer
    for i in range(_ALONG_ZY + start, _ALONG_ZY + stop):
        zz = even(scratch, i, _ONE, radius, taps)
        zy = even(scratch, i + PLANE, _ONE, radius, taps)
        zx = even(scratch, i + _TWO * PLANE, _ONE, radius, taps)
        yy = even(scratch, i + _THREE * PLANE, _ONE, radius, taps)
        yx = even(scratch, i + _FOUR * PLANE, _ONE, radius, taps)
        xx = even(scratch, i + _FIVE * PLANE, _ONE, radius, taps)
        at = i - _ALONG_ZY
        first, second, third = eigenvalues(zz, zy, zx, yy, yx, xx)
        scratch[_FIRST + at], scratch[_SECOND + at], scratch[_THIRD + at] = first, second, third
