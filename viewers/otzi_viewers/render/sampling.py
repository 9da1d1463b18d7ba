"""Where rays cross a pixel, and points of a ball: sequences that cover evenly.  Pure."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["ball_points", "sample_rounds", "subpixel_offset"]


def subpixel_offset(sample: int) -> tuple[float, float]:
    """Give the place of a sample in its pixel, row and column in [0, 1); sample 0 is the centre.

    The additive sequence R2 (M. Roberts 2018): any first few samples cover the pixel evenly.
    """
    plastic = 1.32471795724474602596
    return (0.5 + sample / plastic) % 1.0, (0.5 + sample / plastic**2) % 1.0


def sample_rounds(spp: int) -> list[range]:
    """Give the samples of a picture in rounds, after each of which there are twice as many."""
    ends = [0, *(2**n for n in range(spp.bit_length()) if 2**n < spp), spp]
    return [range(first, last) for first, last in pairwise(ends)]


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
