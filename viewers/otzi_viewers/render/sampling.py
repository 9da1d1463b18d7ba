"""Random numbers that depend on what they are for and on nothing else, and points of a ball.  Pure.

A draw has a key made of (seed, sample, step, pixel) and a number of its own, so that it is the same
in any order of rays, tiles, steps skipped or threads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from otzi.compiled import compiled

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["WHOLE_RAY", "ball_points", "draw_key", "subpixel_offset", "uniform"]

WHOLE_RAY = 0xFFFFFFFF
"""The step index of draws that belong to a whole ray."""

_MASK = np.uint64(0xFFFFFFFF)
_GOLDEN = np.uint64(0x9E3779B9)


@compiled
def _scramble(word: np.uint64) -> np.uint64:
    """Give a 32-bit hash of a 32-bit word (C. Wellons, hash prospector, lowbias32)."""
    word ^= word >> np.uint64(16)
    word = (word * np.uint64(0x7FEB352D)) & _MASK
    word ^= word >> np.uint64(15)
    word = (word * np.uint64(0x846CA68B)) & _MASK
    word ^= word >> np.uint64(16)
    return word


@compiled
def draw_key(seed: int, sample: int, step: int, pixel: int) -> np.uint64:
    """Give the key of the draws of one step of one ray."""
    key = _scramble(np.uint64(seed) & _MASK)
    key = _scramble((key + np.uint64(sample)) & _MASK)
    key = _scramble((key + np.uint64(step)) & _MASK)
    return _scramble((key + np.uint64(pixel)) & _MASK)


@compiled
def uniform(key: np.uint64, number: int) -> float:
    """Give draw `number` of a key, uniform in [0, 1)."""
    word = _scramble((key + np.uint64(number + 1) * _GOLDEN) & _MASK)
    return float(word) / 4294967296.0


def subpixel_offset(sample: int) -> tuple[float, float]:
    """Give the place of a sample in its pixel, row and column in [0, 1); sample 0 is the centre.

    The additive sequence R2 (M. Roberts 2018): any first few samples cover the pixel evenly.
    """
    plastic = 1.32471795724474602596
    return (0.5 + sample / plastic) % 1.0, (0.5 + sample / plastic**2) % 1.0


def ball_points(count: int) -> NDArray[np.float64]:
    """Give points spread evenly in the unit ball: ``(count, 3)`` float64, z, y, x.

    The additive sequence R3 (M. Roberts 2018), mapped to the ball by volume: any run of neighbours,
    wherever it begins, is spread evenly too.
    """
    base = 1.22074408460575947536
    steps = np.arange(1, count + 1)[:, None] / base ** np.arange(1, 4)
    height, turn, depth = (0.5 + steps.T) % 1.0
    radius = np.cbrt(depth)
    cosine = 1 - 2 * height
    sine = np.sqrt(1 - cosine**2)
    angle = 2 * np.pi * turn
    unit = np.stack([cosine, sine * np.sin(angle), sine * np.cos(angle)], axis=1)
    points: NDArray[np.float64] = radius[:, None] * unit
    return points
