"""Objects block by block are those of the whole volume, however it is cut."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from otzi.box import tile
from otzi.errors import MemoryBudgetError
from otzi_pipelines.objects import block as module
from otzi_pipelines.objects.block import ObjectTask, block_numbers, block_parts
from otzi_pipelines.objects.join import Joined, Joiner
from otzi_pipelines.objects.selection import Selection

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otzi_pipelines.objects.block import Connectivity

RANKS = {6: 1, 18: 2, 26: 3}
HARD = Selection("labels/hard", ("a", "b"), (1, 2), None)


def whole(
    kinds: np.ndarray, connectivity: int, min_voxels: int, classes: Sequence[int] = (1, 2)
) -> np.ndarray:
    """Give the object of every voxel: the whole volume at once, in the order of first voxels."""
    structure = ndimage.generate_binary_structure(3, RANKS[connectivity])
    pieces = []
    for kind in classes:
        labels, n = ndimage.label(kinds == kind, structure)
        pieces += [labels == i for i in range(1, n + 1)]
    pieces = [piece for piece in pieces if piece.sum() >= min_voxels]
    numbers = np.zeros(kinds.shape, np.uint32)
    for number, piece in enumerate(sorted(pieces, key=lambda p: p.ravel().argmax()), 1):
        numbers[piece] = number
    return numbers


def in_blocks(
    kinds: np.ndarray,
    block: tuple[int, int, int],
    connectivity: Connectivity,
    min_voxels: int,
    order: Any,
) -> tuple[Joined, np.ndarray]:
    task = ObjectTask("", "", HARD, "", connectivity, min_voxels)
    boxes = list(tile(kinds.shape, block))  # type: ignore[arg-type]
    joiner = Joiner()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_array", lambda *_: kinds)
        for i in order(len(boxes)):
            joiner.add(boxes[i], block_parts(task, boxes[i]))
        joined = joiner.joined(min_voxels)
        numbers = np.zeros(kinds.shape, np.uint32)
        for box in boxes:
            numbers[box.slices] = block_numbers(task, (box, joined.numbers(box)))
    assert not joiner._faces
    return joined, numbers


@given(
    st.tuples(*[st.integers(1, 9)] * 3),
    st.tuples(*[st.integers(1, 6)] * 3),
    st.sampled_from([6, 18, 26]),
    st.integers(1, 4),
    st.integers(0, 2**32),
)
def test_cut_anyhow_the_objects_are_those_of_the_whole_volume(
    shape: tuple[int, int, int],
    block: tuple[int, int, int],
    connectivity: Connectivity,
    min_voxels: int,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    kinds = rng.choice(3, shape, p=(0.6, 0.25, 0.15)).astype(np.uint8)
    joined, numbers = in_blocks(kinds, block, connectivity, min_voxels, rng.permutation)
    np.testing.assert_array_equal(numbers, whole(kinds, connectivity, min_voxels))
    once, _ = in_blocks(kinds, shape, connectivity, min_voxels, range)
    for name in ("sums", "least", "most"):
        np.testing.assert_array_equal(getattr(joined.objects, name), getattr(once.objects, name))


def test_a_spiral_through_every_block_is_one_object() -> None:
    kinds = np.zeros((9, 9, 9), np.uint8)
    z, y, x = np.indices(kinds.shape)
    kinds[(x % 2 == 0) & (z == 0)] = 1
    kinds[(z == 0) & (x % 4 == 1) & (y == 0)] = 1
    kinds[(z == 0) & (x % 4 == 3) & (y == 8)] = 1
    joined, numbers = in_blocks(kinds, (2, 3, 4), 6, 1, range)
    assert joined.objects.voxels.tolist() == [np.count_nonzero(kinds)]
    np.testing.assert_array_equal(numbers, kinds)


def test_small_pieces_inside_a_block_are_not_kept() -> None:
    kinds = np.zeros((6, 6, 6), np.uint8)
    kinds[1, 1, 1] = kinds[4, 4, 4] = 1  # alone in their blocks
    kinds[2:4, 5, 0] = 2  # in two
    task = ObjectTask("", "", HARD, "", 26, 2)
    joiner = Joiner()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_array", lambda *_: kinds)
        blocks = [(box, block_parts(task, box)) for box in tile((6, 6, 6), (3, 6, 6))]
    assert [len(block.parts) for _, block in blocks] == [1, 1]
    for box, block in blocks:
        joiner.add(box, block)
    assert joiner.joined(2).objects.voxels.tolist() == [2]


def test_more_pieces_than_the_memory_holds_are_an_error_with_its_remedies() -> None:
    kinds = np.zeros((8, 8, 8), np.uint8)
    kinds[::2, ::2, ::2] = 1
    task = ObjectTask("", "", HARD, "", 26, 1)
    joiner = Joiner(most_parts=63)
    (box,) = tile((8, 8, 8), (8, 8, 8))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_array", lambda *_: kinds)
        block = block_parts(task, box)
    with pytest.raises(MemoryBudgetError, match=r"more than 63 pieces .*--min-volume-nm3"):
        joiner.add(box, block)


def test_an_empty_volume_has_no_objects() -> None:
    joined, numbers = in_blocks(np.zeros((4, 5, 6), np.uint8), (2, 2, 2), 26, 1, range)
    assert len(joined.objects) == 0
    assert not numbers.any()
