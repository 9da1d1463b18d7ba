"""The middle slices of a tomogram, each as density and with the classes over it, in one PNG."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from otzi.classes import ClassTable
from otzi.errors import disk_errors
from otzi.files import writing_whole
from otzi_pipelines.overlay import coloured, draw_sheet, grey_levels
from otzi_pipelines.ramps.histograms import codes_of

if TYPE_CHECKING:
    from pathlib import Path

    from PIL.Image import Image

    from otzi.tomogram import Tomogram

__all__ = ["draw_middle_slices", "save_slices"]

_LONGEST_PIXELS = 512


def save_slices(tomo: Tomogram, product: str, file: Path) -> None:
    """Write `draw_middle_slices` as PNG into a file, which is replaced."""
    image = draw_middle_slices(tomo, product)
    with disk_errors(file, "writing"), writing_whole(file) as out:
        image.save(out, "PNG")


def draw_middle_slices(tomo: Tomogram, product: str) -> Image:
    """Draw the middle slice across z, y and x, a row each: density, and classes over it.

    A level of the pyramid is drawn with at most 512 pixels a side, if there is one.

    Parameters
    ----------
    tomo
        What to draw.
    product
        Its ``(c, z, y, x)`` product: ``probs/NAME``.
    """
    level = _level(tomo, product)
    density, soft = tomo.array("raw", level), tomo.array(product, level)
    names = tomo.image(product).channels or ()
    table = tomo.classes.having(names) or ClassTable.named(names)
    kinds = [table[table.index(name)] for name in names]
    percentiles = tomo.attributes("raw")["statistics"]["percentiles"]
    rows = []
    for axis, letter in enumerate("zyx"):
        middle = density.shape[axis] // 2
        region = tuple(middle if i == axis else slice(None) for i in range(3))
        grey = grey_levels(density[region], percentiles["0.5"], percentiles["99.5"])
        codes = codes_of(soft[(slice(None), *region)])
        shares = codes * (255 / (255 if codes.dtype == np.uint8 else 16383))
        panels = [np.repeat(grey[..., None], 3, axis=2), coloured(grey, shares, kinds)]
        rows.append(((f"{letter} = {middle * 2**level}  density", ""), panels))
    return draw_sheet(rows, kinds)


def _level(tomo: Tomogram, product: str) -> int:
    """Give the finest level of both that fits, otherwise their coarsest."""
    last = min(tomo.image(name).n_levels for name in ("raw", product)) - 1
    for level in range(last):
        if max(tomo.array("raw", level).shape) <= _LONGEST_PIXELS:
            return level
    return last
