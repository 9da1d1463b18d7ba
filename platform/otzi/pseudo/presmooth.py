"""Gaussian smoothing of a block with its halo, one axis after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from otzi.compiled import fused, inlined, unsigned
from otzi.pseudo.kernels import gaussian_kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from otzi.box import Box

__all__ = ["mirrored", "presmooth"]

_PAIRS = unsigned(4)
"""Pairs of taps a sweep: as many arrays as the compiler tests for overlap and still vectorises."""
_SPAN = unsigned(1024)
"""Voxels of a plane that are smoothed together along z, so that those of all planes stay cached."""
_ZERO, _ONE, _TWO, _THREE = (unsigned(i) for i in range(4))


def presmooth(
    volume: NDArray[np.float32],
    held: Box,
    wanted: Box,
    buffer: NDArray[np.float32],
    *,
    sigma: float,
    window: float,
) -> NDArray[np.float32]:
    """Give `wanted` of the smoothed volume, ``(z, y, x)`` float32.

    `volume`, ``(z, y, x)`` float32, holds the box `held`. What lies outside, also of `wanted`, is
    mirrored without repeating the end voxel: right at the tomogram's faces, and elsewhere without
    effect on what is further than the kernel's radius inside. `buffer`, float32, has at least as
    many elements as `wanted` has planes in planes of `volume`.
    """
    weights = gaussian_kernel(sigma, window, 0)
    reach = len(weights) - 1
    z, y, x = (
        mirrored(first - origin - reach, last - origin + reach, n)
        for first, last, origin, n in zip(
            wanted.start, wanted.stop, held.start, volume.shape, strict=True
        )
    )
    top, left = y.min(), x.min()
    line, plane = unsigned(volume.shape[2]), unsigned(volume.shape[1] * volume.shape[2])
    depth, height, width = (unsigned(n) for n in wanted.shape)
    taps = _pairs(weights), unsigned(reach)
    # Of each plane only the rows that are seen: as many voxels as lie one after the other.
    band = (y.max() + unsigned(1) - top) * line
    smoothed = np.empty(wanted.shape, np.float32)
    _smooth_z(volume.reshape(-1), z * plane + top * line, *taps, depth, band, buffer)
    _smooth_yx(
        buffer,
        (y - top) * line + left,
        x - left,
        *taps,
        (depth, height, width),
        band,
        smoothed.reshape(-1),
    )
    return smoothed


def mirrored(start: int, stop: int, n: int) -> NDArray[np.uint64]:
    """Give where, of `n` voxels, each of ``range(start, stop)`` is found by mirroring."""
    period = max(1, 2 * (n - 1))
    position = np.arange(start, stop) % period
    return np.minimum(position, period - position).astype(np.uint64)


def _pairs(weights: NDArray[np.float64]) -> NDArray[np.float32]:
    """Give the weights of the pairs of taps at ±0, ±1, …; zeros fill the last sweep."""
    n_sweeps = -(-len(weights) // int(_PAIRS))
    pairs = np.zeros(n_sweeps * int(_PAIRS), np.float32)
    pairs[: len(weights)] = weights
    pairs[0] /= 2
    return pairs


@fused
def _smooth_z(
    volume: NDArray[np.float32],
    z: NDArray[np.uint64],
    pairs: NDArray[np.float32],
    radius: int,
    depth: int,
    band: int,
    smoothed: NDArray[np.float32],
) -> None:
    """Smooth `band` voxels of each plane along z; in the flat volume the planes are at `z`."""
    for first in range(_ZERO, band, _SPAN):
        n = min(_SPAN, band - first)
        for k in range(depth):
            _weigh(volume, first, z, k + radius, pairs, radius, smoothed, k * band + first, n)


@fused
def _smooth_yx(
    volume: NDArray[np.float32],
    y: NDArray[np.uint64],
    x: NDArray[np.uint64],
    pairs: NDArray[np.float32],
    radius: int,
    shape: tuple[int, int, int],
    band: int,
    smoothed: NDArray[np.float32],
) -> None:
    """Smooth each band along y and x; its rows are at `y`, and `x` are the places in a row."""
    depth, height, width = shape
    n_columns = x.max() + _ONE
    line = np.empty(n_columns, np.float32)
    row = np.empty(len(x), np.float32)
    beside = np.empty(radius + radius + _ONE, np.uint64)
    for i in range(len(beside)):
        beside[i] = i
    for k in range(depth):
        for j in range(height):
            _weigh(volume, k * band, y, j + radius, pairs, radius, line, _ZERO, n_columns)
            for i in range(len(x)):
                row[i] = line[x[i]]
            target = (k * height + j) * width
            _weigh(row, _ZERO, beside, radius, pairs, radius, smoothed, target, width)


@inlined
def _weigh(
    values: NDArray[np.float32],
    first: int,
    places: NDArray[np.uint64],
    centre: int,
    pairs: NDArray[np.float32],
    radius: int,
    target: NDArray[np.float32],
    at: int,
    n: int,
) -> None:
    """Write `n` sums of mirrored taps, the first of which is at ``first + places[centre]``."""
    for k in range(_ZERO, radius + _ONE, _PAIRS):
        k0, k1 = min(k, radius), min(k + _ONE, radius)
        k2, k3 = min(k + _TWO, radius), min(k + _THREE, radius)
        a0, b0 = first + places[centre - k0], first + places[centre + k0]
        a1, b1 = first + places[centre - k1], first + places[centre + k1]
        a2, b2 = first + places[centre - k2], first + places[centre + k2]
        a3, b3 = first + places[centre - k3], first + places[centre + k3]
        w0, w1, w2, w3 = pairs[k], pairs[k + _ONE], pairs[k + _TWO], pairs[k + _THREE]
        for i in range(n):
            total = (
                w0 * (values[a0 + i] + values[b0 + i])
                + w1 * (values[a1 + i] + values[b1 + i])
                + w2 * (values[a2 + i] + values[b2 + i])
                + w3 * (values[a3 + i] + values[b3 + i])
            )
            target[at + i] = total if k == _ZERO else target[at + i] + total
