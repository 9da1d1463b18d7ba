"""A look at labels: three slices, each as density, labels and uncertainty, in one PNG."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np

from otzi.box import Box
from otzi.classes import ClassTable, rgb_of
from otzi.errors import CannotCreate, disk_errors
from otzi_pipelines.label.uncertainty import read_uncertainty

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from PIL.Image import Image

    from otzi.classes import SegmentClass
    from otzi.tomogram import Tomogram

__all__ = ["checked_picture", "draw_slices", "save_picture"]

_LONGEST_PIXELS = 512
_GAP_PIXELS = 6
_CAPTION_PIXELS = 22
_FONT_PIXELS = 14
_STRENGTH = 0.7
"""Of the colour over the density, where a class is certain."""
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
        grey = _grey(density[z], percentiles["0.5"], percentiles["99.5"])
        row = [np.repeat(grey[..., None], 3, axis=2), _coloured(grey, labels[..., z, :, :], kinds)]
        if labels.ndim == 4:
            plane = Box((z, 0, 0), (z + 1, *grey.shape))
            row.append(_heat(read_uncertainty(tomo, name, plane, level)[0]))
        rows.append((z * 2**level, row))
    return _sheet(rows, kinds)


def _level(tomo: Tomogram, name: str) -> int:
    last = tomo.image(f"labels/{name}").n_levels - 1
    for level in range(last):
        if max(tomo.array("raw", level).shape[1:]) <= _LONGEST_PIXELS:
            return level
    return last


def _grey(plane: NDArray[Any], low: float, high: float) -> NDArray[np.float64]:
    return np.clip((plane.astype(np.float64) - low) / ((high - low) or 1), 0, 1) * 255


def _coloured(
    grey: NDArray[np.float64], labels: NDArray[np.uint8], kinds: list[SegmentClass]
) -> NDArray[np.float64]:
    """Lay every class but the background over the density, ``(y, x, 3)``."""
    if labels.ndim == 2:
        labels = (labels == np.arange(len(kinds))[:, None, None]) * np.uint8(255)
    painted = np.repeat(grey[..., None], 3, axis=2)
    painted *= 1 - _STRENGTH * (1 - labels[0, ..., None] / 255)
    for share, kind in zip(labels[1:], kinds[1:], strict=True):
        painted += _STRENGTH * share[..., None] * np.array(rgb_of(kind.color))
    return painted


def _heat(unsure: NDArray[np.uint8]) -> NDArray[np.float64]:
    steps = np.linspace(0, 255, len(_HEAT))
    return np.stack([np.interp(unsure, steps, channel) for channel in _HEAT.T], axis=-1)


def _sheet(rows: list[tuple[int, list[NDArray[np.float64]]]], kinds: list[SegmentClass]) -> Image:
    """Lay the panels out in rows, each with a caption above it."""
    from PIL import Image, ImageDraw, ImageFont

    height, width = rows[0][1][0].shape[:2]
    across, down = width + _GAP_PIXELS, height + _CAPTION_PIXELS
    sheet = Image.new("RGB", (len(rows[0][1]) * across - _GAP_PIXELS, len(rows) * down), "black")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(_FONT_PIXELS)
    for i, (z, panels) in enumerate(rows):
        for j, (panel, title) in enumerate(
            zip(panels, ("density", "", "uncertainty"), strict=False)
        ):
            sheet.paste(
                Image.fromarray(np.rint(panel).clip(0, 255).astype(np.uint8)),
                (j * across, i * down + _CAPTION_PIXELS),
            )
            text = f"z = {z}  density" if title == "density" else title
            draw.text((j * across + 3, i * down + 3), text, fill="white", font=font)
        x = float(across + 3)
        for kind in kinds[1:]:
            draw.text((x, i * down + 3), kind.name, fill=kind.color, font=font)
            x += draw.textlength(kind.name + "  ", font=font)
    return sheet
