"""The density of a tomogram as networks see it: normalised as a whole, read box by box."""

from __future__ import annotations

import functools
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from otzi.compiled import compiled
from otzi.normalise import ROBUST, Normalisation
from otzi.store.reader import LevelArray

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from otzi.box import Box
    from otzi.store.location import Location
    from otzi.tiles.plan import TilePlan
    from otzi.tomogram import Tomogram

__all__ = ["NormalisedDensity", "slab_bytes"]

_BUFFER_VOXELS = 1024


def slab_bytes(array: LevelArray, plan: TilePlan) -> int:
    """Give the decoded size of the chunks that one cross-section of tiles touches.

    Where so much is kept, tiles that come in the order of `plan.sweep` decode hardly a chunk twice.
    """
    longest = max(range(3), key=plan.shape.__getitem__)
    layers = [-(-n // c) for n, c in zip(array.shape, array.chunk, strict=True)]
    spans = map(plan.axes[longest].read, range(plan.grid[longest]))
    c = array.chunk[longest]
    layers[longest] = max(-(-stop // c) - start // c for start, stop in spans)
    return prod(layers) * prod(array.chunk) * array.dtype.itemsize


class NormalisedDensity:
    """A reader: ``density(box)`` gives ``(z, y, x)`` float32, normalised; from any thread.

    Of decoded chunks up to `cache_bytes` are kept for boxes that overlap; the normalisation is one
    of those of `otzi.normalise`. Copies sent to another process share one that reads there.
    """

    def __init__(self, tomo: Tomogram, cache_bytes: int = 0, normalisation: str = ROBUST) -> None:
        self.shape = tomo.shape
        self._normalise = Normalisation.of(tomo.raw, normalisation)
        self._array = tomo.array("raw", cache_bytes=cache_bytes)
        self._scale, self._offset = tomo.quantisation

    def __call__(self, box: Box) -> NDArray[np.float32]:
        """Give the normalised density of a box inside the volume."""
        stored = self._array[box.slices]
        if stored.dtype == np.float16:  # which compiled code does not know
            stored = stored.astype(np.float32)
        # What was read is nobody else's: float32 is normalised where it lies.
        density = stored if stored.dtype == np.float32 else np.empty(stored.shape, np.float32)
        way = self._normalise
        _normalise(
            stored.reshape(-1),
            np.float32(self._scale),
            np.float32(self._offset),
            np.float32(way.low),
            np.float32(way.high),
            np.float32(way.offset),
            np.float32(way.scale or 1.0),
            density.reshape(-1),
        )
        return density

    def __reduce__(self) -> tuple[Any, ...]:
        array = self._array
        where = (array.generation, array.level, array.cache_bytes)
        how = (self._normalise, self._scale, self._offset)
        return _read_once, (type(self), array.__dask_tokenize__(), where, *how)


@functools.lru_cache(maxsize=4)
def _read_once(
    kind: type[NormalisedDensity],
    _content: tuple[str, ...],
    where: tuple[Location, int, int],
    normalise: Normalisation,
    scale: float,
    offset: float,
) -> NormalisedDensity:
    density = kind.__new__(kind)
    density._array = LevelArray(*where)
    z, y, x = density._array.shape
    density.shape = (z, y, x)
    density._normalise, density._scale, density._offset = normalise, scale, offset
    return density


@compiled
def _normalise(
    stored: NDArray[Any],
    scale: np.float32,
    offset: np.float32,
    low: np.float32,
    high: np.float32,
    middle: np.float32,
    width: np.float32,
    density: NDArray[np.float32],
) -> None:
    """Do what `Normalisation` does, in one pass; `density` may be `stored` itself.

    By way of a buffer: a loop that may write what it reads later takes one voxel at a time.
    """
    buffer = np.empty(_BUFFER_VOXELS, np.float32)
    for start in range(0, stored.size, _BUFFER_VOXELS):
        n = min(_BUFFER_VOXELS, stored.size - start)
        for i in range(n):
            value = np.float32(stored[start + i]) * scale + offset
            value = low if value < low else value
            value = high if value > high else value
            value = (value - middle) / width
            buffer[i] = value if value == value else np.float32(0)
        density[start : start + n] = buffer[:n]
