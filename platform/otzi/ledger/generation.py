"""Whether a published generation is what its manifest says, and what a product must be."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import zarr

from otzi.errors import CorruptShard, OtziError, VerificationError
from otzi.ledger.content import check_classes, check_sums
from otzi.ome import Multiscale
from otzi.store.grid import LevelGrid, level_shapes
from otzi.store.groups import read_group
from otzi.store.manifest import MANIFEST, file_record, manifest_text, parse_manifest
from otzi.store.reader import LevelArray
from otzi.store.shard_index import EMPTY, index_bytes, parse_index

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

__all__ = ["GenerationAudit"]

_IMAGES = ("raw", "view", "labels", "probs", "spread")

Problem = tuple[str, str]
"""A file within the generation, and what is wrong with it."""


@dataclass(frozen=True, slots=True)
class GenerationAudit:
    """The audit of one generation: iterating yields a file and what is wrong with it.

    Parameters
    ----------
    folder
        The generation.
    tomogram, kind
        What it must be of.
    n_classes
        Size of the class table; None where that is lost.
    is_fast
        Whether shards are only looked at: size, and the checksum of their index.
    seen
        Told of every file that was looked at, with its size.
    """

    folder: Path
    tomogram: str
    kind: str
    n_classes: int | None
    is_fast: bool
    seen: Callable[[int], None]

    def __iter__(self) -> Iterator[Problem]:
        """Yield what is wrong; voxels are looked at only where the files are right."""
        try:
            text = (self.folder / MANIFEST).read_bytes()
            manifest = parse_manifest(text)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            yield MANIFEST, f"cannot be read: {error}"
            return
        if text != manifest_text(manifest).encode():
            yield MANIFEST, "is not as it was written"
            return
        problems = list(self._files(manifest))
        yield from problems
        if not problems:
            yield from self._group(manifest)

    def _files(self, manifest: Mapping[str, tuple[int, int]]) -> Iterator[Problem]:
        there = {p.relative_to(self.folder).as_posix() for p in _files_below(self.folder)}
        for name in sorted(there - manifest.keys() - {MANIFEST}):
            yield name, "is not in the manifest"
        for name, (n_bytes, crc) in manifest.items():
            if name not in there:
                yield name, "is missing"
                continue
            is_shard = "/c/" in name
            problem = _file_problem(
                self.folder / name, n_bytes, None if is_shard and self.is_fast else crc
            )
            if problem:
                yield name, problem
            self.seen(n_bytes)

    def _group(self, manifest: Mapping[str, tuple[int, int]]) -> Iterator[Problem]:
        attributes = read_group(self.folder) or {}
        of = attributes.get("otzi", {})
        for key, value in (("state", "complete"), ("tomogram", self.tomogram), ("kind", self.kind)):
            if of.get(key) != value:
                yield "zarr.json", f"says {key} {of.get(key)!r}, it must be {value!r}"
        if "ome" not in attributes:
            if self.kind in _IMAGES:
                yield "zarr.json", "is no OME-Zarr image"
            return
        try:
            image = Multiscale.from_json(attributes)
            problems = list(self._levels(manifest, image))
        except OtziError as error:
            yield "zarr.json", str(error)
            return
        yield from problems
        if not problems and not self.is_fast:
            yield from self._content(image, of)

    def _levels(
        self, manifest: Mapping[str, tuple[int, int]], image: Multiscale
    ) -> Iterator[Problem]:
        arrays = [_open(self.folder / str(level)) for level in range(image.n_levels)]
        first = arrays[0]
        shape = z, y, x = first.shape[-3:]
        shapes = [(*first.shape[:-3], *level) for level in level_shapes((z, y, x))]
        if [array.shape for array in arrays] != shapes:
            yield "zarr.json", f"has levels that are no halves of {shape}"
            return
        for number, array in enumerate(arrays):
            grid = LevelGrid(array.shape, array.chunks, array.shards or array.chunks)
            if array.dtype != first.dtype or _axes(array) != image.axes:
                yield f"{number}/zarr.json", f"is {array.dtype} over other axes than level 0"
            expected = {"/".join(map(str, (number, "c", *shard))) for shard in grid.shards()}
            written = {name for name in manifest if name.startswith(f"{number}/c/")}
            for name in sorted(expected ^ written):
                is_lost = name in expected
                yield name, "was never written" if is_lost else "lies outside the array"
            if self.is_fast:
                for name in sorted(expected & written):
                    yield from self._index(name, prod(grid.chunks_per_shard))

    def _index(self, name: str, n_chunks: int) -> Iterator[Problem]:
        path, n_bytes = self.folder / name, index_bytes(n_chunks)
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - n_bytes))
            tail = file.read()
        try:
            index = parse_index(tail, path, n_chunks)
        except CorruptShard:
            yield name, "has a damaged index"
            return
        used = index[index[:, 0] != EMPTY]
        if used.size and int(used.sum(axis=1).max()) > size - n_bytes:
            yield name, "has an index that points beyond its chunks"

    def _content(self, image: Multiscale, of: Mapping[str, Any]) -> Iterator[Problem]:
        n_classes = len(of["classes"]) if "classes" in of else self.n_classes
        try:
            array = LevelArray(self.folder, 0)
            if image.channels is not None and self.kind in ("probs", "labels"):
                check_sums(array, may_be_unknown=self.kind == "labels")
            elif self.kind == "objects":
                check_classes(array, of["n_objects"])
            elif image.is_labels and n_classes is not None:
                # Strokes are numbered from 1: 0 is what nobody labelled.
                check_classes(array, n_classes - (self.kind != "strokes"))
        except VerificationError as error:
            yield "0", str(error)


def _file_problem(path: Path, n_bytes: int, crc: int | None) -> str | None:
    """Give what is wrong with a file; its content is read where a checksum is given."""
    try:
        found = path.stat().st_size
        if found != n_bytes:
            return f"has {found} bytes, {n_bytes} were written"
        if crc is not None and (found_crc := file_record(path)[1]) != crc:
            return f"has CRC-32C {found_crc:08x}, {crc:08x} was written"
    except FileNotFoundError:
        raise
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"
    return None


def _files_below(folder: Path) -> Iterator[Path]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _files_below(entry)
        else:
            yield entry


def _axes(array: zarr.Array[Any]) -> tuple[str | None, ...] | None:
    return getattr(array.metadata, "dimension_names", None)


def _open(folder: Path) -> zarr.Array[Any]:
    try:
        return zarr.open_array(folder, mode="r")
    except (FileNotFoundError, ValueError, KeyError, json.JSONDecodeError) as error:
        raise VerificationError(f"level {folder.name} cannot be opened: {error}") from error
