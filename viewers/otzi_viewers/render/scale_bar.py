"""The bar that tells the size of what is seen, and its label."""

from __future__ import annotations

from math import floor, log10
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["bar_length_angstrom", "length_label", "with_scale_bar"]

_LARGEST_SHARE = 0.25
"""Of the picture's width."""


def bar_length_angstrom(width_angstrom: float) -> float:
    """Give the largest of 1, 2, 5, 10, … ångström within a quarter of the width of the view."""
    largest = _LARGEST_SHARE * width_angstrom
    power = 10.0 ** floor(log10(largest))
    # The logarithm of a length just short of a power of ten is rounded up to it.
    return max(factor * power for factor in (0.5, 1, 2, 5) if factor * power <= largest)


def length_label(angstrom: float) -> str:
    """Give a length as people write it: ``"50 nm"``, ``"5 Å"``, ``"1 µm"``."""
    for unit, size in (("µm", 1e4), ("nm", 10.0)):
        if angstrom >= size:
            return f"{angstrom / size:g} {unit}"
    return f"{angstrom:g} Å"


def with_scale_bar(picture: NDArray[np.float32], angstrom_per_pixel: float) -> NDArray[np.float32]:
    """Give the picture, ``(rows, columns, 3)`` in [0, 1], with a bar in its lower left corner.

    In perspective the bar is true in the plane through the camera's target.
    """
    height, width, _ = picture.shape
    length = bar_length_angstrom(width * angstrom_per_pixel)
    size = max(9, round(height / 38))
    margin, thick = 1.2 * size, max(2, size // 5)
    ink = Image.new("L", (width, height), 0)
    draw = ImageDraw.Draw(ink)
    bottom = height - margin
    right = margin + length / angstrom_per_pixel
    draw.rectangle((margin, bottom - thick, right, bottom), fill=255)
    middle = ((margin + right) / 2, bottom - thick - 0.35 * size)
    draw.text(middle, length_label(length), 255, ImageFont.load_default(size), anchor="ms")
    share = np.asarray(ink, np.float32)[..., None] / 255
    corner = picture[int(height - 4 * size) :, : int(right + margin)]
    color = np.float32(1.0 if corner.mean() < 0.5 else 0.0)
    return picture + share * (color - picture)
