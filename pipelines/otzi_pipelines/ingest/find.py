"""Which files an ingest is given, and what their tomograms are called."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from otzi.errors import NotFoundError, disk_errors

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["find_sources", "is_source_name", "tomogram_id"]

_SUFFIXES = {".mrc", ".rec", ".map", ".ccp4"}  # stacks (.st, .ali, .mrcs) are no tomograms
_PACKED_SUFFIXES = {".gz", ".bz2"}


def find_sources(paths: Iterable[Path]) -> list[Path]:
    """Give the files named, and the MRC files of the folders named, at any depth; each once.

    In folders, hidden files are left out, and so are the ``._NAME.mrc`` that macOS leaves behind.

    Raises
    ------
    NotFoundError
        If a path is not there, or a folder holds no MRC file.
    """
    found: dict[Path, Path] = {}
    for path in paths:
        if not path.exists():
            raise NotFoundError(f"source {path} is not there: name an MRC file or a folder of them")
        files = sorted(_within(path)) if path.is_dir() else [path]
        if not files:
            endings = ", ".join(sorted(_SUFFIXES))
            raise NotFoundError(
                f"no MRC file in {path}: they are found by their ending, {endings}, "
                f"also with {' or '.join(sorted(_PACKED_SUFFIXES))} after it"
            )
        for file in files:
            found.setdefault(file.resolve(), file)
    return list(found.values())


def _within(folder: Path) -> Iterator[Path]:
    def fail(error: OSError) -> None:
        raise error

    with disk_errors(folder, "reading"):
        for parent, folders, names in os.walk(folder, onerror=fail):
            folders[:] = [name for name in folders if not name.startswith(".")]
            for name in names:
                if is_source_name(name) and not name.startswith("."):
                    yield Path(parent, name)


def is_source_name(name: str) -> bool:
    """Tell by its ending whether a file is an MRC file, compressed or not."""
    return _has_ending(_unpacked_name(name), _SUFFIXES)


def _unpacked_name(name: str) -> str:
    return name.rpartition(".")[0] if _has_ending(name, _PACKED_SUFFIXES) else name


def _has_ending(name: str, endings: set[str]) -> bool:
    """Tell whether a name ends so, as text: watchers ask of thousands."""
    stem, point, ending = name.rpartition(".")
    return bool(stem) and point + ending.lower() in endings


def tomogram_id(path: Path, template: str = "{stem}") -> str:
    """Give the id of a file: its stem in the template, ``_`` for whatever a name cannot hold."""
    name = template.replace("{stem}", Path(_unpacked_name(path.name)).stem)
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", name)
    name = re.sub(r"\.{2,}", ".", name).lstrip("_.-")
    return name[:128] or "tomogram"
