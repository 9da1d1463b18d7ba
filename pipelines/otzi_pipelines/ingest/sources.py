"""The source files of an ingest: whether they are taken, and as which volumes."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from otzi.errors import SourceError, TruncatedMRC, UnsupportedMRC
from otzi.mrc import read_header
from otzi.mrc_fields import HEADER_BYTES
from otzi.mrc_header import parse_header
from otzi.mrc_volume import check_tomogram, is_volume_stack, split_volumes
from otzi.store.locks import lock_file, locked
from otzi_pipelines.ingest.source_files import file_state, reading_source, sha256_of
from otzi_pipelines.ingest.unpack import PACKINGS, packing_of, unpack, unpacked_start

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from otzi.mrc_header import MrcHeader
    from otzi_pipelines.ingest.unpack import Packing

__all__ = ["Reading", "Source", "Spacing", "read_sources", "unpacked"]

Spacing = tuple[float, float, float]

_LIKELY_ANGSTROM = (0.5, 50.0)
_POSSIBLE_ANGSTROM = (0.05, 5000.0)
_MOST_ANISOTROPY = 10.0
_NOTED_ANISOTROPY = 1.01
_MOST_TRAILING_BYTES = 1 << 24  # of what a compressed file unpacks to


@dataclass(frozen=True, slots=True)
class Reading:
    """How files are taken where their headers leave it open."""

    voxel_size: Spacing | None = None
    """Spacing z, y, x in ångström, in place of what the header says."""
    as_volume: bool = False
    """Take stacks of images as volumes."""
    split_volumes: bool = False
    """Take each volume of a stack of volumes as a tomogram."""
    salvage: bool = False
    """Take the whole sections of a file that is cut short."""


@dataclass(frozen=True, slots=True)
class Source:
    """A file, or a volume of a stack in it, that can become a tomogram."""

    path: Path
    header: MrcHeader
    """Of the volume as it lies in the unpacked file."""
    spacing_angstrom: Spacing
    """Of the header, or what the user says instead."""
    warnings: tuple[str, ...]
    n_bytes: int
    """Length of the file as it is, compressed or not."""
    mtime_ns: int
    reading: Reading
    packing: Packing | None = None
    unpacked: Path | None = None
    """Where the data lie instead, once they are unpacked."""
    volume: int | None = None
    """Number of the volume in a stack, from 1."""
    n_volumes: int | None = None
    sha256: str | None = None
    """Of the file as it is, if it was read already."""
    expected_sha256: str | None = None
    """That it must have, where somebody has said so."""

    @property
    def data_path(self) -> Path:
        """The file that holds the data."""
        return self.unpacked or self.path

    @property
    def unpacked_bytes(self) -> int:
        """What the file takes on the disk when it is unpacked; 0 if it is not compressed."""
        return 0 if self.packing is None else self.header.data_offset + self.header.data_bytes

    @property
    def identity(self) -> dict[str, Any]:
        """What tells one state of the file from another, without reading it."""
        return {
            "path": str(self.path.resolve()),
            "n_bytes": self.n_bytes,
            "mtime_ns": self.mtime_ns,
            "volume": self.volume,
        }

    def check_unchanged(self) -> None:
        """Make sure that the file is in the state in which its header was read.

        Raises
        ------
        SourceError
            If it has another size or time, or cannot be found.
        """
        self.check_state(*file_state(self.path))

    def check_state(self, n_bytes: int, mtime_ns: int) -> None:
        """Make sure that a state of the file is the one in which its header was read.

        Raises
        ------
        SourceError
            If it is not.
        """
        if (n_bytes, mtime_ns) != (self.n_bytes, self.mtime_ns):
            raise SourceError(
                f"{self.path} was changed while it was ingested: wait until it is complete"
            )

    def check_digest(self, sha256: str) -> None:
        """Make sure that the bytes are those that were promised.

        Raises
        ------
        SourceError
            If they are not.
        """
        if self.expected_sha256 not in (None, sha256):
            raise SourceError(
                f"{self.path} has SHA-256 {sha256}, the side-car says {self.expected_sha256}: "
                "copy it again, or correct the side-car"
            )


def read_sources(path: Path, reading: Reading) -> tuple[Source, ...]:
    """Give what a file holds by its header: one volume of known spacing, or those of a stack.

    Of a compressed file only the start is unpacked.

    Raises
    ------
    SourceError
        If it holds no such volume, or cannot be read.
    """
    n_bytes, mtime_ns = file_state(path)
    with reading_source(path):
        packing = packing_of(path)
        if packing is None:
            header = read_header(path, salvage=reading.salvage)
        else:
            header = _packed_header(path, packing, n_bytes)
    is_split = reading.split_volumes and is_volume_stack(header)
    headers = split_volumes(header, str(path)) if is_split else [header]
    if is_split and packing is not None:
        raise UnsupportedMRC(
            f"{path} is a compressed stack of volumes: unpack it with "
            f"`{PACKINGS[packing].command} --keep` before --split-volumes"
        )
    spacing, warnings = _accept(headers[0], path, reading)
    source = Source(path, header, spacing, warnings, n_bytes, mtime_ns, reading, packing)
    if not is_split:
        return (source,)
    sha256 = sha256_of(path)
    return tuple(
        replace(source, header=one, volume=number, n_volumes=len(headers), sha256=sha256)
        for number, one in enumerate(headers, 1)
    )


def _packed_header(path: Path, packing: Packing, n_bytes: int) -> MrcHeader:
    """Give the header of a compressed file; its size is compared when it is unpacked."""
    header = parse_header(unpacked_start(path, packing, HEADER_BYTES), None, str(path))
    if header.data_bytes > PACKINGS[packing].most_ratio * n_bytes:
        raise TruncatedMRC(
            f"{path} promises {header.data_bytes} bytes of data, {n_bytes} bytes of {packing} "
            "cannot hold so much: copy it again"
        )
    return header


@contextmanager
def unpacked(source: Source, target: Path) -> Iterator[Source]:
    """Give a source whose data can be read at random, for a while; itself if it is not compressed.

    Raises
    ------
    SourceError
        If the stream is damaged, or holds no volume after all.
    Locked
        If somebody else unpacks to the same target.
    OutOfSpace, AccessDenied, TemporaryFailure
        If the target cannot be written.
    """
    if source.packing is None:
        yield source
        return
    path, reading, promised = source.path, source.reading, source.header
    most_bytes = promised.data_offset + promised.data_bytes + _MOST_TRAILING_BYTES
    with locked(lock_file(target)):
        try:
            unpack(path, source.packing, target, most_bytes, salvage=reading.salvage)
            n_bytes = target.stat().st_size
            header = parse_header(promised.raw, n_bytes, str(path), salvage=reading.salvage)
            spacing, warnings = _accept(header, path, reading)
            yield replace(
                source,
                header=header,
                spacing_angstrom=spacing,
                warnings=warnings,
                unpacked=target,
                sha256=sha256_of(path),
            )
        finally:
            target.unlink(missing_ok=True)


def _accept(header: MrcHeader, path: Path, reading: Reading) -> tuple[Spacing, tuple[str, ...]]:
    """Give the spacing of a file that is taken, and what is odd about it.

    Raises
    ------
    SourceError
        If it is not one volume of known spacing.
    """
    check_tomogram(header, str(path), as_volume=reading.as_volume)
    spacing = reading.voxel_size or _header_spacing(header, path)
    warnings = list(header.warnings)
    low, high = _LIKELY_ANGSTROM
    if not all(low <= v <= high for v in spacing):
        warnings.append(f"cella: voxels of {_words(spacing)} Å, {low:g} to {high:g} is usual")
    if max(spacing) > _NOTED_ANISOTROPY * min(spacing):
        warnings.append(f"cella: voxels are not cubes but {_words(spacing)} Å (z, y, x)")
    return spacing, tuple(warnings)


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
