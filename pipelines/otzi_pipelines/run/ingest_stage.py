"""The stage ingest: a file into a tomogram."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path  # noqa: TC003  settings are read by their annotations
from typing import TYPE_CHECKING, Any

from otzi.errors import SourceError, TemporaryFailure
from otzi.mrc import read_header
from otzi.settings import STRICT
from otzi.store.presets import checked_preset, stored_dtype
from otzi_pipelines.ingest.find import find_sources, tomogram_id
from otzi_pipelines.ingest.options import parse_nonfinite, parse_voxel_size

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otzi_pipelines.run.stages import Work
    from otzi_pipelines.run.volume import Volume

__all__ = ["IngestStage"]

_VERSION = 1
_WITH_LEVELS = 8 / 7


@dataclass(frozen=True)
class IngestStage:
    """MRC files and folders of them; each file becomes a tomogram. See `otzi ingest`."""

    __pydantic_config__ = STRICT

    sources: tuple[Path, ...]
    preset: str = "exact"
    voxel_size: str | None = None
    nonfinite: str = "keep"
    as_volume: bool = False
    salvage: bool = False
    update: bool = True
    """Replace a tomogram whose source or settings changed."""
    classes: tuple[str, ...] = field(default=())
    """Of a collection that is not there yet, the background first; the published four if empty."""

    needs = ()
    may_use = ()
    makes = "raw"
    key = "ingest"

    def __post_init__(self) -> None:
        checked_preset(self.preset)
        parse_nonfinite(self.nonfinite)
        if self.voxel_size is not None:
            parse_voxel_size(self.voxel_size)

    def files(self) -> dict[str, Path]:
        """Give the files, by the id of the tomogram that each becomes.

        Of several with the same stem the first has that id; the others, which ingest refuses, are
        known as ``ID~2`` and so on.
        """
        files: dict[str, Path] = {}
        for path in find_sources(self.sources):
            stem, n = tomogram_id(path), 1
            while (id_ := stem if n == 1 else f"{stem}~{n}") in files:
                n += 1
            files[id_] = path
        return files

    def recipe(self, volume: Volume) -> Mapping[str, Any]:
        """Give the settings, and what tells that a file is not the one it was.

        Its bytes are read only where that changed: half a terabyte is not read to find that there
        is nothing to do.
        """
        assert volume.source is not None
        try:
            status = volume.source.stat()
        except FileNotFoundError:
            fingerprint = None
        else:
            fingerprint = [volume.source.name, status.st_size, status.st_mtime_ns]
        return {
            "version": _VERSION,
            "source": fingerprint,
            "preset": self.preset,
            "voxel_size": self.voxel_size,
            "nonfinite": self.nonfinite,
            "as_volume": self.as_volume,
            "salvage": self.salvage,
        }

    def made_digest(self, volume: Volume) -> str | None:
        """Give the digest of raw; there is none of a file whose bytes are another tomogram's."""
        return volume.digests.get("raw")

    def n_bytes(self, volume: Volume, n_classes: int) -> int:
        """Give the size of raw with its pyramid, before compression."""
        assert volume.source is not None
        header = read_header(volume.source)
        itemsize = stored_dtype(self.preset, header.dtype).itemsize
        return int(volume.n_voxels * itemsize * _WITH_LEVELS)

    def run(self, volume: Volume, work: Work) -> bool:
        """Publish raw.

        Raises
        ------
        SourceError
            If the file is not taken; the reason is in the collection's folder ``quarantine``, too.
        """
        from otzi_pipelines.ingest.batch import ingest

        assert volume.source is not None
        assert volume.collection is not None
        report = ingest(
            volume.collection,
            [volume.source],
            preset=self.preset,
            voxel_size=None if self.voxel_size is None else parse_voxel_size(self.voxel_size),
            nonfinite=parse_nonfinite(self.nonfinite),
            as_volume=self.as_volume,
            salvage=self.salvage,
            update=self.update,
            memory_bytes=work.memory_bytes,
            listen=work.listen,
        )
        (item,) = report.items
        if item.exit_code == TemporaryFailure.exit_code:
            raise TemporaryFailure(item.reason)
        if item.state == "quarantined":
            raise SourceError(item.reason)
        return item.state == "published"
