"""Boxes that reach beyond a volume: what is read there in place of voxels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from otzi.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from otzi.box import Box
    from otzi.store.reader import LevelArray

__all__ = ["Padding", "read_box"]

Padding = Literal["reflect", "edge", "constant"]
"""As `numpy.pad` calls them; ``constant`` is 0."""


def read_box(array: LevelArray, box: Box, pad: Padding | None) -> NDArray[Any]:
    """Give the voxels of a box, as of the whole array padded by `numpy.pad`.

    Voxels outside the box are read only where it holds their reflection. The box may lie outside
    altogether.

    Raises
    ------
    UsageError
        If there is no such padding; without one, if the box reaches beyond the array.
    """
    z, y, x = array.shape[-3:]
    inside = box.clip((z, y, x))
    if inside == box:
        return array[(..., *box.slices)]
    if pad not in get_args(Padding):
        raise UsageError(
            f"the box {box.start} to {box.stop} reaches beyond a volume of {(z, y, x)} voxels: "
            f"cut it, or pass pad= {', '.join(map(repr, get_args(Padding)))}"
        )
    if pad == "constant":
        block = np.zeros((*array.shape[:-3], *box.shape), array.dtype)
        if inside.n_voxels:
            block[(..., *inside.within(box))] = array[(..., *inside.slices)]
        return block
    fold = _reflected if pad == "reflect" else _clipped
    places = [
        fold(np.arange(start, stop), n)
        for start, stop, n in zip(box.start, box.stop, (z, y, x), strict=True)
    ]
    hull = array[(..., *(slice(place.min(), place.max() + 1) for place in places))]
    padded: NDArray[Any] = hull[(..., *np.ix_(*(place - place.min() for place in places)))]
    return padded


def _clipped(places: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    return np.clip(places, 0, n - 1)


def _reflected(places: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """Go to and fro between the first and the last voxel, which are not repeated."""
    period = max(1, 2 * (n - 1))
    return (n - 1) - np.abs((n - 1) - places % period)
