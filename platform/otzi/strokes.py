"""Strokes: polylines by which a person says of which class voxels are; their JSON file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from otzi.errors import NotFoundError, StrokesError, disk_errors

if TYPE_CHECKING:
    from collections.abc import Iterable

    from otzi.box import Zyx
    from otzi.classes import ClassTable

__all__ = ["Point", "Stroke", "Strokes", "read_strokes", "write_strokes"]

SCHEMA = 1

Point = tuple[float, float, float]
"""In z, y, x."""


@dataclass(frozen=True, slots=True)
class Stroke:
    """The voxels within a radius of a polyline."""

    class_name: str
    radius_voxels: float
    points: tuple[Point, ...]
    """Corners in z, y, x; whole numbers are voxel centres of level 0."""


@dataclass(frozen=True, slots=True)
class Strokes:
    """All strokes of one tomogram, in the order in which they were drawn."""

    tomogram: str
    """Id of the tomogram."""
    classes: tuple[str, ...]
    """Names that strokes may use."""
    strokes: tuple[Stroke, ...]

    @classmethod
    def from_json(cls, document: Any, source: str) -> Strokes:
        """Give the strokes of a parsed document; `source` names it in errors.

        Raises
        ------
        StrokesError
            If something is missing, unknown or of the wrong type; strokes and points are counted
            from 1.
        """
        fields = _fields(document, ("schema", "tomogram", "classes", "strokes"), source)
        schema, classes, strokes = fields["schema"], fields["classes"], fields["strokes"]
        if schema != SCHEMA or isinstance(schema, bool):
            raise StrokesError(f"{source} has schema {schema!r}, this otzi reads {SCHEMA}")
        if not isinstance(fields["tomogram"], str):
            raise StrokesError(f"{source}: tomogram {fields['tomogram']!r} is no text")
        if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
            raise StrokesError(f"{source}: classes are a list of names, not {classes!r}")
        if not isinstance(strokes, list):
            raise StrokesError(f"{source}: strokes are a list, not {type(strokes).__name__}")
        read = (_stroke(entry, f"{source}, stroke {i}") for i, entry in enumerate(strokes, 1))
        return cls(fields["tomogram"], tuple(classes), tuple(read))

    def to_json(self) -> dict[str, Any]:
        """Give the strokes as plain JSON."""
        return {
            "schema": SCHEMA,
            "tomogram": self.tomogram,
            "classes": list(self.classes),
            "strokes": [
                {
                    "class": stroke.class_name,
                    "radius": stroke.radius_voxels,
                    "points": [list(point) for point in stroke.points],
                }
                for stroke in self.strokes
            ],
        }

    def check(self, tomogram: str, shape: Zyx, classes: ClassTable) -> None:
        """Check that the strokes belong to a tomogram of this id, shape and class table.

        Raises
        ------
        StrokesError
            If they are for another tomogram, of a class that there is not, or outside.
        """
        if self.tomogram != tomogram:
            raise StrokesError(
                f"these are strokes for tomogram {self.tomogram!r}, not {tomogram!r}: import them "
                f"there, or write {tomogram!r} into the file if they were drawn on this one"
            )
        for i, stroke in enumerate(self.strokes, 1):
            if stroke.class_name not in classes.names:
                raise StrokesError(
                    f"stroke {i} is of class {stroke.class_name!r}, the collection has "
                    f"{', '.join(classes.names)}: rename it or leave it out"
                )
            for j, point in enumerate(stroke.points, 1):
                if not all(-0.5 <= p <= n - 0.5 for p, n in zip(point, shape, strict=True)):
                    raise StrokesError(
                        f"stroke {i}, point {j} at (z, y, x) = ({_comma(point)}) is outside the "
                        f"volume, which ends at ({_comma(n - 1 for n in shape)}): were the strokes "
                        "drawn on another level or in ångström?"
                    )


def read_strokes(path: str | Path) -> Strokes:
    """Give the strokes of a JSON file.

    Raises
    ------
    NotFoundError, AccessDenied, TemporaryFailure
        If it cannot be read.
    StrokesError
        If it is no JSON or holds no strokes of this schema.
    """
    path = Path(path)
    if not path.is_file():
        raise NotFoundError(f"stroke file {path} is not there")
    try:
        with disk_errors(path, "reading"):
            document = json.loads(path.read_text())
    except ValueError as error:
        raise StrokesError(f"{path} is no JSON: {error}") from error
    return Strokes.from_json(document, str(path))


def write_strokes(path: str | Path, strokes: Strokes) -> None:
    """Write the strokes to a JSON file, one line for each.

    Raises
    ------
    OutOfSpace, AccessDenied, TemporaryFailure
        If it cannot be written.
    """
    document = strokes.to_json()
    lines = [json.dumps(entry) for entry in document.pop("strokes")]
    head = json.dumps(document).removesuffix("}")
    with disk_errors(path, "writing"):
        Path(path).write_text(head + ',\n "strokes": [\n  ' + ",\n  ".join(lines) + "\n ]}\n")


def _stroke(entry: Any, source: str) -> Stroke:
    fields = _fields(entry, ("class", "radius", "points"), source)
    name, radius, points = fields["class"], fields["radius"], fields["points"]
    if not isinstance(name, str):
        raise StrokesError(f"{source}: class {name!r} is no name")
    if not _is_number(radius) or radius < 0:
        raise StrokesError(f"{source} has radius {radius!r}: give a number of voxels, at least 0")
    if not isinstance(points, list) or not points:
        raise StrokesError(f"{source} has no points: give at least one, as [z, y, x]")
    for j, point in enumerate(points, 1):
        is_triple = isinstance(point, list) and len(point) == 3
        if not is_triple or not all(map(_is_number, point)):
            raise StrokesError(f"{source}, point {j} is {point!r}: give three finite numbers")
    return Stroke(name, float(radius), tuple((float(z), float(y), float(x)) for z, y, x in points))


def _fields(entry: Any, keys: tuple[str, ...], source: str) -> dict[str, Any]:
    if not isinstance(entry, dict):
        raise StrokesError(f"{source} is no object with {', '.join(keys)}")
    for key in [*entry, *keys]:
        if key not in keys:
            raise StrokesError(f"{source}: unknown key {key!r}, there are {', '.join(keys)}")
        if key not in entry:
            raise StrokesError(f"{source} has no {key!r}")
    return entry


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


def _comma(values: Iterable[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)
