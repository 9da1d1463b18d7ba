"""Empty space: which bricks of a volume can hold anything drawn, and how far the next is.  Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from otzi_viewers.render.transfer import Transfer

__all__ = [
    "BRICK_VOXELS",
    "brick_distances",
    "brick_maxima",
    "plane_maxima",
    "row_maxima",
    "stacked_maxima",
]

BRICK_VOXELS = 8


def brick_maxima(data: NDArray[Any]) -> NDArray[Any]:
    """Give the largest value that interpolation can reach within each brick, by channel.

    Parameters
    ----------
    data
        ``(z, y, x, channel)``.

    Returns
    -------
    ndarray
        ``(bricks z, bricks y, bricks x, channel)``, of the bricks and one voxel around them.
    """
    return stacked_maxima(plane_maxima(row_maxima(data)))


def row_maxima(data: NDArray[Any]) -> NDArray[Any]:
    """Give `brick_maxima` of each row alone, ``(z, y, bricks x, channel)``."""
    return _maxima(data, 2)


def plane_maxima(rows: NDArray[Any]) -> NDArray[Any]:
    """Give `brick_maxima` of each plane alone, of its `row_maxima`."""
    return _maxima(rows, 1)


def stacked_maxima(planes: NDArray[Any]) -> NDArray[Any]:
    """Give `brick_maxima` of all of a volume's `plane_maxima`."""
    return _maxima(planes, 0)


def _maxima(values: NDArray[Any], axis: int) -> NDArray[Any]:
    length = values.shape[axis]
    starts = np.arange(0, length, BRICK_VOXELS)
    inner = np.maximum.reduceat(values, starts, axis=axis)
    before = np.take(values, np.maximum(starts - 1, 0), axis=axis)
    after = np.take(values, np.minimum(starts + BRICK_VOXELS, length - 1), axis=axis)
    most: NDArray[Any] = np.maximum(np.maximum(inner, before), after)
    return most


def brick_distances(maxima: NDArray[Any], transfer: Transfer) -> NDArray[np.uint8]:
    """Give the distance of each brick to the next that may be visible: 0 for those themselves.

    In bricks along the axis on which it is longest (Chebyshev), at most 255: so many bricks less
    one can be crossed in any direction, and nothing is there (Deakin and Knackstedt 2019).
    """
    values = maxima.astype(np.float64) * transfer.value_scale
    # Interpolation may round a value up past the largest of its voxels by the last bit.
    visible = values > transfer.low * (1 - 1e-12)
    occupied = visible[..., :-1].any(axis=-1) & visible[..., -1]
    if not occupied.any():
        return np.full(occupied.shape, 255, np.uint8)
    distances: NDArray[np.int32] = ndimage.distance_transform_cdt(~occupied, metric="chessboard")
    return np.minimum(distances, 255).astype(np.uint8)
