"""Side-cars: small files that say something of an MRC file beside them.

``NAME.sha256``, ``STEM.sha256``, and lines of ``sha256sum`` in any ``*.sha256`` or ``SHA256SUMS``,
say which bytes it must have. ``NAME.done``, ``STEM.done``, and any other ``*.done`` that has its
name on a line, say that it is complete. ``NAME.mdoc`` and ``STEM.mdoc``, as SerialEM writes them,
say how many sections there will be, and how long a pixel is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from math import isfinite
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from otzi.ledger.sources import FileState

__all__ = [
    "Mdoc",
    "SideCarFolder",
    "SideCars",
    "is_sidecar_name",
    "parse_mdoc",
    "parse_sha256",
]

_SUMS = "sha256sums"
_SUFFIXES = (".sha256", ".done", ".mdoc")
_MOST_BYTES = 1 << 22
_DIGEST = re.compile(r"([0-9a-fA-F]{64})(?:[ \t]+[*]?(.+))?")


@dataclass(frozen=True, slots=True)
class Mdoc:
    """What a SerialEM mdoc says of its images."""

    n_sections: int
    pixel_spacing_angstrom: float | None = None
    image_size: tuple[int, int] | None = None
    """Columns and rows."""

    def is_of(self, n_columns: int, n_rows: int) -> bool:
        """Tell whether it can be about images of this size, and not of another binning."""
        return self.image_size in (None, (n_columns, n_rows))

    def to_json(self) -> dict[str, Any]:
        """Give it as plain JSON."""
        return {
            "n_sections": self.n_sections,
            "pixel_spacing_angstrom": self.pixel_spacing_angstrom,
            "image_size": self.image_size and list(self.image_size),
        }


@dataclass(frozen=True, slots=True)
class SideCars:
    """What the side-cars of one file say."""

    sha256: str | None = None
    is_done: bool = False
    mdoc: Mdoc | None = None
    """Its own, or that of its tilt series."""
    own_mdoc: Mdoc | None = None


class SideCarFolder:
    """The side-cars of a folder at one moment; they are read when they are asked for."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self._paths = list(paths)

    def of(self, path: Path, file: FileState) -> SideCars:
        """Give what is said of a file.

        That it is complete counts only from a side-car that is not older than the file, both by the
        clock of whoever wrote them.
        """
        own, of_series = self._mdoc(path.name), self._mdoc(path.stem)
        done_ns = max(self._done_ns.get(name, -1) for name in (path.name, path.stem))
        return SideCars(
            sha256=self._sums.get(path.name) or self._sums.get(path.stem),
            is_done=done_ns >= 0 and done_ns >= file.mtime_ns,
            mdoc=own or of_series,
            own_mdoc=own,
        )

    @cached_property
    def _sums(self) -> dict[str, str]:
        """Digests, by the name of the file or what is left of it in that of the side-car."""
        found: dict[str, str] = {}
        for path in self._paths:
            if path.suffix.lower() == ".sha256" or path.name.lower() == _SUMS:
                sums = parse_sha256(_text(path))
                found |= {name or path.stem: digest for name, digest in sums.items()}
        return found

    @cached_property
    def _done_ns(self) -> dict[str, int]:
        """Times at which files were said to be complete, by the same names."""
        found: dict[str, int] = {}
        for path in self._paths:
            if path.suffix.lower() == ".done":
                time_ns = _mtime_ns(path)
                for name in (path.stem, *_lines(_text(path))):
                    found[name] = max(found.get(name, -1), time_ns)
        return found

    @cached_property
    def _mdocs(self) -> dict[str, Path]:
        return {path.stem: path for path in self._paths if path.suffix.lower() == ".mdoc"}

    def _mdoc(self, name: str) -> Mdoc | None:
        return parse_mdoc(_text(self._mdocs[name])) if name in self._mdocs else None


def is_sidecar_name(name: str) -> bool:
    """Tell whether a file may be a side-car."""
    lower = name.lower()
    return lower.endswith(_SUFFIXES) or lower == _SUMS


def parse_sha256(text: str) -> dict[str, str]:
    """Give the digests by file name; one without a name is that of the empty name.

    Names in other folders are left out.
    """
    matches = [match for line in _lines(text) if (match := _DIGEST.fullmatch(line))]
    names = [PurePosixPath(match[2] or "") for match in matches]
    return {
        name.name: match[1].lower()
        for name, match in zip(names, matches, strict=True)
        if len(name.parts) < 2
    }


def parse_mdoc(text: str) -> Mdoc | None:
    """Give what an mdoc says; None for a text that is none."""
    values: dict[str, str] = {}
    n_sections = 0
    for line in _lines(text):
        n_sections += line.startswith("[ZValue")
        key, equals, value = line.partition("=")
        if equals and not line.startswith("["):
            values.setdefault(key.strip(), value.strip())
    if not n_sections and "PixelSpacing" not in values:
        return None
    return Mdoc(n_sections, _spacing(values), _image_size(values))


def _spacing(values: dict[str, str]) -> float | None:
    try:
        spacing = float(values["PixelSpacing"])
    except (KeyError, ValueError):
        return None
    return spacing if isfinite(spacing) and spacing > 0 else None


def _image_size(values: dict[str, str]) -> tuple[int, int] | None:
    try:
        columns, rows = map(int, values["ImageSize"].split())
    except (KeyError, ValueError):
        return None
    return columns, rows


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines()]


def _text(path: Path) -> str:
    """Give the text of a side-car; nothing of one that cannot be read or is no text at all."""
    try:
        with path.open("rb") as file:
            return file.read(_MOST_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""


def _mtime_ns(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return -1
