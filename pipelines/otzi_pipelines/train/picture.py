"""What a network finds beside what it was to find: a row for each crop, its middle planes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from otzi.classes import ClassTable
from otzi.errors import disk_errors
from otzi.files import writing_whole

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from PIL.Image import Image

__all__ = ["Row", "draw_rows", "draw_validation", "save_png"]

Row = tuple["NDArray[np.float32]", "NDArray[np.float32]", "NDArray[np.float32]"]
"""Of one plane: density ``(y, x)``, normalised; target and probabilities ``(c, y, x)``."""

_LEAST_SIDE, _GAP, _CAPTION = 128, 4, 20
_RANGE = 3.0
"""Standard deviations of the density from black to white, each way."""
_UNKNOWN = 64
_INK, _PAPER = "#202020", "white"


def draw_validation(rows: Sequence[Row], classes: Sequence[str], table: ClassTable) -> Image:
    """Draw `draw_rows`, with the names of columns above and those of classes below."""
    from PIL import Image, ImageDraw, ImageFont

    colours = _colours(classes, table)
    pixels = draw_rows(rows, colours)
    height, width = pixels.shape[:2]
    image = Image.new("RGB", (width, height + 2 * _CAPTION), _PAPER)
    image.paste(Image.fromarray(pixels), (0, _CAPTION))
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(14)
    for column, caption in enumerate(("density", "target", "prediction")):
        draw.text((column * (width + _GAP) // 3 + 4, 2), caption, fill=_INK, font=font)
    x = 4
    for name, colour in zip(classes, colours, strict=True):
        draw.rectangle((x, height + _CAPTION + 5, x + 10, height + _CAPTION + 15), tuple(colour))
        draw.text((x + 14, height + _CAPTION + 2), name, fill=_INK, font=font)
        x += 28 + int(font.getlength(name))
    return image


def save_png(image: Image, file: Path) -> None:
    """Write a picture into a file, which is replaced; its folder is made if need be."""
    with disk_errors(file, "writing"):
        file.parent.mkdir(parents=True, exist_ok=True)
        with writing_whole(file) as out:
            image.save(out, "PNG")


def draw_rows(rows: Sequence[Row], colours: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Give ``(height, width, 3)`` uint8: density, target and probabilities of each row.

    Each class has its colour by as much as it is there; where nothing is known it is grey.

    Parameters
    ----------
    rows
        All of the same shape.
    colours
        ``(c, 3)`` uint8.
    """
    scale = -(-_LEAST_SIDE // min(rows[0][0].shape))
    drawn = []
    for density, target, probabilities in rows:
        grey = np.clip((density + _RANGE) / (2 * _RANGE), 0, 1)[..., None] * 255
        panels = [
            np.broadcast_to(grey, (*grey.shape[:2], 3)),
            *(_mixed(shares, colours) for shares in (target, probabilities)),
        ]
        enlarged = [panel.repeat(scale, 0).repeat(scale, 1) for panel in panels]
        drawn.append(_joined(enlarged, axis=1))
    return _joined(drawn, axis=0).round().astype(np.uint8)


def _mixed(shares: NDArray[np.float32], colours: NDArray[np.uint8]) -> NDArray[np.float32]:
    known = shares.sum(axis=0).clip(0, 1)[..., None]
    mixture: NDArray[np.float32] = np.einsum("cyx,cr->yxr", shares, colours.astype(np.float32))
    mixture += (1 - known) * np.float32(_UNKNOWN)
    return mixture.clip(0, 255)


def _joined(panels: Sequence[NDArray[np.float32]], axis: int) -> NDArray[np.float32]:
    shape = list(panels[0].shape)
    shape[axis] = _GAP
    gap = np.full(shape, 255, np.float32)
    spaced = [part for panel in panels for part in (gap, panel)]
    return np.concatenate(spaced[1:], axis=axis)


def _colours(classes: Sequence[str], table: ClassTable) -> NDArray[np.uint8]:
    """Give ``(c, 3)`` uint8, those of the table where it has the class."""
    named = ClassTable.named(classes, {c.name: c.color for c in table.classes})
    return np.array([[round(255 * part) for part in c.rgb] for c in named.classes], np.uint8)
