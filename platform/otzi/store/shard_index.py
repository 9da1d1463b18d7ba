"""The index of a shard: where each of its chunks lies (Zarr v3, codec ``sharding_indexed``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from otzi.errors import CorruptShard
from otzi.store.checksum import checked, with_checksum

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from otzi.store.location import Location

__all__ = ["EMPTY", "index_bytes", "pack_index", "parse_index"]

_CHECKSUM_BYTES = 4
_ENTRY_BYTES = 16
EMPTY = 2**64 - 1
"""Offset and length of a chunk that has nothing but the fill value."""


def index_bytes(n_chunks: int) -> int:
    """Give the length of an index, which is the end of its shard."""
    return n_chunks * _ENTRY_BYTES + _CHECKSUM_BYTES


def pack_index(index: NDArray[np.uint64]) -> bytes:
    """Give the end of a shard for offset and length of every chunk, ``(n_chunks, 2)``."""
    return with_checksum(index.astype("<u8").tobytes())


def parse_index(data: bytes, path: Location, n_chunks: int) -> NDArray[np.uint64]:
    """Give offset and length of every chunk: ``(n_chunks, 2)``.

    Raises
    ------
    CorruptShard
        If the checksum does not match, or it is of another number of chunks.
    """
    try:
        index: NDArray[Any] = np.frombuffer(checked(data), "<u8").reshape(n_chunks, 2)
    except ValueError as error:
        message = f"the index of {path} is damaged: make the product again"
        raise CorruptShard(message) from error
    return index
