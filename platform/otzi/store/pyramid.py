"""The next level: 2×2×2 rounded mean for densities and probabilities, mode for labels."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from otzi.compiled import compiled

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from otzi.store.grid import LevelGrid
    from otzi.store.shards import ArrayWriter

__all__ = ["CoarserLevel", "Downsample", "halve"]

Downsample = Literal["mean", "mode"]
ChunkIndex = tuple[int, ...]


def halve(block: NDArray[Any], method: Downsample) -> NDArray[Any]:
    """Give the block at half the resolution: ``(…, z//2, y//2, x//2)``, in its own dtype.

    The last voxel of an odd axis is dropped. ``mean`` rounds to the nearest for integers, half to
    even; ``mode`` takes the smallest label where several are equally frequent.
    """
    z, y, x = (n // 2 for n in block.shape[-3:])
    stack = block.reshape(-1, *block.shape[-3:])
    if method == "mode":
        return _mode(stack, (z, y, x)).reshape(*block.shape[:-3], z, y, x)
    # What numba has no arithmetic for is averaged in float32.
    source = stack.astype(np.float32) if block.dtype == np.float16 else stack
    mean = np.empty((len(stack), z, y, x), source.dtype)
    if block.dtype.kind in "iu":
        _integer_mean(source, mean)
    else:
        _float_mean(source, mean)
    return mean.astype(block.dtype, copy=False).reshape(*block.shape[:-3], z, y, x)


@compiled
def _float_mean(source: NDArray[Any], mean: NDArray[Any]) -> None:
    for c in range(mean.shape[0]):
        for z in range(mean.shape[1]):
            for y in range(mean.shape[2]):
                a, b = source[c, 2 * z, 2 * y], source[c, 2 * z, 2 * y + 1]
                d, e = source[c, 2 * z + 1, 2 * y], source[c, 2 * z + 1, 2 * y + 1]
                row = mean[c, z, y]
                for x in range(row.size):
                    i, j = 2 * x, 2 * x + 1
                    total = np.float64(a[i]) + a[j] + b[i] + b[j] + d[i] + d[j] + e[i] + e[j]
                    row[x] = total * 0.125


@compiled
def _integer_mean(source: NDArray[Any], mean: NDArray[Any]) -> None:
    for c in range(mean.shape[0]):
        for z in range(mean.shape[1]):
            for y in range(mean.shape[2]):
                a, b = source[c, 2 * z, 2 * y], source[c, 2 * z, 2 * y + 1]
                d, e = source[c, 2 * z + 1, 2 * y], source[c, 2 * z + 1, 2 * y + 1]
                row = mean[c, z, y]
                for x in range(row.size):
                    i, j = 2 * x, 2 * x + 1
                    total = np.int64(a[i]) + a[j] + b[i] + b[j] + d[i] + d[j] + e[i] + e[j]
                    # floor((total + 4) / 8), one less where it was a tie and came out odd
                    half_up = (total + 4) >> 3
                    row[x] = half_up - ((total & 7) == 4 and half_up & 1)


def _mode(stack: NDArray[Any], halves: tuple[int, int, int]) -> NDArray[Any]:
    z, y, x = (2 * n for n in halves)
    even = stack[:, :z, :y, :x]
    corners = [even[:, i::2, j::2, k::2] for i in (0, 1) for j in (0, 1) for k in (0, 1)]
    ordered = np.sort(np.stack(corners), axis=0)
    counts = (ordered[:, None] == ordered[None, :]).sum(axis=1, dtype=np.uint8)
    first = counts.argmax(axis=0)
    mode: NDArray[Any] = np.take_along_axis(ordered, first[None], axis=0)[0]
    return mode


@dataclass(slots=True)
class _Gathering:
    """A chunk of the coarser level that still lacks voxels."""

    voxels: NDArray[Any]
    missing: int


class CoarserLevel:
    """Gathers halved chunks of a level into chunks of the next one, and passes on whole ones.

    Chunks come in any order and from any thread, each once. What waits is an eighth of what lies
    between the first and the last chunk that came out of order: for a volume that is written from
    one end to the other, a layer of chunks.
    """

    def __init__(self, finer: LevelGrid, writer: ArrayWriter, method: Downsample) -> None:
        self.finer, self.writer, self.method = finer, writer, method
        self._lock = Lock()
        self._gathering: dict[ChunkIndex, _Gathering] = {}

    def take(self, index: ChunkIndex, voxels: NDArray[Any]) -> None:
        """Take a chunk of the finer level."""
        half = halve(voxels, self.method)
        if not half.size:
            return
        grid, channels = self.writer.grid, len(index) - 3
        start = [i * c // 2 for i, c in zip(index, self.finer.chunk, strict=True)][channels:]
        chunk = grid.chunk[channels:]
        key = (*index[:channels], *(a // c for a, c in zip(start, chunk, strict=True)))
        if self.writer.is_done(key):
            return
        places = zip(start, chunk, half.shape[channels:], strict=True)
        z, y, x = (slice(a % c, a % c + n) for a, c, n in places)
        with self._lock:
            gathering = self._gathering.get(key)
            if gathering is None:
                shape = [s.stop - s.start for s in grid.chunk_slices(key)]
                gathering = _Gathering(np.empty(shape, self.writer.dtype), prod(shape))
                self._gathering[key] = gathering
            gathering.voxels[..., z, y, x] = half
            gathering.missing -= half.size
            if gathering.missing:
                return
            del self._gathering[key]
        self.writer.write_chunk(key, gathering.voxels)
