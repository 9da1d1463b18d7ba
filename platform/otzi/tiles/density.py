"""The density of a tomogram as networks see it: normalised as a whole, read box by box."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import numpy as np

from otzi.normalise import ROBUST, Normalisation

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from otzi.box import Box
    from otzi.store.reader import LevelArray
    from otzi.tiles.plan import TilePlan
    from otzi.tomogram import Tomogram

__all__ = ["NormalisedDensity", "slab_bytes"]


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
    of those of `otzi.normalise`.
    """

    def __init__(self, tomo: Tomogram, cache_bytes: int = 0, normalisation: str = ROBUST) -> None:
        self.shape = tomo.shape
        self._normalise = Normalisation.of(tomo.raw, normalisation)
        self._array = tomo.array("raw", cache_bytes=cache_bytes)
        self._scale, self._offset = map(np.float32, tomo.quantisation)

    def __call__(self, box: Box) -> NDArray[np.float32]:
        """Give the normalised density of a box inside the volume."""
        stored = self._array[box.slices].astype(np.float32)
        return self._normalise(stored * self._scale + self._offset)
