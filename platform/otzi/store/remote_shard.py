"""Shards of an object store: the index by one range request, the chunks of a box by few more."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TYPE_CHECKING

from otzi.errors import CorruptShard
from otzi.store.shard_index import EMPTY, index_bytes, parse_index

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otzi.store.objects import ObjectPath

__all__ = ["RemoteShard", "fetchers"]

_SHARDS_AT_ONCE = 8


class RemoteShard:
    """A shard object with its index."""

    def __init__(self, path: ObjectPath, n_bytes: int, n_chunks: int) -> None:
        self.path = path
        (data,) = self._ranges([n_bytes - index_bytes(n_chunks)], [n_bytes])
        self.index = parse_index(data, path, n_chunks)

    def read(self, places: Sequence[int]) -> list[bytes | None]:
        """Give the bytes of the chunks at places of the index; None where there are none."""
        entries = [(int(offset), int(length)) for offset, length in self.index[list(places)]]
        there = [(offset, offset + length) for offset, length in entries if length != EMPTY]
        found = iter(self._ranges(*map(list, zip(*there, strict=True))) if there else ())
        return [None if length == EMPTY else next(found) for _, length in entries]

    def _ranges(self, starts: list[int], ends: list[int]) -> list[bytes]:
        try:
            return self.path.read_ranges(starts, ends)
        except FileNotFoundError as error:
            raise CorruptShard(f"{self.path} is missing: make the product again") from error


@cache
def fetchers() -> ThreadPoolExecutor:
    """Give the threads that wait for shards of one box."""
    return ThreadPoolExecutor(_SHARDS_AT_ONCE, "otzi-fetch")
