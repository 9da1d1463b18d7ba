"""Strokes from the tables that napari saves of points and shapes.

Source: napari's writers of points (``index, axis-0, axis-1, axis-2`` and a column for each feature)
and of shapes (``index, shape-type, vertex-index, axis-0, axis-1, axis-2``). Coordinates are voxels
of the layer: they are those of the tomogram if the layer has its scale.
"""

from __future__ import annotations

import csv
from itertools import groupby
from math import isfinite, nan
from typing import TYPE_CHECKING

from otzi.errors import StrokesError, disk_errors
from otzi.stroke_files.class_names import class_named
from otzi.strokes import Stroke, Strokes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from otzi.classes import ClassTable
    from otzi.strokes import Point

__all__ = ["DEFAULT_RADIUS_VOXELS", "read_napari_table"]

DEFAULT_RADIUS_VOXELS = 1.5

_AXES = ("axis-0", "axis-1", "axis-2")
_OPEN, _CLOSED = ("path", "line"), ("polygon", "rectangle")

Row = dict[str, str]


def read_napari_table(path: Path, tomogram: str, classes: ClassTable) -> Strokes:
    """Give the strokes of a table of points or shapes.

    A point is a stroke of its own; a path or a line is one, and so is the outline of a polygon or
    a rectangle. The class is that of a column ``class`` or ``label``, or else the name of the file,
    as ``membrane.csv``, both as `class_named` takes them; the radius that of a column ``radius``,
    or else 1.5 voxels.

    Parameters
    ----------
    path
        The table.
    tomogram, classes
        What the strokes are for: the table does not say.

    Raises
    ------
    StrokesError
        If it is no such table, has other than 3 axes, or names a class that there is not.
    """
    try:
        with disk_errors(path, "reading"), path.open(newline="", encoding="utf-8-sig") as file:
            table = csv.DictReader(file, strict=True)
            columns = tuple(name.strip() for name in table.fieldnames or ())
            table.fieldnames = columns
            rows = [(table.line_num, row) for row in table]
    except (csv.Error, UnicodeDecodeError) as error:
        raise StrokesError(f"{path} is no table with commas: {error}") from error
    needed = {*_AXES, "index"} if "shape-type" in columns else {*_AXES}
    if not needed <= set(columns) or "axis-3" in columns:
        raise StrokesError(
            f"{path} has the columns {', '.join(columns) or 'none'}: a table of napari's points or "
            f"shapes in a volume has {', '.join(_AXES)} and no further axis"
        )
    for line, row in rows:
        if None in row or None in row.values():
            raise StrokesError(f"{path}, line {line} has other columns than the first line")
    return Strokes(tomogram, classes.names, tuple(_strokes(rows, path, classes)))


def _strokes(rows: list[tuple[int, Row]], path: Path, classes: ClassTable) -> Iterator[Stroke]:
    """Yield a stroke for each point, or for each run of rows with the same index of a shape."""
    for _, group in groupby(enumerate(rows), _shape_or_point):
        lines = [(line, row) for _, (line, row) in group]
        line, row = lines[0]
        where = f"{path}, line {line}"
        points = [_point(row, f"{path}, line {line}") for line, row in lines]
        kind = row.get("shape-type", "path").strip()
        if kind in _CLOSED:
            points.append(points[0])
        elif kind not in _OPEN:
            raise StrokesError(
                f"{where} is of type {kind!r}: strokes are {', '.join(_OPEN + _CLOSED)}, "
                "draw it as one of these"
            )
        radius = _number(row, "radius", where) if row.get("radius") else DEFAULT_RADIUS_VOXELS
        if radius < 0:
            raise StrokesError(f"{where} has radius {radius:g}: give voxels, at least 0")
        yield Stroke(_class_name(row, path, where, classes), radius, tuple(points))


def _shape_or_point(numbered: tuple[int, tuple[int, Row]]) -> str | int:
    """Give what the rows of one stroke have in common."""
    number, (_, row) = numbered
    return row["index"] if "shape-type" in row else number


def _class_name(row: Row, path: Path, where: str, classes: ClassTable) -> str:
    column = next((name for name in ("class", "label") if name in row), None)
    label = path.stem if column is None else row[column]
    name = class_named(label, classes)
    if name is not None:
        return name
    said = "the file is named" if column is None else f"{where} is of class"
    raise StrokesError(
        f"{said} {label!r}, the classes are {', '.join(classes.names)}: name the file after one, "
        "as membrane.csv, or add a column 'class'"
    )


def _point(row: Row, where: str) -> Point:
    z, y, x = (_number(row, axis, where) for axis in _AXES)
    return z, y, x


def _number(row: Row, column: str, where: str) -> float:
    try:
        value = float(row[column])
    except ValueError:
        value = nan
    if not isfinite(value):
        raise StrokesError(f"{where} has {column} {row[column]!r}: give a finite number")
    return value
