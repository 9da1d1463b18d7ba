"""The index of a shard: where each of its chunks lies (Zarr v3, codec ``sharding_indexed``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from otzi.errors import CorruptShard
from otzi.store.encoding import crc32c

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from otzi.store.location import Location

__all__ = ["EMPTY", "index_bytes", "parse_index"]

_CHECKSUM_BYTES = 4
_ENTRY_BYTES = 16
EMPTY = 2**64 - 1
"""Offset and length of a chunk that has nothing but the fill value."""


def index_bytes(n_chunks: int) -> int:
    """Give the length of an index, which is the end of its shard."""
    return n_chunks * _ENTRY_BYTES + _CHECKSUM_BYTES


def parse_index(data: bytes, path: Location, n_chunks: int) -> NDArray[np.uint64]:
    """Give offset and length of every chunk: ``(n_chunks, 2)``.

    Raises
    ------
    CorruptShard
        If the checksum does not match.
    """
    entries, checksum = data[:-_CHECKSUM_BYTES], data[-_CHECKSUM_BYTES:]
    is_whole = len(data) == index_bytes(n_chunks)
    if not is_whole or crc32c(entries) != int.from_bytes(checksum, "little"):
        raise CorruptShard(f"the index of {path} is damaged: make the product again")
    index: NDArray[Any] = np.frombuffer(entries, "<u8").reshape(n_chunks, 2)
    return index
