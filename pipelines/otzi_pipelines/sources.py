"""The source files of an ingest: which there are, what they are called, whether they are taken."""

from __future__ import annotations

import hashlib
import os
import re
from contextlib import contextmanager
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING

from otzi.errors import (
    NotFoundError,
    OtziError,
    SourceError,
    UnsupportedMRC,
    UsageError,
    disk_errors,
)
from otzi.mrc import read_header
from otzi.mrc_header import check_tomogram

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from otzi.mrc_header import MrcHeader

__all__ = [
    "Source",
    "Spacing",
    "find_sources",
    "parse_voxel_size",
    "read_source",
    "sha256_of",
    "source_errors",
    "tomogram_id",
]

Spacing = tuple[float, float, float]

_SUFFIXES = {".mrc", ".rec", ".map", ".ccp4"}  # stacks (.st, .ali, .mrcs) are no tomograms
_LIKELY_ANGSTROM = (0.5, 50.0)
_POSSIBLE_ANGSTROM = (0.05, 5000.0)
_MOST_ANISOTROPY = 10.0
_NOTED_ANISOTROPY = 1.01


@dataclass(frozen=True, slots=True)
class Source:
    """A file that can become a tomogram."""

    path: Path
    header: MrcHeader
    spacing_angstrom: Spacing
    """Of the header, or what the user says instead."""
    warnings: tuple[str, ...]

    @property
    def n_bytes(self) -> int:
        """Length of the file in bytes."""
        return self.header.data_offset + self.header.data_bytes + self.header.trailing_bytes


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
            raise NotFoundError(f"no MRC file in {path}: they are found by their ending, {endings}")
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
                path = Path(parent, name)
                if path.suffix.lower() in _SUFFIXES and not name.startswith("."):
                    yield path


def tomogram_id(path: Path) -> str:
    """Give the id of a file: its stem, with ``_`` for whatever a name cannot hold."""
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", path.stem)
    name = re.sub(r"\.{2,}", ".", name).lstrip("_.-")
    return name[:128] or "tomogram"


def parse_voxel_size(text: str) -> Spacing:
    """Give the spacing z, y, x in ångström of ``"10"`` or ``"20,10,10"``.

    Raises
    ------
    UsageError
        If these are no one or three numbers above 0.
    """
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) not in (1, 3) or not all(isfinite(v) and v > 0 for v in values):
        raise UsageError(f"voxel size {text!r}: give one number of Å, or three as z,y,x")
    z, y, x = values * (3 // len(values))
    return z, y, x


def read_source(path: Path, voxel_size: Spacing | None, *, as_volume: bool = False) -> Source:
    """Give a source whose header says that it is one volume of known spacing.

    Raises
    ------
    SourceError
        If it is not, or cannot be read.
    """
    with source_errors():
        header = read_header(path)
    check_tomogram(header, str(path), as_volume=as_volume)
    spacing = voxel_size or _header_spacing(header, path)
    warnings = list(header.warnings)
    low, high = _LIKELY_ANGSTROM
    if not all(low <= v <= high for v in spacing):
        warnings.append(f"cella: voxels of {_words(spacing)} Å, {low:g} to {high:g} is usual")
    if max(spacing) > _NOTED_ANISOTROPY * min(spacing):
        warnings.append(f"cella: voxels are not cubes but {_words(spacing)} Å (z, y, x)")
    return Source(path, header, spacing, tuple(warnings))


def _header_spacing(header: MrcHeader, path: Path) -> Spacing:
    remedy = "pass --voxel-size in Å"
    z, y, x = header.spacing_angstrom
    if z is None or y is None or x is None:
        axes = [n for n, v in zip("zyx", header.spacing_angstrom, strict=True) if v is None]
        raise UnsupportedMRC(f"{path} gives no voxel size along {', '.join(axes)}: {remedy}")
    low, high = _POSSIBLE_ANGSTROM
    if not all(low <= v <= high for v in (z, y, x)):
        raise UnsupportedMRC(
            f"{path} gives voxels of {_words((z, y, x))} Å, {low:g} to {high:g} can be: {remedy}"
        )
    if max(z, y, x) > _MOST_ANISOTROPY * min(z, y, x):
        raise UnsupportedMRC(
            f"{path} gives voxels of {_words((z, y, x))} Å (z, y, x), more than "
            f"{_MOST_ANISOTROPY:g} times as long as wide: {remedy}"
        )
    return z, y, x


def _words(spacing: Spacing) -> str:
    return " × ".join(f"{v:.4g}" for v in spacing)


@contextmanager
def source_errors() -> Iterator[None]:
    """Make every error of reading a source one that concerns only this source."""
    try:
        yield
    except SourceError:
        raise
    except OtziError as error:
        raise SourceError(str(error)) from error


def sha256_of(path: Path) -> str:
    """Give the SHA-256 of a file.

    Raises
    ------
    SourceError
        If it cannot be read.
    """
    with source_errors(), disk_errors(path, "reading"), path.open("rb", buffering=0) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
