"""A tomogram on its way through a pipeline, and which of them there are."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING

from otzi.errors import NotFoundError, UsageError
from otzi.mrc import read_header
from otzi_pipelines.run.twins import first_twins

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from otzi.box import Zyx
    from otzi.collection import Collection
    from otzi.tomogram import Tomogram

__all__ = ["Shard", "Volume", "find_volumes", "parse_shard"]


@dataclass
class Volume:
    """A tomogram that is there, or will be once its source is ingested."""

    id: str
    collection: Collection | None
    """None where it is not made yet, and only looked for."""
    source: Path | None = None
    """The file that an ingest stage makes it from."""
    digests: dict[str, str] = field(default_factory=dict)
    """Of what is published, by product."""

    @property
    def tomogram(self) -> Tomogram:
        """The tomogram.

        Raises
        ------
        NotFoundError
            If it is not there.
        """
        if self.collection is None:
            raise NotFoundError(f"no tomogram {self.id!r}: there is no collection yet")
        return self.collection[self.id]

    def look(self) -> None:
        """Learn anew what is published."""
        self.digests = {}
        if self.collection is not None and self.id in self.collection:
            tomo = self.tomogram
            self.digests = {product: tomo.digest(product) for product in tomo.products}

    @cached_property
    def shape(self) -> Zyx:
        """Extent in voxels, z, y, x, as published or as the header of the source says."""
        if "raw" in self.digests or self.source is None:
            return self.tomogram.shape
        return read_header(self.source).shape

    @property
    def n_voxels(self) -> int:
        """Of level 0."""
        return prod(self.shape)


@dataclass(frozen=True, slots=True)
class Shard:
    """One of several equal shares of a collection."""

    number: int
    """From 1 on."""
    of: int

    def has(self, tomogram: str) -> bool:
        """Tell whether a tomogram is in it: exactly one shard has it, whichever others there are.

        By its id alone, so that shares do not shift while tomograms are added.
        """
        return zlib.crc32(tomogram.encode()) % self.of == self.number - 1

    def __str__(self) -> str:
        return f"{self.number}-of-{self.of}"


def parse_shard(text: str) -> Shard:
    """Give the shard of ``"3/8"``, the third of eight.

    Raises
    ------
    UsageError
        If it is none.
    """
    number, slash, of = text.partition("/")
    if slash and number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of):
        return Shard(int(number), int(of))
    raise UsageError(f"shard {text!r}: write I/N, I from 1 to N, as 3/8")


def find_volumes(
    collection: Collection | None,
    sources: Mapping[str, Path],
    *,
    only: Sequence[str] | None = None,
    shard: Shard | None = None,
) -> list[Volume]:
    """Give the tomograms there are and those of `sources`, in the order of their ids.

    Parameters
    ----------
    collection
        None where it is not made yet.
    sources
        Files to be ingested, by the id that their tomogram will have.
    only
        Ids, or patterns of them as ``ts_0*``; all if None.
    shard
        The share to take; all if None. Files that look the same are in the share of the first.

    Raises
    ------
    NotFoundError
        If a pattern without a wildcard names none of them.
    """
    ids = sorted({*(collection.ids if collection else ()), *sources})
    if only is not None:
        for pattern in only:
            if not set("*?[") & set(pattern) and pattern not in ids:
                raise NotFoundError(f"no tomogram {pattern!r} to run: there are {_some(ids)}")
        ids = [id_ for id_ in ids if any(fnmatchcase(id_, pattern) for pattern in only)]
    if shard is not None:
        firsts = first_twins(ids, sources)
        ids = [id_ for id_ in ids if shard.has(firsts[id_])]
    volumes = [Volume(id_, collection, sources.get(id_)) for id_ in ids]
    for volume in volumes:
        volume.look()
    return volumes


def _some(ids: Sequence[str]) -> str:
    shown = ", ".join(ids[:8]) or "none yet"
    return f"{shown} and {len(ids) - 8} more" if len(ids) > 8 else shown
