"""One level of a published product as an array that is read by boxes and never lies.

A box costs one read for each chunk that it crosses: shards stay open, their indexes are kept, and
chunks are decoded into a buffer that each thread uses again. From an object store the chunks of a
box are fetched at the same time, near ones by one request.
"""

from __future__ import annotations

import hashlib
import threading
from collections import defaultdict
from itertools import chain, islice, product
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from otzi.errors import CorruptShard, OtziError, VerificationError
from otzi.store.array_metadata import parse_array_metadata
from otzi.store.checksum import crc32c
from otzi.store.chunk_cache import ChunkCache
from otzi.store.descriptors import open_shard
from otzi.store.manifest import MANIFEST, parse_manifest
from otzi.store.remote_shard import fetchers

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator, Mapping

    from numpy.typing import NDArray

    from otzi.store.location import Location

    ChunkIndex = tuple[int, ...]

__all__ = ["LevelArray"]

_scratch = threading.local()
_FETCH_BYTES = 64 << 20
"""Decoded size of what is fetched at once from an object store."""


class LevelArray:
    """A level of a product: ``array[region]`` reads; a missing or damaged shard is an error.

    On opening, every shard of the level is looked up and its size compared with the manifest:
    Zarr itself would read a missing one as zeros. Read from any thread; a copy that is sent to
    another process opens its own files, and looks nothing up again.

    Parameters
    ----------
    generation, level
        What to read.
    cache_bytes
        How much of decoded chunks is kept for boxes that overlap; none if 0.
    """

    def __init__(self, generation: Location, level: int, cache_bytes: int = 0) -> None:
        self.generation, self.level, self.cache_bytes = generation, level, cache_bytes
        self.path = generation / str(level)
        try:
            manifest = (generation / MANIFEST).read_bytes()
            files = parse_manifest(manifest)
            text = (self.path / "zarr.json").read_bytes()
            if crc32c(text) != files[f"{level}/zarr.json"][1]:
                raise VerificationError("zarr.json is not what was written")
            metadata = parse_array_metadata(text)
            keys = {shard: "/".join(("c", *map(str, shard))) for shard in metadata.grid.shards()}
            sizes = {key: files[f"{level}/{key}"][0] for key in keys.values()}
        except (FileNotFoundError, ValueError, KeyError, TypeError) as error:
            if isinstance(error, OtziError) and not isinstance(error, VerificationError):
                raise
            raise VerificationError(
                f"level {level} of {generation} cannot be read: {error}"
            ) from error
        self.grid, self.dtype, self.encoding = metadata.grid, metadata.dtype, metadata.encoding
        states = _checked_states(self.path, sizes)
        self._shards = {
            shard: (self.path / key, states[key], sizes[key]) for shard, key in keys.items()
        }
        self._digest = hashlib.sha256(manifest).hexdigest()
        self._cache = ChunkCache(cache_bytes)

    @property
    def shape(self) -> tuple[int, ...]:
        """``(z, y, x)`` or ``(c, z, y, x)``."""
        return self.grid.shape

    @property
    def ndim(self) -> int:
        """3 or 4."""
        return len(self.shape)

    @property
    def chunk(self) -> tuple[int, ...]:
        """Shape of what is compressed together."""
        return self.grid.chunk

    def __getitem__(self, region: Any) -> NDArray[Any]:
        """Give a region, by integers and slices."""
        spans, finally_ = _spans(region, self.shape)
        block = np.empty([b - a for a, b in spans], self.dtype)
        self._read_into(block, spans)
        part: NDArray[Any] = block[finally_]
        return part

    def _read_into(self, block: NDArray[Any], spans: list[tuple[int, int]]) -> None:
        if not block.size:
            return
        grid = self.grid
        ranges = [range(a // c, -(-b // c)) for (a, b), c in zip(spans, grid.chunk, strict=True)]
        for index, chunk in self._chunks(product(*ranges)):
            into, of = [], []
            for i, c, (a, b) in zip(index, grid.chunk, spans, strict=True):
                first, last = max(i * c, a), min((i + 1) * c, b)
                into.append(slice(first - a, last - a))
                of.append(slice(first - i * c, last - i * c))
            block[tuple(into)] = 0 if chunk is None else chunk[tuple(of)]

    def _chunks(
        self, indices: Iterable[ChunkIndex]
    ) -> Iterator[tuple[ChunkIndex, NDArray[Any] | None]]:
        """Yield decoded chunks, None for zeros; without cache each is good until the next one."""
        n_at_once = 1
        if not isinstance(self.path, Path):
            n_at_once = max(1, _FETCH_BYTES // (prod(self.grid.chunk) * self.dtype.itemsize))
        remaining = iter(indices)
        while batch := list(islice(remaining, n_at_once)):
            kept = {index: self._cache.get(index) for index in batch}
            encoded = self._fetch([index for index in batch if kept[index] is None])
            for index in batch:
                chunk = kept[index]
                if chunk is None and (data := encoded[index]) is not None:
                    chunk = self._decoded(index, data)
                yield index, chunk

    def _fetch(self, indices: Iterable[ChunkIndex]) -> dict[ChunkIndex, bytes | None]:
        """Give the bytes of chunks, those of several shards at the same time."""
        groups: dict[ChunkIndex, list[ChunkIndex]] = defaultdict(list)
        for index in indices:
            groups[self.grid.shard_of(index)].append(index)

        def read(members: list[ChunkIndex]) -> list[bytes | None]:
            place = self._shards[self.grid.shard_of(members[0])]
            shard = open_shard(*place, prod(self.grid.chunks_per_shard))
            return shard.read([self._place(index) for index in members])

        each = groups.values()
        data = map(read, each) if len(each) < 2 else fetchers().map(read, each)
        return dict(zip(chain(*each), chain.from_iterable(data), strict=True))

    def _place(self, index: ChunkIndex) -> int:
        """Give the place of a chunk in the index of its shard."""
        place = 0
        for i, m in zip(index, self.grid.chunks_per_shard, strict=True):
            place = place * m + i % m
        return place

    def _decoded(self, index: ChunkIndex, data: bytes) -> NDArray[Any]:
        buffer = np.empty(self.grid.chunk, self.dtype) if self.cache_bytes else self._buffer()
        try:
            chunk = self.encoding.decode(data, buffer)
        except (ValueError, RuntimeError) as error:
            path, *_ = self._shards[self.grid.shard_of(index)]
            raise CorruptShard(
                f"{path} is damaged in chunk {index}: {error}; make the product again"
            ) from error
        self._cache.put(index, chunk)
        return chunk

    def _buffer(self) -> NDArray[Any]:
        key = (self.grid.chunk, self.dtype.str)
        if getattr(_scratch, "key", None) != key:
            _scratch.key, _scratch.buffer = key, np.empty(self.grid.chunk, self.dtype)
        buffer: NDArray[Any] = _scratch.buffer
        return buffer

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_cache"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._cache = ChunkCache(self.cache_bytes)

    def __dask_tokenize__(self) -> tuple[str, str, str]:
        return type(self).__name__, self._digest, self.path.name


def _spans(region: Any, shape: tuple[int, ...]) -> tuple[list[tuple[int, int]], tuple[Any, ...]]:
    """Give the box that holds a region, and the index that makes the region of it."""
    parts = region if isinstance(region, tuple) else (region,)
    n_missing = len(shape) - sum(part is not Ellipsis for part in parts)
    if n_missing < 0:
        raise IndexError(f"{len(parts)} indices for an array of {len(shape)} axes")
    if not any(part is Ellipsis for part in parts):
        parts = (*parts, Ellipsis)
    spans: list[tuple[int, int]] = []
    finally_: list[Any] = []
    for part in _without_ellipsis(parts, n_missing):
        n = shape[len(spans)]
        if isinstance(part, slice):
            taken = range(n)[part]
            low, high = (min(taken[0], taken[-1]), max(taken[0], taken[-1])) if taken else (0, -1)
            spans.append((low, high + 1))
            finally_.append(slice(None) if taken.step == 1 else slice(None, None, taken.step))
        else:
            i = range(n)[part]
            spans.append((i, i + 1))
            finally_.append(0)
    return spans, tuple(finally_)


def _without_ellipsis(parts: tuple[Any, ...], n_missing: int) -> Iterator[Any]:
    for part in parts:
        if part is Ellipsis:
            yield from (slice(None),) * n_missing
        else:
            yield part


def _checked_states(folder: Location, expected: Mapping[str, int]) -> dict[str, Hashable]:
    """Look up every shard, of an object store by one listing; give what tells it from others."""
    if isinstance(folder, Path):
        found = {name: _file_state(folder / name) for name in expected}
    else:
        found = {name: (stored.n_bytes, stored) for name, stored in folder.objects().items()}
    states: dict[str, Hashable] = {}
    for name, n_bytes in expected.items():
        there, states[name] = found.get(name, (None, None))
        if there is None:
            raise CorruptShard(f"{folder / name} is missing: make the product again")
        if there != n_bytes:
            raise CorruptShard(
                f"{folder / name} has {there} bytes, {n_bytes} were written: make it again"
            )
    return states


def _file_state(path: Path) -> tuple[int | None, Hashable]:
    """Give the size of a file, None where there is none, and what tells it from others."""
    try:
        status = path.stat()
    except OSError:
        return None, None
    return status.st_size, (status.st_ino, status.st_mtime_ns)
