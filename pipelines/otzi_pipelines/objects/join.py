"""Pieces of objects from all blocks, in any order, joined over faces and numbered.  Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from otzi.errors import MemoryBudgetError
from otzi_pipelines.objects.parts import PART_BYTES, Parts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from otzi.box import Box, Zyx
    from otzi_pipelines.objects.block import BlockParts

__all__ = ["JOINED_PART_BYTES", "Joined", "Joiner"]

JOINED_PART_BYTES = 4 * PART_BYTES
"""That a piece takes while all are joined."""


@dataclass(frozen=True, slots=True)
class Joined:
    """The objects of a volume."""

    objects: Parts
    """Object i in row i − 1; they are numbered by their first voxels in the order z, y, x."""
    _numbers: NDArray[np.uint32]
    _rows: Mapping[Zyx, slice]

    def numbers(self, box: Box) -> NDArray[np.uint32]:
        """Give the object of each piece of a block: ``(n,)`` uint32, 0 where it is left out."""
        return self._numbers[self._rows[box.start]]


class Joiner:
    """Takes the blocks of a volume, each once.

    A face between two blocks holds the same voxels seen from either side, with one more at its low
    edges: pieces that share one of these are of one object, and so are diagonal neighbours, by way
    of a third block. A face is kept until it was seen from both sides.

    Parameters
    ----------
    most_parts
        So many pieces may be kept; not bounded if None.
    """

    def __init__(self, most_parts: int | None = None) -> None:
        self._most_parts = most_parts
        self._parts: list[Parts] = []
        self._rows: dict[Zyx, slice] = {}
        self._faces: dict[tuple[int, Zyx], tuple[int, NDArray[np.int32]]] = {}
        self._pairs: list[NDArray[np.int64]] = []
        self._n = 0

    def add(self, box: Box, block: BlockParts) -> None:
        """Take a block.

        Raises
        ------
        MemoryBudgetError
            If there are more pieces than may be kept.
        """
        first, self._n = self._n, self._n + len(block.parts)
        if self._most_parts is not None and self._n > self._most_parts:
            raise MemoryBudgetError(
                f"more than {self._most_parts:,} pieces of objects, as many as fit into --memory: "
                "allow more, leave small ones out by --min-volume-nm3, or raise --threshold"
            )
        self._rows[box.start] = slice(first, self._n)
        self._parts.append(block.parts)
        for axis in range(3):
            following = list(box.start)
            following[axis] = box.stop[axis]
            z, y, x = following
            for start, face in ((box.start, block.low[axis]), ((z, y, x), block.high[axis])):
                if face is not None:
                    self._see((axis, start), first, face)

    def _see(self, key: tuple[int, Zyx], first: int, face: NDArray[np.int32]) -> None:
        """Join a face with what its other side is known to be, or keep it until that is known.

        It is named by its axis and by the start of the block above it.
        """
        if (seen := self._faces.pop(key, None)) is None:
            self._faces[key] = (first, face)
            return
        other_first, other = seen
        there = face > 0
        one = face[there].astype(np.int64) + (first - 1)
        two = other[there].astype(np.int64) + (other_first - 1)
        self._pairs.append(np.unique(one << 32 | two))

    def joined(self, min_voxels: int = 1) -> Joined:
        """Give the objects of all blocks; those of fewer voxels are left out."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        parts = Parts.joined(self._parts)
        self._parts.clear()
        pairs = np.concatenate([np.zeros(0, np.int64), *self._pairs])
        one, two = pairs >> 32, pairs & 0xFFFFFFFF
        graph = coo_array((np.ones(len(pairs), np.bool_), (one, two)), shape=(len(parts),) * 2)
        groups = np.zeros(0, np.int32)
        if len(parts):
            _, groups = connected_components(graph, directed=False)
        whole = parts.merged(groups)
        kept = np.flatnonzero(whole.voxels >= min_voxels)
        kept = kept[np.argsort(whole.first[kept])]
        numbers = np.zeros(len(whole), np.uint32)
        numbers[kept] = np.arange(1, len(kept) + 1)
        return Joined(whole[kept], numbers[groups], self._rows)
