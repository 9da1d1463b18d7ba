"""The real tomogram that ships with otzi, and the strokes for it."""

from __future__ import annotations

import gzip
import shutil
from importlib.resources import files
from pathlib import Path

from otzi.errors import disk_errors
from otzi.files import writing_whole

__all__ = ["TOMOGRAM", "strokes_file", "unpack_tomogram"]

TOMOGRAM = "mpneumoniae_20A"
"""Its id: the stem of its file."""


def strokes_file() -> Path:
    """Give the stroke file of the demo tomogram."""
    return _folder() / f"{TOMOGRAM}.strokes.json"


def unpack_tomogram(folder: Path) -> Path:
    """Give the demo tomogram as an MRC file in a folder, which is made if need be.

    A file that is there already is taken as it is: it appears whole or not at all.

    Raises
    ------
    OutOfSpace, AccessDenied, TemporaryFailure
        If it cannot be written there.
    """
    path = folder / f"{TOMOGRAM}.mrc"
    with disk_errors(path, "unpacking"):
        if path.exists():
            return path
        folder.mkdir(parents=True, exist_ok=True)
        with gzip.open(_folder() / f"{path.name}.gz") as packed, writing_whole(path) as plain:
            shutil.copyfileobj(packed, plain)
    return path


def _folder() -> Path:
    return Path(str(files("otzi_pipelines"))) / "data"
