"""Objects of one block, wherever it is computed: what is told of it, and what comes back."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

import numpy as np

from otzi.box import Box
from otzi.collection import open_collection
from otzi.errors import VerificationError
from otzi_pipelines.objects.parts import Parts, measure

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from otzi.store.reader import LevelArray
    from otzi_pipelines.objects.selection import Selection

__all__ = ["BlockParts", "Connectivity", "ObjectTask", "block_numbers", "block_parts", "labelled"]

Connectivity = Literal[6, 18, 26]

_RANKS = {6: 1, 18: 2, 26: 3}


@dataclass(frozen=True, slots=True)
class ObjectTask:
    """What the blocks of a tomogram have in common."""

    collection: str
    """Folder or URL, as whoever computes reaches it."""
    tomogram: str
    selection: Selection
    sha256: str
    """Of the product that is meant."""
    connectivity: Connectivity
    """How many neighbours a voxel has."""
    min_voxels: int
    """Smaller objects are left out."""


@dataclass(frozen=True, slots=True)
class BlockParts:
    """The pieces of objects in a block, and where they may go on in other blocks."""

    parts: Parts
    low: tuple[NDArray[np.int32] | None, ...]
    """For z, y and x, the pieces in the voxels just below the block, numbered from 1; None where
    there are none. They reach one voxel further at the other low faces, as those of `high` do."""
    high: tuple[NDArray[np.int32] | None, ...]
    """Those in the last voxels of the block, where another block follows."""


def block_parts(task: ObjectTask, box: Box) -> BlockParts:
    """Give the pieces of objects in a block; what is small and ends inside it is left out.

    Raises
    ------
    VerificationError
        If the product is not the one that is meant.
    """
    array = _array(task.collection, task.tomogram, task.selection.product, task.sha256)
    shape = z, y, x = array.shape[-3:]
    held = _held(box)
    kinds, codes = task.selection.read(array, held)
    labels, n = labelled(kinds, len(task.selection.classes), task.connectivity)
    parts = measure(labels, kinds, codes, n, held, box, (z, y, x))
    low, high = _faces(labels, box, shape)
    renumber = _kept(parts.voxels, (*low, *high), task.min_voxels)
    return BlockParts(
        parts[renumber[1:] > 0],
        tuple(None if face is None else renumber[face] for face in low),
        tuple(None if face is None else renumber[face] for face in high),
    )


def block_numbers(task: ObjectTask, item: tuple[Box, NDArray[np.uint32]]) -> NDArray[np.uint32]:
    """Give the object of every voxel of a block: ``(z, y, x)`` uint32, 0 where there is none.

    Parameters
    ----------
    task
        As for `block_parts`.
    item
        The block, and the object of each of the pieces that `block_parts` gave of it.

    Raises
    ------
    VerificationError
        If the product is not the one that is meant.
    """
    box, numbers = item
    array = _array(task.collection, task.tomogram, task.selection.product, task.sha256)
    held = _held(box)
    kinds, _ = task.selection.read(array, held)
    labels, n = labelled(kinds, len(task.selection.classes), task.connectivity)
    inside = labels[box.within(held)]
    voxels = np.bincount(inside.ravel(), minlength=n + 1)[1:]
    low, high = _faces(labels, box, array.shape[-3:])
    renumber = _kept(voxels, (*low, *high), task.min_voxels)
    of_label = np.concatenate([np.zeros(1, np.uint32), numbers])[renumber]
    return np.asarray(of_label[inside])


def labelled(
    kinds: NDArray[np.uint8], n_kinds: int, connectivity: Connectivity
) -> tuple[NDArray[np.int32], int]:
    """Give the connected pieces of every class, numbered from 1, and how many there are.

    Parameters
    ----------
    kinds
        ``(z, y, x)`` uint8: 0, or the class from 1 to `n_kinds`.
    n_kinds, connectivity
        Number of classes, and of neighbours.

    Returns
    -------
    tuple
        ``(z, y, x)`` int32, 0 where there is no class; and the largest of it.
    """
    from scipy.ndimage import generate_binary_structure, label

    structure = generate_binary_structure(3, _RANKS[connectivity])
    labels = np.zeros(kinds.shape, np.int32)
    total = 0
    for kind in range(1, n_kinds + 1):
        here = kinds == kind
        own = np.empty(kinds.shape, np.int32) if total else labels
        n = label(here, structure, output=own)
        assert isinstance(n, int)
        if total:
            np.add(own, total, out=labels, where=here)
        total += n
    return labels, total


def _held(box: Box) -> Box:
    """Give the block and one voxel more at its low faces: every pair of neighbours is in one."""
    z, y, x = (max(0, a - 1) for a in box.start)
    return Box((z, y, x), box.stop)


def _faces(
    labels: NDArray[np.int32], box: Box, shape: tuple[int, ...]
) -> tuple[list[NDArray[np.int32] | None], list[NDArray[np.int32] | None]]:
    low: list[NDArray[np.int32] | None] = []
    high: list[NDArray[np.int32] | None] = []
    for axis in range(3):
        along = np.moveaxis(labels, axis, 0)
        first, last = along[0], along[-1]
        low.append(first if box.start[axis] > 0 and first.any() else None)
        high.append(last if box.stop[axis] < shape[axis] and last.any() else None)
    return low, high


def _kept(
    voxels: NDArray[np.integer],
    faces: tuple[NDArray[np.int32] | None, ...],
    min_voxels: int,
) -> NDArray[np.int32]:
    """Give new numbers of pieces, ``(1 + n,)``; 0 of those that are small and end in the block."""
    is_kept = np.concatenate([[False], voxels >= min_voxels])
    for face in faces:
        if face is not None:
            is_kept[face] = True
    is_kept[0] = False
    return np.where(is_kept, np.cumsum(is_kept, dtype=np.int32), np.int32(0))


@lru_cache(maxsize=4)
def _array(collection: str, tomogram: str, product: str, sha256: str) -> LevelArray:
    tomo = open_collection(collection)[tomogram]
    if tomo.digest(product) != sha256:
        raise VerificationError(f"{product} of {tomogram} has changed meanwhile: run it again")
    return tomo.array(product)
