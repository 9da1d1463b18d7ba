"""One level of a published product as an array that is read by boxes and never lies.

A box costs one read for each chunk that it crosses: shards stay open, their indexes are kept, and
chunks are decoded into a buffer that each thread uses again.
"""

from __future__ import annotations

import threading
from itertools import product
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr

from otzi.errors import CorruptShard, VerificationError
from otzi.store.chunk_cache import ChunkCache
from otzi.store.descriptors import open_shard
from otzi.store.encoding import encoding_of
from otzi.store.grid import LevelGrid
from otzi.store.publish import manifest_digest, read_manifest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["LevelArray"]

_scratch = threading.local()


class LevelArray:
    """A level of a product: ``array[region]`` reads; a missing or damaged shard is an error.

    On opening, every shard of the level is looked up and its size compared with the manifest:
    Zarr itself would read a missing one as zeros. Read from any thread; a copy that is sent to
    another process opens its own files.

    Parameters
    ----------
    generation, level
        What to read.
    cache_bytes
        How much of decoded chunks is kept for boxes that overlap; none if 0.
    """

    def __init__(self, generation: Path, level: int, cache_bytes: int = 0) -> None:
        self.generation, self.level, self.cache_bytes = generation, level, cache_bytes
        self.path = generation / str(level)
        try:
            stored: zarr.Array[Any] = zarr.open_array(self.path, mode="r")
        except (FileNotFoundError, ValueError) as error:
            raise VerificationError(
                f"level {level} of {generation} cannot be read: {error}"
            ) from error
        for name, (n_bytes, _) in read_manifest(generation).items():
            if name.startswith(f"{level}/"):
                _check_size(generation / name, n_bytes)
        self.dtype: np.dtype[Any] = stored.dtype
        self.grid = LevelGrid(stored.shape, stored.chunks, stored.shards or stored.chunks)
        self.encoding = encoding_of(stored.metadata.to_dict())
        self._digest = manifest_digest(generation)
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
        return block[finally_]

    def _read_into(self, block: NDArray[Any], spans: list[tuple[int, int]]) -> None:
        if not block.size:
            return
        grid = self.grid
        ranges = [range(a // c, -(-b // c)) for (a, b), c in zip(spans, grid.chunk, strict=True)]
        for index in product(*ranges):
            into, of = [], []
            for i, c, (a, b) in zip(index, grid.chunk, spans, strict=True):
                first, last = max(i * c, a), min((i + 1) * c, b)
                into.append(slice(first - a, last - a))
                of.append(slice(first - i * c, last - i * c))
            chunk = self._chunk(index)
            block[tuple(into)] = 0 if chunk is None else chunk[tuple(of)]

    def _chunk(self, index: tuple[int, ...]) -> NDArray[Any] | None:
        """Give a decoded chunk, or None for zeros; without cache it is good until the next one."""
        if (kept := self._cache.get(index)) is not None:
            return kept
        grid = self.grid
        path = self.path.joinpath("c", *map(str, grid.shard_of(index)))
        shard = open_shard(path, prod(grid.chunks_per_shard))
        place = 0
        for i, m in zip(index, grid.chunks_per_shard, strict=True):
            place = place * m + i % m
        data = shard.read(place)
        if data is None:
            return None
        buffer = np.empty(grid.chunk, self.dtype) if self.cache_bytes else self._buffer()
        try:
            chunk = self.encoding.decode(data, buffer)
        except (ValueError, RuntimeError) as error:
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

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.generation, self.level, self.cache_bytes)

    def __dask_tokenize__(self) -> tuple[str, str, str]:
        return type(self).__name__, self._digest, self.path.name


def _spans(region: Any, shape: tuple[int, ...]) -> tuple[list[tuple[int, int]], tuple[Any, ...]]:
    """Give the box that holds a region, and the index that makes the region of it."""
    parts = region if isinstance(region, tuple) else (region,)
    n_missing = len(shape) - sum(part is not Ellipsis for part in parts)
    if n_missing < 0:
        raise IndexError(f"{len(parts)} indices for an array of {len(shape)} axes")
    if Ellipsis not in [p if p is Ellipsis else None for p in parts]:
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


def _check_size(path: Path, n_bytes: int) -> None:
    try:
        found = path.stat().st_size
    except OSError as error:
        raise CorruptShard(f"{path} is missing: make the product again") from error
    if found != n_bytes:
        raise CorruptShard(f"{path} has {found} bytes, {n_bytes} were written: make it again")
