"""The streaming shard writer: chunks in, in any order; each shard file appears once, whole.

Encoded chunks are appended to ``<shard>.partial`` in the order of the shard's index; one that comes
early waits for those before it. When the last one is in, the index and its checksum follow, the
file is synced and renamed (Zarr v3, codec ``sharding_indexed``, index at the end). So memory holds
a chunk for each thread and what waits, whatever the size of shards and volume, and the bytes are
the same whichever thread came first.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from itertools import product
from math import prod
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from otzi.errors import VerificationError, disk_errors
from otzi.store.checksum import crc32c
from otzi.store.crashpoints import reach
from otzi.store.journal import ShardRecord
from otzi.store.shard_index import EMPTY, pack_index

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

    from numpy.typing import NDArray

    from otzi.store.encoding import Encoding
    from otzi.store.grid import LevelGrid

__all__ = ["ArrayWriter"]

_WAITING_BYTES = 32 << 20
"""What may wait in all; beyond it a shard takes chunks as they come and is sorted at its end."""

ChunkIndex = tuple[int, ...]


def _ignore_record(record: ShardRecord) -> None: ...


def _ignore_chunk(index: ChunkIndex, voxels: NDArray[Any]) -> None: ...


@dataclass(slots=True)
class _OpenShard:
    """A shard that still lacks chunks."""

    path: Path
    order: list[int]
    """Places of its chunks in the index."""
    index: NDArray[np.uint64]
    lock: Lock = field(default_factory=Lock)
    seen: set[int] = field(default_factory=set)
    waiting: dict[int, bytes] = field(default_factory=dict)
    n_in_order: int = 0
    n_bytes: int = 0
    checksum: int = 0
    is_sorted: bool = True

    @property
    def partial(self) -> Path:
        return self.path.with_name(f"{self.path.name}.partial")

    @property
    def is_whole(self) -> bool:
        """Whether every chunk has come."""
        return len(self.seen) == len(self.order)

    def take(self, place: int, data: bytes) -> int:
        """Take a chunk and append what is next in order; give the change of what waits."""
        if place in self.seen:
            raise VerificationError(f"chunk {place} of {self.path} is written a second time")
        self.seen.add(place)
        self.waiting[place] = data
        if not self.is_sorted:
            self._append([place])
            return 0
        ready = []
        while self.n_in_order < len(self.order) and self.order[self.n_in_order] in self.waiting:
            ready.append(self.order[self.n_in_order])
            self.n_in_order += 1
        return len(data) - self._append(ready)

    def give_up_order(self) -> int:
        """Append all that waits, as it came; give the change of what waits."""
        self.is_sorted = False
        return -self._append(list(self.waiting))

    def _append(self, places: list[int]) -> int:
        """Append chunks that wait; give how many bytes wait no more."""
        chunks = [(place, data) for place in places if (data := self.waiting.pop(place))]
        if not chunks:
            return 0
        before = self.n_bytes
        with self.partial.open("ab") as file:
            for place, data in chunks:
                file.write(data)
                self.index[place] = self.n_bytes, len(data)
                self.n_bytes += len(data)
                self.checksum = crc32c(data, self.checksum)
        return self.n_bytes - before

    def seal(self) -> tuple[int, int]:
        """Complete the file, sync and rename it; give its size and CRC-32C."""
        if not self.is_sorted:
            self._sort()
        end = pack_index(self.index)
        with self.partial.open("ab") as file:
            file.write(end)
            file.flush()
            reach("shard-written")
            os.fsync(file.fileno())
        reach("shard-synced")
        self.partial.replace(self.path)
        reach("shard-renamed")
        return self.n_bytes + len(end), crc32c(end, self.checksum)

    def _sort(self) -> None:
        chunks = memoryview(self.partial.read_bytes() if self.n_bytes else b"")
        self.n_bytes = self.checksum = 0
        with self.partial.open("wb") as file:
            for entry in self.index[self.index[:, 1] != EMPTY]:
                start, length = int(entry[0]), int(entry[1])
                data = bytes(chunks[start : start + length])
                file.write(data)
                self.checksum = crc32c(data, self.checksum)
        lengths = np.where(self.index[:, 1] == EMPTY, 0, self.index[:, 1])
        ends = np.cumsum(lengths)
        self.n_bytes = int(ends[-1])
        self.index[:, 0] = np.where(self.index[:, 1] == EMPTY, EMPTY, ends - lengths)


class ArrayWriter:
    """The writer of one array: ``writer[region] = block``, from any thread, each voxel once.

    Regions consist of whole chunks. A chunk of zeros takes no room; a shard is a file even when all
    of its chunks are zeros, so that a missing file always means a loss.

    Parameters
    ----------
    folder, grid, dtype, encoding
        Of the array.
    done
        Shards that an earlier run has written: chunks of them are left out.
    sealed
        Told of every shard file as it is whole.

    Attributes
    ----------
    wrote
        Given every chunk that was written, with its index; does nothing unless it is set.
    """

    def __init__(
        self,
        folder: Path,
        grid: LevelGrid,
        dtype: np.dtype[Any],
        encoding: Encoding,
        *,
        done: Collection[ChunkIndex] = (),
        sealed: Callable[[ShardRecord], None] = _ignore_record,
    ) -> None:
        self.folder = folder
        self.grid = grid
        self.dtype = dtype
        self.encoding = encoding
        self.done = frozenset(done)
        self.records: list[ShardRecord] = []
        self.wrote: Callable[[ChunkIndex, NDArray[Any]], None] = _ignore_chunk
        self._sealed = sealed
        self._lock = Lock()
        self._open: dict[ChunkIndex, _OpenShard] = {}
        self._finished: set[ChunkIndex] = set(self.done)
        self._waiting_bytes = 0

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""
        return self.grid.shape

    def __setitem__(self, region: tuple[slice, ...], block: NDArray[Any]) -> None:
        """Write a block of whole chunks."""
        spans = [s.indices(n)[:2] for s, n in zip(region, self.grid.shape, strict=True)]
        start, stop = tuple(a for a, _ in spans), tuple(b for _, b in spans)
        for index in self.grid.chunk_indices(start, stop):
            slices = self.grid.chunk_slices(index)
            local = tuple(
                slice(s.start - a, s.stop - a) for s, a in zip(slices, start, strict=True)
            )
            self.write_chunk(index, block[local])

    def is_done(self, index: ChunkIndex) -> bool:
        """Tell whether an earlier run has written the shard of a chunk."""
        return self.grid.shard_of(index) in self.done

    def write_chunk(self, index: ChunkIndex, voxels: NDArray[Any]) -> None:
        """Write the chunk of an index, cut at the array's end."""
        grid, key = self.grid, self.grid.shard_of(index)
        if key in self.done:
            return
        data = b""
        if not _is_empty(voxels):
            whole = voxels
            if voxels.shape != grid.chunk:
                whole = np.zeros(grid.chunk, self.dtype)
                whole[tuple(slice(n) for n in voxels.shape)] = voxels
            data = self.encoding.encode(np.ascontiguousarray(whole, self.dtype))
        inner = tuple(i % m for i, m in zip(index, grid.chunks_per_shard, strict=True))
        place = int(np.ravel_multi_index(inner, grid.chunks_per_shard))
        with disk_errors(self.folder, "writing to"):
            self._take(key, place, data)
        self.wrote(index, voxels)

    def finish(self) -> list[ShardRecord]:
        """Give the records of the shards written by this run, in the order of their keys.

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

    def _shard(self, key: ChunkIndex) -> _OpenShard:
        with self._lock:
            if key in self._finished:
                raise VerificationError(f"shard {key} of {self.folder} is written a second time")
            if key not in self._open:
                path = self.folder.joinpath("c", *map(str, key))
                path.parent.mkdir(parents=True, exist_ok=True)
                per_shard = self.grid.chunks_per_shard
                inside = product(*map(range, self.grid.chunks_inside(key)))
                order = [int(np.ravel_multi_index(inner, per_shard)) for inner in inside]
                index = np.full((prod(per_shard), 2), EMPTY, np.uint64)
                self._open[key] = _OpenShard(path, order, index)
            return self._open[key]

    def _take(self, key: ChunkIndex, place: int, data: bytes) -> None:
        shard = self._shard(key)
        with shard.lock:
            more = shard.take(place, data)
            if self._waiting_bytes + more > _WAITING_BYTES and shard.waiting:
                more += shard.give_up_order()
            with self._lock:
                self._waiting_bytes += more
            if not shard.is_whole:
                return
            n_bytes, checksum = shard.seal()
        record = ShardRecord(shard.path.relative_to(self.folder).as_posix(), n_bytes, checksum)
        with self._lock:
            del self._open[key]
            self._finished.add(key)
            self.records.append(record)
        self._sealed(record)


def _is_empty(voxels: NDArray[Any]) -> bool:
    """Tell whether a chunk is the fill value to the last bit: a negative zero is not."""
    if voxels[(0,) * voxels.ndim] or voxels.any():  # the first voxel mostly tells
        return False
    return voxels.dtype.kind != "f" or not np.signbit(voxels).any()
