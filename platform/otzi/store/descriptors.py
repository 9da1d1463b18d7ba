"""Open shard files with their indexes, shared by all readers of this process."""

from __future__ import annotations

import os
import resource
from collections import OrderedDict
from functools import cache
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np

from otzi.errors import CorruptShard
from otzi.store.encoding import crc32c

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["OpenShard", "open_shard"]

_CHECKSUM_BYTES = 4
_ENTRY_BYTES = 16
_MOST = 1024
EMPTY = 2**64 - 1
"""Offset and length, in an index, of a chunk that has nothing but the fill value."""


class OpenShard:
    """A shard file that is open for reading, with its index; closed when nobody holds it."""

    def __init__(self, path: Path, n_chunks: int) -> None:
        self.path = path
        try:
            self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise CorruptShard(f"{path} cannot be opened: {error.strerror}") from error
        self.index = self._read_index(n_chunks)

    def _read_index(self, n_chunks: int) -> NDArray[np.uint64]:
        n_bytes = n_chunks * _ENTRY_BYTES + _CHECKSUM_BYTES
        start = os.fstat(self.descriptor).st_size - n_bytes
        data = os.pread(self.descriptor, n_bytes, start) if start >= 0 else b""
        entries, checksum = data[:-_CHECKSUM_BYTES], data[-_CHECKSUM_BYTES:]
        if len(data) != n_bytes or crc32c(entries) != int.from_bytes(checksum, "little"):
            raise CorruptShard(f"the index of {self.path} is damaged: make the product again")
        return np.frombuffer(entries, "<u8").reshape(n_chunks, 2)

    def read(self, place: int) -> bytes | None:
        """Give the bytes of the chunk at a place of the index; None where there are none."""
        offset, n_bytes = self.index[place]
        if n_bytes == EMPTY:
            return None
        return os.pread(self.descriptor, int(n_bytes), int(offset))

    def __del__(self) -> None:
        descriptor = getattr(self, "descriptor", None)
        if descriptor is not None:
            os.close(descriptor)


class _OpenShards:
    """The shards read last, as many as the process may hold open beside all else."""

    def __init__(self) -> None:
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.most = min(_MOST, max(8, soft // 4)) if soft > 0 else _MOST
        self._lock = Lock()
        self._open: OrderedDict[Path, OpenShard] = OrderedDict()

    def get(self, path: Path, n_chunks: int) -> OpenShard:
        with self._lock:
            shard = self._open.get(path)
            if shard is not None:
                self._open.move_to_end(path)
                return shard
        shard = OpenShard(path, n_chunks)
        with self._lock:
            self._open[path] = shard
            while len(self._open) > self.most:
                self._open.popitem(last=False)
        return shard


@cache
def _open_shards() -> _OpenShards:
    return _OpenShards()


def open_shard(path: Path, n_chunks: int) -> OpenShard:
    """Give a shard file of a published, immutable generation, opened at most now and then.

    Raises
    ------
    CorruptShard
        If it is not there, or its index is damaged.
    """
    return _open_shards().get(path, n_chunks)
