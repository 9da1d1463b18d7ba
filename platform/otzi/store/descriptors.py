"""Open shards with their indexes, shared by all readers of this process."""

from __future__ import annotations

import os
import resource
from collections import OrderedDict
from functools import cache
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from otzi.errors import CorruptShard
from otzi.store.remote_shard import RemoteShard
from otzi.store.shard_index import EMPTY, index_bytes, parse_index

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    import numpy as np

    from otzi.store.location import Location

__all__ = ["OpenShard", "open_shard"]

_MOST = 1024


class OpenShard:
    """A shard file that is open for reading, with its index; closed when nobody holds it."""

    def __init__(self, path: Path, n_bytes: int, n_chunks: int) -> None:
        self.path = path
        try:
            self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise CorruptShard(f"{path} cannot be opened: {error.strerror}") from error
        length = index_bytes(n_chunks)
        data = os.pread(self.descriptor, length, max(0, n_bytes - length))
        self.index = parse_index(data, path, n_chunks)

    def read(self, places: Sequence[int]) -> list[bytes | None]:
        """Give the bytes of the chunks at places of the index; None where there are none."""
        return [self._read(*self.index[place]) for place in places]

    def _read(self, offset: np.uint64, n_bytes: np.uint64) -> bytes | None:
        return None if n_bytes == EMPTY else os.pread(self.descriptor, int(n_bytes), int(offset))

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
        self._open: OrderedDict[tuple[Location, Hashable], OpenShard | RemoteShard] = OrderedDict()

    def get(
        self, path: Location, state: Hashable, n_bytes: int, n_chunks: int
    ) -> OpenShard | RemoteShard:
        key = path, state
        with self._lock:
            shard: OpenShard | RemoteShard | None = self._open.get(key)
            if shard is not None:
                self._open.move_to_end(key)
                return shard
        if isinstance(path, Path):
            shard = OpenShard(path, n_bytes, n_chunks)
        else:
            shard = RemoteShard(path, n_bytes, n_chunks)
        with self._lock:
            self._open[key] = shard
            while len(self._open) > self.most:
                self._open.popitem(last=False)
        return shard


@cache
def _open_shards() -> _OpenShards:
    return _OpenShards()


def open_shard(
    path: Location, state: Hashable, n_bytes: int, n_chunks: int
) -> OpenShard | RemoteShard:
    """Give a shard of a published, immutable generation, opened at most now and then.

    `state` tells the file from another that lay or will lie at the same path: after a repair, or
    where a collection was removed and made again.

    Raises
    ------
    CorruptShard
        If it is not there, or its index is damaged.
    """
    return _open_shards().get(path, state, n_bytes, n_chunks)
