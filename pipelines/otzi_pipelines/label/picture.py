"""A look at labels: three slices, each as density, labels and uncertainty, in one PNG."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np

from otzi.box import Box
from otzi.classes import ClassTable
from otzi.errors import CannotCreate, disk_errors
from otzi_pipelines.label.uncertainty import read_uncertainty
from otzi_pipelines.overlay import coloured, draw_sheet, grey_levels

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from PIL.Image import Image

    from otzi.tomogram import Tomogram

__all__ = ["checked_picture", "draw_slices", "save_picture"]

_LONGEST_PIXELS = 512
_HEAT = np.array([[0, 0, 0], [150, 30, 90], [250, 150, 40], [255, 255, 220]], np.float64)
"""From sure to unsure."""


def checked_picture(file: Path) -> Path:
    """Give back the name of a picture that can be written.

    Raises
    ------
    CannotCreate
        If the file is no ``.png`` or its folder is not there.
    """
    if file.suffix.lower() != ".png" or not file.parent.is_dir():
        raise CannotCreate(f"{file}: name a file .png in a folder that is there")
    return file


def save_picture(tomo: Tomogram, name: str, file: Path) -> None:
    """Write `draw_slices` of ``labels/NAME`` as PNG into a file, which is replaced."""
    data = BytesIO()
    draw_slices(tomo, name).save(data, "PNG")
    with disk_errors(file, "writing"):
        file.write_bytes(data.getvalue())


def draw_slices(tomo: Tomogram, name: str) -> Image:
    """Draw the slices at 1/4, 1/2 and 3/4 of the depth, a row each.

    From left to right the density, the labels in the colours of their classes over it, and, of soft
    labels, the uncertainty: black where the forest is sure, bright where it is not. A level of the
    pyramid is drawn with at most 512 pixels a side, if there is one.
    """
    level = _level(tomo, name)
    density, labels = tomo.array("raw", level), tomo.array(f"labels/{name}", level)
    names = tomo.attributes(f"labels/{name}")["classes"]
    table = tomo.classes.having(names) or ClassTable.named(names)
    kinds = [table[table.index(kind)] for kind in names]
    percentiles = tomo.attributes("raw")["statistics"]["percentiles"]
    rows = []
    for quarter in (1, 2, 3):
        z = density.shape[0] * quarter // 4
        grey = grey_levels(density[z], percentiles["0.5"], percentiles["99.5"])
        shares = _shares(labels[..., z, :, :], len(kinds))
        row = [np.repeat(grey[..., None], 3, axis=2), coloured(grey, shares, kinds)]
        if labels.ndim == 4:
            plane = Box((z, 0, 0), (z + 1, *grey.shape))
            row.append(_heat(read_uncertainty(tomo, name, plane, level)[0]))
        rows.append(((f"z = {z * 2**level}  density", "", "uncertainty")[: len(row)], row))
    return draw_sheet(rows, kinds)


def _level(tomo: Tomogram, name: str) -> int:
    last = tomo.image(f"labels/{name}").n_levels - 1
    for level in range(last):
        if max(tomo.array("raw", level).shape[1:]) <= _LONGEST_PIXELS:
            return level
    return last


def _shares(labels: NDArray[np.uint8], n_classes: int) -> NDArray[np.uint8]:
    """Give soft labels as they are, of hard ones ``(c, y, x)``: 255 where the class is."""
    if labels.ndim == 3:
        return labels
    shares: NDArray[np.uint8] = (labels == np.arange(n_classes)[:, None, None]) * np.uint8(255)
    return shares


def _heat(unsure: NDArray[np.uint8]) -> NDArray[np.float64]:
    steps = np.linspace(0, 255, len(_HEAT))
    return np.stack([np.interp(unsure, steps, channel) for channel in _HEAT.T], axis=-1)
