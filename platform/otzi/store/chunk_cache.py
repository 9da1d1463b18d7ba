"""Decoded chunks, the least recently used given up first."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["ChunkCache"]


class ChunkCache:
    """Chunks by index, at most `n_bytes` of them; from any thread."""

    def __init__(self, n_bytes: int) -> None:
        self.n_bytes = n_bytes
        self._held_bytes = 0
        self._lock = Lock()
        self._chunks: OrderedDict[tuple[int, ...], NDArray[Any]] = OrderedDict()

    def get(self, index: tuple[int, ...]) -> NDArray[Any] | None:
        """Give a chunk that is kept, or None."""
        if not self.n_bytes:
            return None
        with self._lock:
            chunk = self._chunks.get(index)
            if chunk is not None:
                self._chunks.move_to_end(index)
            return chunk

    def put(self, index: tuple[int, ...], chunk: NDArray[Any]) -> None:
        """Keep a chunk; it is not to be written to any more."""
        if not self.n_bytes:
            return
        with self._lock:
            if index in self._chunks:
                return
            self._chunks[index] = chunk
            self._held_bytes += chunk.nbytes
            while self._held_bytes > self.n_bytes:
                self._held_bytes -= self._chunks.popitem(last=False)[1].nbytes
