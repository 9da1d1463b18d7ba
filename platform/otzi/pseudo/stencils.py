"""Tiles of a plane, and the weighted sums of up to five neighbours that run over them.

A tile is some rows and columns of a plane with a margin. Its intermediate images lie one after the
other, `PLANE` apart, in one flat array that is small enough for the cache. They are indexed by
unsigned integers, at distances that the compiler knows: both are needed for loops to vectorise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from otzi.compiled import inlined, unsigned
from otzi.pseudo.kernels import gaussian_kernel

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otzi.box import Zyx

__all__ = [
    "MOST_MARGIN",
    "PLANE",
    "Taps",
    "Tile",
    "along_z",
    "even",
    "odd",
    "put",
    "short_kernel",
    "tiles",
]

Taps = tuple[np.float32, np.float32, np.float32]
"""Weights of the centre, of both neighbours, and of those two away (0 where a kernel has none)."""

Stencil = Callable[[NDArray[np.float32], int, int, int, Taps], np.float32]

_ROWS, _COLUMNS = 32, 128
MOST_MARGIN = 3
"""Voxels beside a tile that the features of the largest kernels need."""
PLANE = unsigned((_ROWS + 2 * MOST_MARGIN) * (_COLUMNS + 2 * MOST_MARGIN) + 16)
"""Distance of two images of a tile; a little more than a tile, for sums that run over row ends."""


class Tile(NamedTuple):
    """Where a tile of some planes lies in a flat image and in the channels, without its margin."""

    first: int
    """Index of the first voxel in the image."""
    plane_step: int
    """From plane to plane of the image."""
    row_step: int
    """From row to row of the image."""
    planes: int
    rows: int
    columns: int
    y: int
    """First row in the channels."""
    x: int
    """First column in the channels."""


def tiles(image: Zyx, margin: int, first_plane: int, n_planes: int) -> Iterator[Tile]:
    """Yield the tiles that cover some planes of an image of this shape, inside its margin."""
    _, height, width = image
    plane_step, row_step = height * width, width
    for top, bottom in _parts(height - 2 * margin, _ROWS):
        for left, right in _parts(width - 2 * margin, _COLUMNS):
            first = (first_plane + margin) * plane_step + (top + margin) * row_step + left + margin
            extent = (n_planes, bottom - top, right - left)
            yield Tile(*map(unsigned, (first, plane_step, row_step, *extent, top, left)))


def _parts(n: int, most: int) -> list[tuple[int, int]]:
    """Give start and stop of as few and equal parts of `n` as have at most `most` each."""
    count = -(-n // most)
    return [(n * i // count, n * (i + 1) // count) for i in range(count)]


def short_kernel(sigma: float, window: float, order: int) -> Taps:
    """Give a Gaussian kernel of radius 2 or less."""
    half = gaussian_kernel(sigma, window, order)
    centre, near, far = np.pad(half, (0, 3 - len(half))).astype(np.float32)
    return centre, near, far


@inlined
def even(values: NDArray[np.float32], at: int, near: int, far: int, taps: Taps) -> np.float32:
    """Give the sum for a symmetric kernel; the neighbours are `near` and `far` away.

    For a kernel of radius 1 `far` is `near`: nothing is read that has no weight.
    """
    total: np.float32 = (
        taps[0] * values[at]
        + taps[1] * (values[at - near] + values[at + near])
        + taps[2] * (values[at - far] + values[at + far])
    )
    return total


@inlined
def odd(values: NDArray[np.float32], at: int, near: int, far: int, taps: Taps) -> np.float32:
    """Give the sum for an antisymmetric kernel."""
    total: np.float32 = taps[1] * (values[at + near] - values[at - near]) + taps[2] * (
        values[at + far] - values[at - far]
    )
    return total


@inlined
def along_z(
    stencil: Stencil,
    image: NDArray[np.float32],
    tile: Tile,
    z: int,
    margin: int,
    radius: int,
    taps: Taps,
    scratch: NDArray[np.float32],
    target: int,
) -> None:
    """Filter plane `z` of a tile and its margin along z, by `even` or `odd`."""
    width = tile.columns + margin + margin
    first = tile.first + z * tile.plane_step - margin * tile.row_step - margin
    for y in range(tile.rows + margin + margin):
        for x in range(width):
            at = first + y * tile.row_step + x
            scratch[target + y * width + x] = stencil(
                image, at, tile.plane_step, radius * tile.plane_step, taps
            )


@inlined
def put(
    scratch: NDArray[np.float32],
    source: int,
    n_images: int,
    tile: Tile,
    margin: int,
    channels: NDArray[np.float32],
    channel: int,
    z: int,
) -> None:
    """Copy images of a tile to plane `z` of successive channels; none if `channel` is negative."""
    if channel < 0:
        return
    width = tile.columns + margin + margin
    for k in range(n_images):
        for y in range(tile.rows):
            row = channels[channel + k, z, tile.y + y]
            first = source + (margin + y) * width + margin
            for x in range(tile.columns):
                row[tile.x + x] = scratch[first + x]
        source += PLANE
