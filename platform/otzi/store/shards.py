"""The streaming shard writer: chunks in, in any order; each shard file appears once, whole.

Encoded chunks are appended to ``<shard>.partial``; when the last one is in, the index and its
checksum follow, the file is synced and renamed (Zarr v3, codec ``sharding_indexed``, index at the
end). So memory holds one chunk per thread, whatever the size of shards and volume.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from math import prod
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from otzi.errors import VerificationError, disk_errors
from otzi.store.encoding import Encoding, crc32c

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from otzi.store.grid import LevelGrid

__all__ = ["ArrayWriter", "ShardRecord"]

_EMPTY = 2**64 - 1


@dataclass(frozen=True, slots=True)
class ShardRecord:
    """What was written to one shard file."""

    key: str
    """The file, relative to the array: ``c/0/1/2``."""
    n_bytes: int
    crc32c: int


@dataclass(slots=True)
class _OpenShard:
    """A shard that still lacks chunks."""

    path: Path
    missing: int
    index: NDArray[np.uint64]
    lock: Lock = field(default_factory=Lock)
    n_bytes: int = 0

    @property
    def partial(self) -> Path:
        return self.path.with_name(self.path.name + ".partial")


class ArrayWriter:
    """The writer of one array: ``writer[region] = block``, from any thread, each voxel once.

    Regions consist of whole chunks. A chunk of zeros takes no room; a shard is a file even when all
    of its chunks are zeros, so that a missing file always means a loss.
    """

    def __init__(
        self,
        folder: Path,
        grid: LevelGrid,
        dtype: np.dtype[Any],
        encoding: Encoding,
        wrote: Callable[[int], None] = lambda n_chunks: None,
    ) -> None:
        self.folder = folder
        self.grid = grid
        self.dtype = dtype
        self.encoding = encoding
        self.records: list[ShardRecord] = []
        self._wrote = wrote
        self._lock = Lock()
        self._open: dict[tuple[int, ...], _OpenShard] = {}
        self._finished: set[tuple[int, ...]] = set()

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""
        return self.grid.shape

    def __setitem__(self, region: tuple[slice, ...], block: NDArray[Any]) -> None:
        """Write a block of whole chunks."""
        spans = [s.indices(n)[:2] for s, n in zip(region, self.grid.shape, strict=True)]
        start, stop = tuple(a for a, _ in spans), tuple(b for _, b in spans)
        n_chunks = 0
        for index in self.grid.chunk_indices(start, stop):
            slices = self.grid.chunk_slices(index)
            local = tuple(
                slice(s.start - a, s.stop - a) for s, a in zip(slices, start, strict=True)
            )
            self._write_chunk(index, block[local])
            n_chunks += 1
        self._wrote(n_chunks)

    def finish(self) -> list[ShardRecord]:
        """Give the records of all shards, in the order of their keys.

        Raises
        ------
        VerificationError
            If a shard was not written, or not wholly.
        """
        expected = list(self.grid.shards())
        missing = [shard for shard in expected if shard not in self._finished]
        if missing:
            raise VerificationError(
                f"{len(missing)} of {len(expected)} shards of {self.folder} are not whole, "
                f"the first is {missing[0]}: every voxel must be written once"
            )
        return sorted(self.records, key=lambda record: record.key)

    def _write_chunk(self, index: tuple[int, ...], voxels: NDArray[Any]) -> None:
        grid = self.grid
        data = b""
        if voxels.any():
            if voxels.shape != grid.chunk:
                whole = np.zeros(grid.chunk, self.dtype)
                whole[tuple(slice(n) for n in voxels.shape)] = voxels
                voxels = whole
            data = self.encoding.encode(np.ascontiguousarray(voxels, self.dtype))
        key = tuple(i // m for i, m in zip(index, grid.chunks_per_shard, strict=True))
        inner = tuple(i % m for i, m in zip(index, grid.chunks_per_shard, strict=True))
        position = int(np.ravel_multi_index(inner, grid.chunks_per_shard))
        with disk_errors(self.folder, "writing to"):
            self._append(key, self._shard(key), position, data)

    def _shard(self, key: tuple[int, ...]) -> _OpenShard:
        with self._lock:
            if key in self._finished:
                raise VerificationError(f"shard {key} of {self.folder} is written a second time")
            if key not in self._open:
                path = self.folder.joinpath("c", *map(str, key))
                path.parent.mkdir(parents=True, exist_ok=True)
                index = np.full((prod(self.grid.chunks_per_shard), 2), _EMPTY, "<u8")
                self._open[key] = _OpenShard(path, self.grid.chunks_inside(key), index)
            return self._open[key]

    def _append(self, key: tuple[int, ...], shard: _OpenShard, position: int, data: bytes) -> None:
        with shard.lock:
            if data:
                with shard.partial.open("ab") as file:
                    file.write(data)
                shard.index[position] = shard.n_bytes, len(data)
                shard.n_bytes += len(data)
            shard.missing -= 1
            if shard.missing:
                return
            record = _seal(shard, self.folder)
        with self._lock:
            del self._open[key]
            self._finished.add(key)
            self.records.append(record)


def _seal(shard: _OpenShard, folder: Path) -> ShardRecord:
    """Write the chunks in the order of the index, the index and its checksum; sync and rename.

    The order makes the bytes the same whichever thread came first.
    """
    chunks = memoryview(shard.partial.read_bytes() if shard.n_bytes else b"")
    offset = 0
    ordered: list[memoryview | bytes] = []
    for entry in shard.index:
        if entry[1] == _EMPTY:
            continue
        start, length = int(entry[0]), int(entry[1])
        ordered.append(chunks[start : start + length])
        entry[0] = offset
        offset += length
    index = shard.index.tobytes()
    ordered += [index, crc32c(index).to_bytes(4, "little")]
    checksum = 0
    with shard.partial.open("r+b" if shard.n_bytes else "wb") as file:
        for part in ordered:
            file.write(part)
            checksum = crc32c(bytes(part), checksum)
        file.flush()
        os.fsync(file.fileno())
    shard.partial.replace(shard.path)
    key = shard.path.relative_to(folder).as_posix()
    return ShardRecord(key, sum(map(len, ordered)), checksum)
