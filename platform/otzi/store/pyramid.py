"""The next level: 2×2×2 rounded mean for densities and probabilities, mode for labels."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from otzi.store.shards import ArrayWriter

__all__ = ["Downsample", "halve", "write_next_level"]

Downsample = Literal["mean", "mode"]


def halve(block: NDArray[Any], method: Downsample) -> NDArray[Any]:
    """Give the block at half the resolution: ``(…, z//2, y//2, x//2)``, in its own dtype.

    The last voxel of an odd axis is dropped. ``mean`` rounds to the nearest for integers; ``mode``
    takes the smallest label where several are equally frequent.
    """
    corners = _corners(block)
    if method == "mode":
        return _mode(np.stack(corners))
    wide = np.float64 if block.dtype.itemsize > 2 else np.float32
    total: NDArray[Any] = corners[0].astype(wide)
    for corner in corners[1:]:
        np.add(total, corner, out=total)
    np.divide(total, len(corners), out=total)
    if np.issubdtype(block.dtype, np.integer):
        np.rint(total, out=total)
    return total.astype(block.dtype)


def _corners(block: NDArray[Any]) -> list[NDArray[Any]]:
    z, y, x = (n // 2 * 2 for n in block.shape[-3:])
    even = block[..., :z, :y, :x]
    return [even[..., i::2, j::2, k::2] for i in (0, 1) for j in (0, 1) for k in (0, 1)]


def _mode(corners: NDArray[Any]) -> NDArray[Any]:
    ordered = np.sort(corners, axis=0)
    counts = (ordered[:, None] == ordered[None, :]).sum(axis=1, dtype=np.uint8)
    first = counts.argmax(axis=0)
    mode: NDArray[Any] = np.take_along_axis(ordered, first[None], axis=0)[0]
    return mode


def write_next_level(
    read: Callable[[tuple[slice, ...]], NDArray[Any]],
    writer: ArrayWriter,
    method: Downsample,
    workers: int = 2,
) -> None:
    """Write the level whose voxels are the 2×2×2 blocks of the level that `read` reads.

    Chunk by chunk, so that memory holds eight chunks for each worker.
    """

    def one(region: tuple[slice, ...]) -> None:
        finer = [slice(2 * s.start, 2 * s.stop) for s in region[-3:]]
        writer[region] = halve(read((*region[:-3], *finer)), method)

    grid = writer.grid
    regions = map(grid.chunk_slices, grid.chunk_indices((0,) * len(grid.shape), grid.shape))
    with ThreadPoolExecutor(workers) as pool:
        for _ in pool.map(one, regions):
            pass
