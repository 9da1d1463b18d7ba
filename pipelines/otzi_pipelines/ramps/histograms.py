"""One histogram for each class and slice, of blocks of probabilities in any order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from otzi.compiled import compiled
from otzi.tiles.blend import PROBABILITY_STEPS

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

__all__ = ["SliceHistograms", "code_count", "codes_of", "histogram_bytes"]


def code_count(dtype: DTypeLike) -> int:
    """Give how many codes there are for a probability of 0 to 1, stored as `dtype`.

    As many as a uint8 has; of floats as many as a tile's probability had before it was blended.
    """
    return 256 if np.dtype(dtype) == np.uint8 else PROBABILITY_STEPS + 1


def histogram_bytes(n_classes: int, depth: int, dtype: DTypeLike) -> int:
    """Give the memory that the `SliceHistograms` of a volume take: of floats 64 kB a slice."""
    return n_classes * depth * code_count(dtype) * np.dtype(np.uint32).itemsize


def codes_of(stored: NDArray[Any]) -> NDArray[Any]:
    """Give probabilities as integers 0 … ``code_count − 1``: the same shape, uint8 or uint16.

    uint8 is given back as it is; of floats the nearest code, and 0 of what is no number.
    """
    if stored.dtype == np.uint8:
        return stored
    scaled = np.nan_to_num(stored.astype(np.float32) * np.float32(PROBABILITY_STEPS))
    np.rint(np.clip(scaled, 0, PROBABILITY_STEPS, out=scaled), out=scaled)
    codes: NDArray[np.uint16] = scaled.astype(np.uint16)
    return codes


class SliceHistograms:
    """Counts of every code in every slice of every class; blocks are added in any order."""

    counts: NDArray[np.uint32]
    """``(c, z, code)``."""

    def __init__(self, n_classes: int, depth: int, dtype: DTypeLike) -> None:
        self.counts = np.zeros((n_classes, depth, code_count(dtype)), np.uint32)

    def add(self, start: int, codes: NDArray[Any]) -> None:
        """Count a block, ``(c, z, y, x)`` of `codes_of`, whose first slice is `start`.

        Blocks of different slices may be added from several threads at once, of the same not.
        """
        counts = self.counts[:, start : start + codes.shape[1]]
        if codes.dtype == np.uint8:
            _count_bytes(codes, counts)
        else:
            _count(codes, counts)


@compiled
def _count(codes: NDArray[np.uint16], counts: NDArray[np.uint32]) -> None:
    n_classes, depth, rows, _ = codes.shape
    for c in range(n_classes):
        for z in range(depth):
            own = counts[c, z]
            for y in range(rows):
                for code in codes[c, z, y]:
                    own[code] += 1


@compiled
def _count_bytes(codes: NDArray[np.uint8], counts: NDArray[np.uint32]) -> None:
    """Count into four tables by turns: in background one count would wait for the one before."""
    n_classes, depth, rows, columns = codes.shape
    quarter = columns // 4
    tables = np.zeros((4, 256), np.uint32)
    for c in range(n_classes):
        for z in range(depth):
            tables[:] = 0
            for y in range(rows):
                row = codes[c, z, y]
                for x in range(quarter):
                    tables[0, row[4 * x]] += 1
                    tables[1, row[4 * x + 1]] += 1
                    tables[2, row[4 * x + 2]] += 1
                    tables[3, row[4 * x + 3]] += 1
                for x in range(4 * quarter, columns):
                    tables[0, row[x]] += 1
            for code in range(256):
                for table in range(4):
                    counts[c, z, code] += tables[table, code]
