"""One sequential read of a source: slab by slab, in strips that several threads work on."""

from __future__ import annotations

import hashlib
from concurrent.futures import wait
from typing import TYPE_CHECKING, Any, TypeVar

from otzi.box import Box, tile
from otzi.errors import MemoryBudgetError
from otzi.events import Listener, step
from otzi.memory import format_bytes
from otzi.mrc import slabs
from otzi_pipelines.ingest.source_files import reading_source, sha256_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Executor

    from numpy.typing import NDArray

    from otzi_pipelines.ingest.sources import Source

__all__ = ["CHUNK_VOXELS", "StripReader", "slab_planes"]

T = TypeVar("T")

CHUNK_VOXELS = 64
_SHARD_VOXELS = 256
_PROCESS_BYTES = 200 * 10**6  # interpreter and libraries
_THREAD_BYTES = 40 * 10**6  # a strip on its way: float64 pieces, encoded chunks


def slab_planes(source: Source, memory_bytes: int | None, threads: int) -> int:
    """Give how many planes are read at a time: whole chunks, as many as the memory holds.

    Raises
    ------
    MemoryBudgetError
        If not even one layer of chunks fits.
    """
    _, n_y, n_x = source.header.shape
    itemsize = source.header.dtype.itemsize
    layer = CHUNK_VOXELS * n_y * n_x * itemsize
    shard = min(_SHARD_VOXELS, n_y) * min(_SHARD_VOXELS, n_x) * _SHARD_VOXELS * itemsize
    fixed = _PROCESS_BYTES + threads * (shard + _THREAD_BYTES)
    if not source.header.is_z_slowest:
        fixed += source.header.data_bytes // source.header.stored_shape[0]
    if memory_bytes is None:
        return CHUNK_VOXELS
    if fixed + layer > memory_bytes:
        raise MemoryBudgetError(
            f"{source.path}: {CHUNK_VOXELS} planes of {n_y} × {n_x} voxels need "
            f"{format_bytes(fixed + layer)}, it may use {format_bytes(memory_bytes)}: raise "
            "--memory or lower --workers"
        )
    layers = (memory_bytes - fixed) // layer
    return CHUNK_VOXELS * min(layers, _SHARD_VOXELS // CHUNK_VOXELS)


class StripReader:
    """Reads of a whole source: ``read(name, visit)`` yields what `visit` gives for each strip.

    Strips are 64 planes of 64 rows, in the order of z and y, whatever the depth of the slabs.
    """

    def __init__(self, source: Source, depth: int, pool: Executor, listen: Listener) -> None:
        self.source, self.depth, self.pool, self.listen = source, depth, pool, listen
        self._sha256 = source.sha256

    @property
    def sha256(self) -> str:
        """SHA-256 of the file, taken while it was read if its order allowed it."""
        return self._sha256 or sha256_of(self.source.path)

    def __call__(self, name: str, visit: Callable[[Box, NDArray[Any]], T]) -> Iterator[T]:
        """Yield what `visit` gives for box and voxels of each strip.

        Raises
        ------
        SourceError
            If the source cannot be read to its end, or was changed meanwhile.
        """
        source, digest = self.source, hashlib.sha256()
        is_digested = source.header.is_z_slowest and self._sha256 is None
        seen = digest.update if is_digested else None
        reading = slabs(source.data_path, source.header, self.depth, seen=seen)
        with step(self.listen, name, -(-source.header.shape[0] // self.depth), "slabs") as work:
            while True:
                with reading_source(source.path):
                    piece = next(reading, None)
                if piece is None:
                    break
                yield from self._strips(*piece, visit)
                del piece  # before the next one is read
                work.advance()
        source.check_unchanged()
        if is_digested:
            self._sha256 = digest.hexdigest()

    def _strips(
        self, outer: Box, slab: NDArray[Any], visit: Callable[[Box, NDArray[Any]], T]
    ) -> Iterator[T]:
        strip = (CHUNK_VOXELS, CHUNK_VOXELS, slab.shape[2])
        boxes = [box.shift(outer.start) for box in tile(outer.shape, strip)]
        futures = [self.pool.submit(visit, box, slab[box.within(outer)]) for box in boxes]
        try:
            for future in futures:
                yield future.result()
        finally:  # nobody works on after an error: what they write to is cleared away then
            for future in futures:
                future.cancel()
            wait(futures)
