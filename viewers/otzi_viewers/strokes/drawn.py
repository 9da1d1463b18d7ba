"""The strokes that are drawn on a tomogram: kept in the collection, and on the screen."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from otzi.store.location import local_folder
from otzi.stroke_journal import StrokeJournal
from otzi.strokes import Strokes, write_strokes
from otzi_viewers.strokes.overlay import StrokeOverlay

if TYPE_CHECKING:
    from pathlib import Path

    from otzi.box import Box
    from otzi.tomogram import Tomogram

__all__ = ["DrawnStrokes"]

_FILE = "strokes.json"
"""In the product ``strokes``."""
_JOURNAL, _WRITTEN = "drawn.jsonl", "drawn.json"
"""Beside the generations of the product."""


class DrawnStrokes:
    """All strokes of a tomogram that can be shown, added to and taken back.

    Strokes that were imported as polylines come first and can be taken back like those drawn here;
    of an imported label volume the voxels lie below, and stay.

    Parameters
    ----------
    tomo
        In a collection of a local folder.
    user
        Who draws.

    Raises
    ------
    StrokesError
        If what was drawn before is damaged.
    """

    def __init__(self, tomo: Tomogram, user: str) -> None:
        self._tomo, self._user = tomo, user
        folder = local_folder(tomo.folder)
        self._journal = StrokeJournal(folder / "strokes" / _JOURNAL, tomo.id, tomo.classes.names)
        imported = _imported(tomo)
        self.is_on_volume = tomo.has("strokes") and imported is None
        """Whether a label volume lies below."""
        self._missing = None if imported is None or self._journal.has_seen(imported) else imported
        below = None
        if self.is_on_volume:
            array = tomo.array("strokes")

            def below(box: Box) -> Any:
                return array[box.slices]

        self.overlay = StrokeOverlay(tomo.shape, tomo.classes, below)
        """What the browser shows."""
        self.overlay.show(self.strokes.strokes)

    @property
    def strokes(self) -> Strokes:
        """The strokes there are now."""
        drawn = self._journal.strokes
        if self._missing is None:
            return drawn
        return replace(drawn, strokes=self._missing.strokes + drawn.strokes)

    def draw(self, document: Any) -> None:
        """Add the strokes of a document as in a stroke file; they are on the disk at the end.

        Raises
        ------
        StrokesError
            If it is none, or its strokes do not belong to this tomogram.
        Locked
            If somebody else has drawn meanwhile.
        OutOfSpace, AccessDenied, TemporaryFailure
            If they cannot be kept.
        """
        drawn = Strokes.from_json(document, "the drawing")
        drawn.check(self._tomo.id, self._tomo.shape, self._tomo.classes)
        self._take_over()
        for stroke in drawn.strokes:
            self._journal.draw(stroke, user=self._user, time=_now())
            self.overlay.show((stroke,))

    def undo(self) -> bool:
        """Take the last stroke back; tell whether there was one."""
        self._take_over()
        if self._journal.undo(user=self._user, time=_now()) is None:
            return False
        self.overlay.hide_last()
        return True

    def write(self) -> Path:
        """Write all strokes to a stroke file of the collection, for `otzi strokes`, and give it.

        Raises
        ------
        OutOfSpace, AccessDenied, TemporaryFailure
            If it cannot be written.
        """
        path = self._journal.path.with_name(_WRITTEN)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_strokes(path, self.strokes)
        return path

    def _take_over(self) -> None:
        """Have in the journal what was imported, before something is done to it."""
        if self._missing is not None:
            self._journal.take_over(self._missing, user=self._user, time=_now())
            self._missing = None


def _imported(tomo: Tomogram) -> Strokes | None:
    """Give the strokes of the product; None if it has others beside polylines."""
    if not tomo.has("strokes"):
        return None
    file = local_folder(tomo.path("strokes")) / _FILE
    if len(tomo.attributes("strokes")["recipe"]["sources"]) > 1 or not file.is_file():
        return None
    return Strokes.from_json(json.loads(file.read_text()), str(file))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
