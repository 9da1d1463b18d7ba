"""Tables of napari: the same voxels as the same strokes in JSON."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

import numpy as np
import pytest

from otzi.box import Box
from otzi.classes import ClassTable
from otzi.errors import StrokesError
from otzi.stroke_files.napari import read_napari_table
from otzi.stroke_voxels import rasterise
from otzi.strokes import Stroke, Strokes, read_strokes, write_strokes

if TYPE_CHECKING:
    from pathlib import Path

CLASSES = ClassTable.named(("background", "membrane", "lumen"))
SHAPE = (12, 40, 30)
POINTS = ("index", "axis-0", "axis-1", "axis-2")
SHAPES = ("index", "shape-type", "vertex-index", "axis-0", "axis-1", "axis-2")


def table(path: Path, columns: tuple[str, ...], rows: list[tuple[object, ...]]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])
    return path


def shapes(*drawn: tuple[str, list[tuple[float, float, float]]]) -> list[tuple[object, ...]]:
    return [
        (i, kind, j, *point)
        for i, (kind, points) in enumerate(drawn)
        for j, point in enumerate(points)
    ]


def assert_same_as_json(path: Path, *strokes: Stroke) -> None:
    written = path.with_suffix(".json")
    write_strokes(written, Strokes("ts_001", CLASSES.names, strokes))
    found, expected = read_napari_table(path, "ts_001", CLASSES), read_strokes(written)
    assert found == expected
    found.check("ts_001", SHAPE, CLASSES)
    labels = [
        rasterise(s.strokes, CLASSES, SHAPE).labels(Box.whole(SHAPE)) for s in (found, expected)
    ]
    np.testing.assert_array_equal(*labels)
    assert labels[0].any()


def test_points_of_the_class_that_names_the_file(tmp_path: Path) -> None:
    rows = [(0.0, 3.0, 4.5, 6.0), (1.0, 11.0, 39.0, 0.25)]
    path = table(tmp_path / "membrane.csv", POINTS, rows)
    assert_same_as_json(
        path,
        Stroke("membrane", 1.5, ((3.0, 4.5, 6.0),)),
        Stroke("membrane", 1.5, ((11.0, 39.0, 0.25),)),
    )


@pytest.mark.parametrize("column", ["class", "label"])
def test_points_with_columns_of_class_and_radius(tmp_path: Path, column: str) -> None:
    rows = [(0, 3, 4, 6, 0.9, " Lumen", 2.5), (1, 3, 9, 6, 0.1, "background", "")]
    path = table(tmp_path / "Points.csv", (*POINTS, "confidence", column, "radius"), rows)
    assert_same_as_json(
        path,
        Stroke("lumen", 2.5, ((3.0, 4.0, 6.0),)),
        Stroke("background", 1.5, ((3.0, 9.0, 6.0),)),
    )


def test_shapes_are_polylines_and_outlines_are_closed(tmp_path: Path) -> None:
    path_points = [(4.0, 2.5, 3.0), (4.0, 30.0, 9.0), (4.0, 33.0, 20.0)]
    square = [(5.0, 5.0, 5.0), (5.0, 5.0, 15.0), (5.0, 15.0, 15.0), (5.0, 15.0, 5.0)]
    drawn = [
        ("path", path_points),
        ("line", path_points[:2]),
        ("rectangle", square),
        ("polygon", square[:3]),
    ]
    path = table(tmp_path / "lumen.csv", SHAPES, shapes(*drawn))
    assert_same_as_json(
        path,
        Stroke("lumen", 1.5, tuple(path_points)),
        Stroke("lumen", 1.5, tuple(path_points[:2])),
        Stroke("lumen", 1.5, (*square, square[0])),
        Stroke("lumen", 1.5, (*square[:3], square[0])),
    )


def test_shapes_with_a_column_of_classes(tmp_path: Path) -> None:
    rows = [
        (*row, ("lumen", "membrane")[row[0]])
        for row in shapes(
            ("path", [(1.0, 1.0, 1.0), (1.0, 9.0, 9.0)]),
            ("path", [(2.0, 1.0, 1.0), (2.0, 9.0, 9.0)]),
        )
    ]
    path = table(tmp_path / "Shapes.csv", (*SHAPES, "class"), rows)
    assert_same_as_json(
        path,
        Stroke("lumen", 1.5, ((1.0, 1.0, 1.0), (1.0, 9.0, 9.0))),
        Stroke("membrane", 1.5, ((2.0, 1.0, 1.0), (2.0, 9.0, 9.0))),
    )


def test_a_mark_of_the_byte_order_and_foreign_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "lumen.csv"
    path.write_bytes("\ufeffindex,axis-0,axis-1,axis-2\r\n0,1,2,3\r\n".encode())
    assert_same_as_json(path, Stroke("lumen", 1.5, ((1.0, 2.0, 3.0),)))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "gold",
            "index,axis-0,axis-1,axis-2\n0,1,2,3",
            "named 'gold', the classes are background,",
        ),
        (
            "lumen",
            "index,axis-0,axis-1\n0,1,2",
            "columns index, axis-0, axis-1: .* no further axis",
        ),
        ("lumen", "index,axis-0,axis-1,axis-2,axis-3\n0,1,2,3,4", "no further axis"),
        ("lumen", "", "columns none"),
        ("lumen", "index,axis-0,axis-1,axis-2,class\n0,1,2,3,gold", "line 2 is of class 'gold'"),
        ("lumen", "index,axis-0,axis-1,axis-2\n0,1,2,x", "line 2 has axis-2 'x': give a finite"),
        ("lumen", "index,axis-0,axis-1,axis-2\n0,1,nan,2", "line 2 has axis-1 'nan'"),
        ("lumen", "axis-0,axis-1,axis-2\n1,2,3\n1,2", "line 3 has other columns than the first"),
        ("lumen", "axis-0,axis-1,axis-2\n1,2,3,4", "line 2 has other columns than the first"),
        ("lumen", "axis-0,axis-1,axis-2,radius\n1,2,3,-1", "line 2 has radius -1: give voxels"),
        ("lumen", 'axis-0,axis-1,axis-2\n1,2,"3', "is no table with commas"),
        ("lumen", "shape-type,axis-0,axis-1,axis-2\npath,1,2,3", "columns shape-type,"),
        (
            "lumen",
            "index,shape-type,vertex-index,axis-0,axis-1,axis-2\n0,ellipse,0,1,2,3",
            "line 2 is of type 'ellipse': strokes are path, line, polygon, rectangle",
        ),
    ],
)
def test_what_is_no_stroke_is_refused(tmp_path: Path, name: str, text: str, message: str) -> None:
    path = tmp_path / f"{name}.csv"
    path.write_text(text)
    with pytest.raises(StrokesError, match=message):
        read_napari_table(path, "ts_001", CLASSES)


def test_points_of_a_scaled_layer_are_outside(tmp_path: Path) -> None:
    path = table(tmp_path / "lumen.csv", POINTS, [(0, 30.0, 45.0, 60.0)])
    with pytest.raises(StrokesError, match=r"outside the volume, .* another level or in ångström"):
        read_napari_table(path, "ts_001", CLASSES).check("ts_001", SHAPE, CLASSES)
