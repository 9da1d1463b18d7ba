"""Shapes of levels, chunks and shards.  Pure."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import product
from operator import floordiv
from typing import TYPE_CHECKING

from otzi.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otzi.box import Zyx

__all__ = ["MOST_SHARD_VOXELS", "LevelGrid", "level_grids", "level_shapes"]

_MAX_LEVELS = 5
_SMALL_ENOUGH_VOXELS = 64
MOST_SHARD_VOXELS = 256
"""Side of what lies in one file, where nothing else is asked for."""


@dataclass(frozen=True)
class LevelGrid:
    """How one array of a pyramid is cut; every shape is ``(z, y, x)`` or ``(c, z, y, x)``."""

    shape: tuple[int, ...]
    """The array."""
    chunk: tuple[int, ...]
    """What is compressed together and read at once."""
    shard: tuple[int, ...]
    """What lies in one file: whole chunks, covering the array's end."""

    @property
    def shards_per_axis(self) -> tuple[int, ...]:
        """Number of shards along each axis."""
        return tuple(-(-n // s) for n, s in zip(self.shape, self.shard, strict=True))

    @cached_property  # asked for every chunk that is read
    def chunks_per_shard(self) -> tuple[int, ...]:
        """Number of inner chunks along each axis of a shard, those beyond the array included."""
        return tuple(s // c for s, c in zip(self.shard, self.chunk, strict=True))

    def chunks_inside(self, shard: tuple[int, ...]) -> tuple[int, ...]:
        """Give how many inner chunks of a shard hold voxels of the array, along each axis."""
        axes = zip(self.shape, self.chunk, self.chunks_per_shard, shard, strict=True)
        return tuple(min(m, -(-n // c) - i * m) for n, c, m, i in axes)

    def shard_of(self, chunk: tuple[int, ...]) -> tuple[int, ...]:
        """Give the shard in which a chunk lies."""
        return tuple(map(floordiv, chunk, self.chunks_per_shard))

    def chunks_of(self, shard: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        """Yield the index of every chunk of a shard that holds voxels of the array, in C order."""
        ranges = zip(shard, self.chunks_per_shard, self.chunks_inside(shard), strict=True)
        yield from product(*(range(i * m, i * m + n) for i, m, n in ranges))

    def shards(self) -> Iterator[tuple[int, ...]]:
        """Yield the index of every shard, in C order."""
        yield from product(*map(range, self.shards_per_axis))

    def chunk_indices(
        self, start: tuple[int, ...], stop: tuple[int, ...]
    ) -> Iterator[tuple[int, ...]]:
        """Yield the index of every chunk of a region, in C order.

        Raises
        ------
        UsageError
            If the region does not consist of whole chunks (cut only by the array's end).
        """
        for a, b, n, c in zip(start, stop, self.shape, self.chunk, strict=True):
            if a % c or (b % c and b != n) or not 0 <= a < b <= n:
                raise UsageError(
                    f"region {start} to {stop} does not consist of whole chunks {self.chunk} "
                    f"of an array {self.shape}: rechunk it to multiples of the chunk"
                )
        ranges = zip(start, stop, self.chunk, strict=True)
        yield from product(*(range(a // c, -(-b // c)) for a, b, c in ranges))

    def chunk_slices(self, index: tuple[int, ...]) -> tuple[slice, ...]:
        """Give the region of a chunk, cut at the array's end."""
        parts = zip(index, self.chunk, self.shape, strict=True)
        return tuple(slice(i * c, min((i + 1) * c, n)) for i, c, n in parts)


def level_shapes(shape: Zyx) -> tuple[Zyx, ...]:
    """Give the shapes of all levels: halved, odd ends dropped, until every axis is at most 64.

    There are at most 5 levels, and no axis is ever halved to nothing.
    """
    shapes = [shape]
    while max(shapes[-1]) > _SMALL_ENOUGH_VOXELS and len(shapes) < _MAX_LEVELS:
        if min(shapes[-1]) < 2:
            break
        z, y, x = (n // 2 for n in shapes[-1])
        shapes.append((z, y, x))
    return tuple(shapes)


def level_grids(
    shape: Zyx,
    *,
    n_channels: int | None,
    chunk_voxels: int = 64,
    channels_per_chunk: int = 1,
    most_shard_voxels: int = MOST_SHARD_VOXELS,
) -> tuple[LevelGrid, ...]:
    """Give the grids of all levels of a product.

    Chunks are cubes; a shard is the largest cube of chunks up to `most_shard_voxels`, at least one,
    cut down to the level rounded up to whole chunks, and holds all channels.
    """
    if chunk_voxels < 1:
        raise UsageError(f"chunks of {chunk_voxels} voxels: give at least 1")
    shard_voxels = chunk_voxels * max(1, most_shard_voxels // chunk_voxels)
    grids = []
    for level in level_shapes(shape):
        shard = tuple(min(shard_voxels, -(-n // chunk_voxels) * chunk_voxels) for n in level)
        chunk: tuple[int, ...] = (chunk_voxels,) * 3
        if n_channels is None:
            grids.append(LevelGrid(level, chunk, shard))
            continue
        channels = -(-n_channels // channels_per_chunk) * channels_per_chunk
        grids.append(
            LevelGrid((n_channels, *level), (channels_per_chunk, *chunk), (channels, *shard))
        )
    return tuple(grids)
