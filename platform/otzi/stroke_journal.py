"""Strokes as they are drawn: each is on the disk, with who drew it and when, before it is shown."""

from __future__ import annotations

import fcntl
import json
import os
from typing import TYPE_CHECKING, Any

from otzi.errors import Locked, StrokesError, disk_errors
from otzi.strokes import SCHEMA, Stroke, Strokes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["StrokeJournal"]


class StrokeJournal:
    """The strokes of a file to which lines are added and from which none is ever taken.

    A line is a JSON object with ``schema``, ``tomogram``, ``user``, ``time`` (ISO 8601) and
    ``action``: ``draw`` or ``import`` with ``strokes`` as in a stroke file, or ``undo``, which
    takes the last stroke back. An unfinished last line, as a kill leaves it, does not count.
    Two who draw at the same time are told: the second one's stroke is refused.

    Parameters
    ----------
    path
        The file; it is made with the first line.
    tomogram
        Id of the tomogram.
    classes
        Names that strokes may use.

    Raises
    ------
    StrokesError
        If a line cannot be understood.
    """

    def __init__(self, path: Path, tomogram: str, classes: Sequence[str]) -> None:
        self.path = path
        self._tomogram, self._classes = tomogram, tuple(classes)
        self._strokes: list[Stroke] = []
        self._ever: set[Stroke] = set()
        self._n_bytes = 0
        text = path.read_bytes() if path.exists() else b""
        self._file_bytes = len(text)
        for number, line in enumerate(text.split(b"\n")[:-1], 1):
            self._replay(line, f"{path}, line {number}")
            self._n_bytes += len(line) + 1

    @property
    def strokes(self) -> Strokes:
        """The strokes that there are now, in the order in which they were drawn."""
        return Strokes(self._tomogram, self._classes, tuple(self._strokes))

    def has_seen(self, strokes: Strokes) -> bool:
        """Tell whether all of these have been here, be they taken back or not."""
        return self._ever.issuperset(strokes.strokes)

    def draw(self, stroke: Stroke, *, user: str, time: str) -> None:
        """Add a stroke."""
        self._write("draw", user, time, (stroke,))
        self._add((stroke,))

    def take_over(self, strokes: Strokes, *, user: str, time: str) -> None:
        """Put strokes of elsewhere before those that are here and are none of them."""
        self._write("import", user, time, strokes.strokes)
        self._import(strokes.strokes)

    def undo(self, *, user: str, time: str) -> Stroke | None:
        """Take the last stroke back and give it; None if there is none."""
        if not self._strokes:
            return None
        self._write("undo", user, time)
        return self._strokes.pop()

    def _replay(self, line: bytes, source: str) -> None:
        try:
            event = json.loads(line)
            action, schema = event.pop("action"), event["schema"]
            document = {key: event[key] for key in ("schema", "tomogram")}
            strokes = event.get("strokes", [])
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise StrokesError(f"{source} is no event: {error!r}") from error
        read = Strokes.from_json(
            document | {"classes": list(self._classes), "strokes": strokes}, source
        )
        if read.tomogram != self._tomogram:
            raise StrokesError(f"{source} is of tomogram {read.tomogram!r}, not {self._tomogram!r}")
        if action == "draw":
            self._add(read.strokes)
        elif action == "import":
            self._import(read.strokes)
        elif action == "undo" and self._strokes:
            self._strokes.pop()
        else:
            raise StrokesError(f"{source}: nothing is known to {action!r} in schema {schema}")

    def _add(self, strokes: Sequence[Stroke]) -> None:
        self._strokes += strokes
        self._ever.update(strokes)

    def _import(self, strokes: Sequence[Stroke]) -> None:
        self._strokes = [*strokes, *(s for s in self._strokes if s not in strokes)]
        self._ever.update(strokes)

    def _write(self, action: str, user: str, time: str, strokes: Sequence[Stroke] = ()) -> None:
        event: dict[str, Any] = {
            "schema": SCHEMA,
            "tomogram": self._tomogram,
            "user": user,
            "time": time,
            "action": action,
        }
        if strokes:
            event["strokes"] = Strokes("", (), tuple(strokes)).to_json()["strokes"]
        line = json.dumps(event).encode() + b"\n"
        with disk_errors(self.path, "writing"):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                if file.tell() != self._file_bytes:
                    raise Locked(
                        f"strokes of {self._tomogram} were drawn elsewhere meanwhile: open it again"
                    )
                file.truncate(self._n_bytes)
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        self._n_bytes += len(line)
        self._file_bytes = self._n_bytes
