"""The threshold of every slice against z, one line for each class."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from otzi.classes import ClassTable
from otzi.errors import CannotCreate, disk_errors
from otzi.files import writing_whole
from otzi.ramps import quadratic

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont
    from PIL.ImageFont import ImageFont as BitmapFont

    from otzi.tomogram import Tomogram
    from otzi_pipelines.ramps.stored import StoredRamps

    Font = FreeTypeFont | BitmapFont
    Points = list[tuple[float, float]]

__all__ = ["checked_pattern", "draw_ramps", "save_ramps_picture"]

_PLACEHOLDER = "{tomogram}"
_WIDTH, _HEIGHT, _LEFT, _TOP, _BELOW = 640, 400, 60, 40, 48
_FONT_PIXELS = 15
_DASH_PIXELS = 8
_INK, _GRID, _PAPER, _OUTSIDE = "#202020", "#dddddd", "white", "#efefef"


def checked_pattern(pattern: str, tomograms: Sequence[str]) -> dict[str, Path]:
    """Give the file of every tomogram, whose id stands for ``{tomogram}``.

    Raises
    ------
    CannotCreate
        If a file is no ``.png``, its folder is not there, or it is that of several tomograms.
    """
    if len(tomograms) > 1 and _PLACEHOLDER not in pattern:
        raise CannotCreate(
            f"{pattern} would hold {len(tomograms)} pictures: write {_PLACEHOLDER} where the id "
            "is to stand"
        )
    files = {id_: Path(pattern.replace(_PLACEHOLDER, id_)) for id_ in tomograms}
    for file in files.values():
        if file.suffix.lower() != ".png" or not file.parent.is_dir():
            raise CannotCreate(f"{file}: name a file .png in a folder that is there")
    return files


def save_ramps_picture(tomo: Tomogram, ramps: StoredRamps, file: Path) -> None:
    """Write `draw_ramps` as PNG into a file, which is replaced."""
    table = tomo.classes.having(tuple(ramps.entries)) or ClassTable.named(tuple(ramps.entries))
    image = draw_ramps(ramps, table, tomo.id)
    with disk_errors(file, "writing"), writing_whole(file) as out:
        image.save(out, "PNG")


def draw_ramps(ramps: StoredRamps, table: ClassTable, title: str) -> Image:
    """Draw a curve for each class, its left limit dashed and its quadratic thin.

    Grey are the slices outside the slab; where a slice has no threshold the curve has a gap.
    """
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(_FONT_PIXELS)
    entries = [_entry(name, entry["low"]) for name, entry in ramps.entries.items()]
    legend = _LEFT + _WIDTH + 16
    width = legend + 32 + max(font.getlength(text) for text in (*entries, "outside the slab")) + 16
    image = Image.new("RGB", (int(width), _TOP + _HEIGHT + _BELOW), _PAPER)
    draw = ImageDraw.Draw(image)
    depth = ramps.slab.depth
    for start, stop in ((0, ramps.slab.start), (ramps.slab.stop, depth)):
        if start < stop:
            edges = [_LEFT + _WIDTH * z / depth for z in (start, stop)]
            draw.rectangle([(edges[0], _TOP), (edges[1], _TOP + _HEIGHT)], fill=_OUTSIDE)
    _draw_axes(draw, font, depth, title)
    for row, (text, (name, own)) in enumerate(
        zip(entries, ramps.thresholds.items(), strict=True), 1
    ):
        color = table[table.index(name)].color
        entry = ramps.entries[name]
        fitted = quadratic(entry["quadratic"], depth)
        for points in _runs(own.curve, depth):
            _draw_points(draw, points, color, 3)
        _draw_points(draw, _places(range(depth), fitted, depth), color, 1)
        _draw_dashed(draw, _y(entry["low"]), color)
        y = _TOP + row * (_FONT_PIXELS + 8)
        draw.line([(legend, y + 9), (legend + 24, y + 9)], color, 3)
        draw.text((legend + 32, y), text, fill=_INK, font=font)
    y = _TOP + (len(entries) + 2) * (_FONT_PIXELS + 8)
    draw.rectangle([(legend, y), (legend + 24, y + 17)], fill=_OUTSIDE, outline=_GRID)
    draw.text((legend + 32, y), "outside the slab", fill=_INK, font=font)
    return image


def _entry(name: str, low: float) -> str:
    return f"{name}  {low:.3f}"


def _draw_axes(draw: ImageDraw, font: Font, depth: int, title: str) -> None:
    bottom, right = _TOP + _HEIGHT, _LEFT + _WIDTH
    for tick in np.linspace(0, 1, 6):
        draw.line([(_LEFT, _y(tick)), (right, _y(tick))], _GRID)
        draw.text((_LEFT - 8, _y(tick)), f"{tick:.1f}", fill=_INK, font=font, anchor="rm")
    for z in _ticks(depth):
        x = _x(z, depth)
        draw.line([(x, bottom), (x, bottom + 4)], _INK)
        draw.text((x, bottom + 8), str(z), fill=_INK, font=font, anchor="mt")
    draw.rectangle([(_LEFT, _TOP), (right, bottom)], outline=_INK)
    draw.text((_LEFT, 10), f"{title}: threshold of every slice", fill=_INK, font=font)
    draw.text((right, bottom + 26), "slice z", fill=_INK, font=font, anchor="rt")


def _ticks(depth: int) -> range:
    """Give about six round numbers below the depth."""
    rough = max(1, depth / 6)
    power = 10 ** int(np.log10(rough))
    step = next(n * power for n in (1, 2, 5, 10) if n * power >= rough)
    return range(0, depth, step)


def _runs(curve: np.ndarray, depth: int) -> Iterable[Points]:
    """Give the pieces of a curve between its gaps."""
    there = np.flatnonzero(np.isfinite(curve))
    for run in np.split(there, np.flatnonzero(np.diff(there) > 1) + 1):
        yield _places(run, curve[run], depth)


def _places(slices: Iterable[int], values: np.ndarray, depth: int) -> Points:
    return [(_x(z, depth), _y(value)) for z, value in zip(slices, values, strict=True)]


def _draw_points(draw: ImageDraw, points: Points, color: str, width: int) -> None:
    if len(points) == 1:
        ((x, y),) = points
        draw.ellipse([(x - width, y - width), (x + width, y + width)], fill=color)
    for pair in pairwise(points):
        draw.line(pair, color, width)


def _draw_dashed(draw: ImageDraw, y: float, color: str) -> None:
    for x in range(_LEFT, _LEFT + _WIDTH, 2 * _DASH_PIXELS):
        draw.line([(x, y), (min(x + _DASH_PIXELS, _LEFT + _WIDTH), y)], color, 1)


def _x(z: float, depth: int) -> float:
    return _LEFT + _WIDTH * (z + 0.5) / depth


def _y(value: float) -> float:
    return _TOP + _HEIGHT * (1 - value)
