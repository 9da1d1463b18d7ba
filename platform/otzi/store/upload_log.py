"""What of a generation is uploaded already, kept on the local disk through kills."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict
from threading import Lock
from typing import TYPE_CHECKING, Any

from otzi.store.objects import StoredObject

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

__all__ = ["UploadLog"]


class UploadLog:
    """A file of JSON lines: first what the upload is of, then the state of every object written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = Lock()

    def read(self, upload: Mapping[str, Any]) -> tuple[str, dict[str, StoredObject]] | None:
        """Give the generation and the objects of an upload like this, or None if there is none."""
        try:
            first, *lines = self.path.read_text().split("\n")
            said = json.loads(first)
        except (OSError, ValueError):
            return None
        generation = said.pop("generation", None)
        if generation is None or said != upload:
            return None
        return generation, dict(_rows(lines))

    def begin(self, upload: Mapping[str, Any], generation: str) -> None:
        """Forget all, and begin the log of an upload to a generation."""
        self.path.write_text(json.dumps({**upload, "generation": generation}))

    def add(self, name: str, stored: StoredObject) -> None:
        """Keep the state of an object that was written."""
        with self._lock, self.path.open("a") as file:
            # The line break comes first: what a kill tore stays a line of its own.
            file.write("\n" + json.dumps({"name": name, **asdict(stored)}))


def _rows(lines: list[str]) -> Iterator[tuple[str, StoredObject]]:
    """Yield what is kept of objects, but for lines that a kill tore."""
    for line in lines:
        with suppress(ValueError):
            row = json.loads(line)
            yield row.pop("name"), StoredObject(**row)
