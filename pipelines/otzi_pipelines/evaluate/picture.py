"""The reliability diagram: how often a class is there against how probable it was said to be."""

from __future__ import annotations

from itertools import pairwise
from math import log10
from typing import TYPE_CHECKING

import numpy as np

from otzi.errors import disk_errors
from otzi.files import writing_whole
from otzi.metrics import N_BINS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont
    from PIL.ImageFont import ImageFont as BitmapFont

    from otzi.classes import ClassTable
    from otzi_pipelines.evaluate.report import Evaluation

    Font = FreeTypeFont | BitmapFont

__all__ = ["draw_reliability", "save_reliability"]

_SIDE, _LEFT, _TOP, _GAP, _BARS, _BELOW = 480, 70, 40, 24, 120, 48
_FONT_PIXELS = 15
_INK, _GRID, _DIAGONAL, _PAPER = "#202020", "#dddddd", "#999999", "white"
_DOT = 4


def save_reliability(evaluations: Mapping[str, Evaluation], table: ClassTable, file: Path) -> None:
    """Write diagrams side by side as PNG into a file, which is replaced; keys are their titles."""
    from PIL import Image

    drawn = [draw_reliability(one, table, title) for title, one in evaluations.items()]
    image = Image.new("RGB", (sum(part.width for part in drawn), drawn[0].height), _PAPER)
    x = 0
    for part in drawn:
        image.paste(part, (x, 0))
        x += part.width
    with disk_errors(file, "writing"), writing_whole(file) as out:
        image.save(out, "PNG")


def draw_reliability(evaluation: Evaluation, table: ClassTable, title: str = "") -> Image:
    """Draw a line for each class and one for the most probable class; on the diagonal is honest.

    Below, the share of voxels in each bin, on a logarithmic axis from 1e-6 to 1.
    """
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(_FONT_PIXELS)
    agreement = evaluation.agreement
    bins = [*agreement.class_calibration, agreement.calibration]
    errors = [*agreement.class_calibration_error, agreement.calibration_error]
    names = [*evaluation.classes, "most probable"]
    colors = [*(table[table.index(name)].color for name in evaluation.classes), _INK]
    entries = [f"{name}  {error:.4f}" for name, error in zip(names, errors, strict=True)]
    legend = _LEFT + _SIDE + 16
    width = legend + 32 + max(map(font.getlength, entries)) + 16
    image = Image.new("RGB", (int(width), _TOP + _SIDE + _GAP + _BARS + _BELOW), _PAPER)
    draw = ImageDraw.Draw(image)
    _draw_axes(draw, font)
    draw.text((_LEFT + _SIDE, 10), title, fill=_INK, font=font, anchor="ra")
    draw.text((legend, _TOP), "calibration error", fill=_INK, font=font)
    for row, (entry, color, of_class) in enumerate(zip(entries, colors, bins, strict=True), 1):
        _draw_curve(draw, of_class, color)
        y = _TOP + row * (_FONT_PIXELS + 8)
        draw.line([(legend, y + 9), (legend + 24, y + 9)], color, 3)
        draw.text((legend + 32, y), entry, fill=_INK, font=font)
    return image


def _draw_axes(draw: ImageDraw, font: Font) -> None:
    bottom, right = _TOP + _SIDE, _LEFT + _SIDE
    floor = bottom + _GAP + _BARS
    for tick in np.linspace(0, 1, 6):
        x, y = _place(tick, tick)
        draw.line([(x, _TOP), (x, bottom)], _GRID)
        draw.line([(_LEFT, y), (right, y)], _GRID)
        draw.text((_LEFT - 8, y), f"{tick:.1f}", fill=_INK, font=font, anchor="rm")
        draw.text((x, floor + 6), f"{tick:.1f}", fill=_INK, font=font, anchor="mt")
    for exponent in (0, -2, -4, -6):
        y = _height(10.0**exponent)
        draw.line([(_LEFT, y), (right, y)], _GRID)
        draw.text((_LEFT - 8, y), f"1e{exponent}", fill=_INK, font=font, anchor="rm")
    draw.line([_place(0, 0), _place(1, 1)], _DIAGONAL)
    for top, low in ((_TOP, bottom), (bottom + _GAP, floor)):
        draw.rectangle([(_LEFT, top), (right, low)], outline=_INK)
    draw.text((_LEFT, 10), "share of the truth", fill=_INK, font=font)
    draw.text((right, floor + 24), "probability", fill=_INK, font=font, anchor="rt")
    draw.text((_LEFT, bottom + 4), "share of the voxels", fill=_INK, font=font)


def _draw_curve(draw: ImageDraw, bins: NDArray[np.float64], color: str) -> None:
    voxels, said, true = bins.T
    there = np.flatnonzero(voxels)
    points = [_place(said[i] / voxels[i], true[i] / voxels[i]) for i in there]
    for pair in pairwise(points):
        draw.line(pair, color, 2)
    for x, y in points:
        draw.ellipse([(x - _DOT, y - _DOT), (x + _DOT, y + _DOT)], fill=color)
    for i in there:
        y = _height(voxels[i] / voxels.sum())
        (x, _), (end, _) = _place(i / N_BINS, 0), _place((i + 1) / N_BINS, 0)
        draw.line([(x + 1, y), (end - 1, y)], color, 2)


def _place(probability: float, share: float) -> tuple[float, float]:
    """Give x and y of a point of the diagram, in pixels."""
    return _LEFT + probability * _SIDE, _TOP + (1 - share) * _SIDE


def _height(share: float) -> float:
    """Give y of a share of the voxels, in pixels."""
    return _TOP + _SIDE + _GAP + _BARS * min(-log10(share), 6) / 6
