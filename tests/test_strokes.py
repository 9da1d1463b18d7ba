"""Stroke files: what is written is read, and what cannot be meant is named."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otzi.classes import ClassTable
from otzi.errors import NotFoundError, StrokesError
from otzi.strokes import Stroke, Strokes, read_strokes, write_strokes
from otzi_pipelines.demo_data import strokes_file

if TYPE_CHECKING:
    from pathlib import Path

CLASSES = ClassTable.named(("background", "membrane", "lumen"))
SHAPE = (10, 20, 30)
DOCUMENT: dict[str, Any] = {
    "schema": 1,
    "tomogram": "ts_001",
    "classes": ["background", "membrane", "lumen"],
    "strokes": [
        {"class": "membrane", "radius": 1.5, "points": [[4.0, 2.5, 3.0], [4, 8, 9]]},
        {"class": "lumen", "radius": 0, "points": [[0, 0, 29.5]]},
    ],
}

numbers = st.floats(-1e6, 1e6)
strokes = st.builds(
    Stroke,
    st.sampled_from(CLASSES.names),
    st.floats(0, 50),
    st.lists(st.tuples(numbers, numbers, numbers), min_size=1, max_size=4).map(tuple),
)


def changed(*where: Any, to: Any) -> dict[str, Any]:
    """Give the document with one value changed, or removed if `to` is ``...``."""
    document = copy.deepcopy(DOCUMENT)
    inner: Any = document
    for key in where[:-1]:
        inner = inner[key]
    if to is ...:
        del inner[where[-1]]
    else:
        inner[where[-1]] = to
    return document


@given(st.lists(strokes, max_size=4))
def test_json_keeps_every_stroke(drawn: list[Stroke]) -> None:
    given_ = Strokes("ts_001", CLASSES.names, tuple(drawn))
    assert Strokes.from_json(json.loads(json.dumps(given_.to_json())), "it") == given_


def test_a_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    strokes_ = Strokes.from_json(DOCUMENT, "it")
    write_strokes(tmp_path / "s.json", strokes_)
    assert read_strokes(tmp_path / "s.json") == strokes_
    assert json.loads((tmp_path / "s.json").read_text()) == DOCUMENT
    write_strokes(tmp_path / "none.json", Strokes("ts_001", CLASSES.names, ()))
    assert read_strokes(tmp_path / "none.json").strokes == ()


def test_the_strokes_of_the_demo_are_read() -> None:
    found = read_strokes(strokes_file())
    assert found.classes == ("background", "membrane", "cytoplasm")
    assert len(found.strokes) == 27
    assert {
        stroke.radius_voxels for stroke in found.strokes if stroke.class_name != "membrane"
    } == {2.0}


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], r"it is no object with schema, tomogram, classes, strokes"),
        (changed("schema", to=2), r"it has schema 2, this otzi reads 1"),
        (changed("schema", to=True), r"schema True"),
        (changed("schema", to=...), r"it has no 'schema'"),
        (changed("colour", to="red"), r"unknown key 'colour', there are schema, tomogram"),
        (changed("tomogram", to=7), r"tomogram 7 is no text"),
        (changed("classes", to="membrane"), r"classes are a list of names, not 'membrane'"),
        (changed("strokes", to={}), r"strokes are a list, not dict"),
        (changed("strokes", 1, to=3), r"it, stroke 2 is no object"),
        (changed("strokes", 1, "radius", to=-0.5), r"stroke 2 has radius -0.5: .* at least 0"),
        (changed("strokes", 0, "radius", to="1"), r"stroke 1 has radius '1'"),
        (changed("strokes", 0, "class", to=None), r"stroke 1: class None is no name"),
        (changed("strokes", 0, "width", to=1), r"stroke 1: unknown key 'width'"),
        (changed("strokes", 0, "points", to=[]), r"stroke 1 has no points"),
        (changed("strokes", 0, "points", 1, to=[1, 2]), r"stroke 1, point 2 is \[1, 2\]"),
        (changed("strokes", 0, "points", 1, 0, to=float("nan")), r"point 2 .* three finite"),
        (changed("strokes", 0, "points", 1, 2, to=float("inf")), r"point 2 .* three finite"),
        (changed("strokes", 0, "points", 0, 0, to=False), r"point 1 .* three finite"),
    ],
)
def test_what_cannot_be_meant_is_named(document: Any, message: str) -> None:
    with pytest.raises(StrokesError, match=message):
        Strokes.from_json(document, "it")


def test_a_file_must_be_there_and_json(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"none\.json is not there"):
        read_strokes(tmp_path / "none.json")
    for content in (b"strokes", b"\xff\xfe"):
        (tmp_path / "bad.json").write_bytes(content)
        with pytest.raises(StrokesError, match=r"bad\.json is no JSON"):
            read_strokes(tmp_path / "bad.json")


def test_strokes_belong_to_a_tomogram() -> None:
    strokes_ = Strokes.from_json(DOCUMENT, "it")
    strokes_.check("ts_001", SHAPE, CLASSES)
    with pytest.raises(StrokesError, match=r"for tomogram 'ts_001', not 'ts_002'"):
        strokes_.check("ts_002", SHAPE, CLASSES)
    with pytest.raises(
        StrokesError, match=r"stroke 2 is of class 'lumen', .* background, membrane"
    ):
        strokes_.check("ts_001", SHAPE, ClassTable.named(("background", "membrane")))
    with pytest.raises(StrokesError, match=r"stroke 1, point 2 at .* \(4, 8, 9\) .* \(9, 19, 8\)"):
        strokes_.check("ts_001", (10, 20, 9), CLASSES)
