"""Bricks on a device: each is there when its turn comes, whatever the queues do, and some stay."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from host_gpu import HostGpu
from otzi.box import Box, tile
from otzi_viewers.render.gpu_bricks import Bricks, Whole

if TYPE_CHECKING:
    from numpy.typing import NDArray

SHAPE = (37, 20, 50)
DATA = np.random.default_rng(0).integers(0, 65536, (*SHAPE, 8)).astype(np.uint16)
SIDE = 16
BRICKS = list(tile(SHAPE, (SIDE, SIDE, SIDE)))


def new_bricks(gpu: HostGpu, n_slots: int = 3) -> Bricks:
    return Bricks(gpu, SHAPE, DATA.dtype, 2, SIDE, n_slots, lambda box: DATA[box.slices])


def expected(own: Box) -> NDArray[np.uint16]:
    """Give a brick and a voxel around it; edges go on."""
    padded = np.pad(DATA, [(1, 1)] * 3 + [(0, 0)], mode="edge")
    z, y, x = (slice(a, b + 2) for a, b in zip(own.start, own.stop, strict=True))
    return padded[z, y, x]


def seen(gpu: HostGpu, bricks: Bricks, order: list[Box]) -> list[tuple[Box, int]]:
    """Look at each brick as a kernel does, in turn; give what was yielded."""
    found: list[tuple[Box, int]] = []
    contents: list[tuple[Box, NDArray[np.uint16]]] = []
    for slot in bricks.in_turn(order, lambda _: True):
        own, held, textures = slot.own, slot.held, slot.textures

        def look(own=own, held=held, textures=textures) -> None:
            there = np.concatenate([texture.values for texture in textures], axis=-1)
            # From one voxel before the brick, or from its own first where the volume begins.
            first = [int(a == b) for a, b in zip(own.start, held.start, strict=True)]
            whole = np.pad(there, [(n, 0) for n in first] + [(0, 0)], mode="edge")
            z, y, x = (n + 2 for n in own.shape)
            contents.append((own, whole[:z, :y, :x].copy()))

        slot.used = gpu.computing.add(look, slot.filled)
        found.append((own, id(slot)))
    gpu.computing.add(lambda: None).wait()
    for own, content in contents:
        np.testing.assert_array_equal(content, expected(own))
    return found


@pytest.mark.parametrize("copies", [False, True])
@pytest.mark.parametrize("computes", [False, True])
@pytest.mark.parametrize("n_slots", [3, 5, len(BRICKS)])
def test_each_brick_is_there_in_its_turn(copies: bool, computes: bool, n_slots: int) -> None:
    gpu = HostGpu(None, copies_at_once=copies, computes_at_once=computes)
    bricks = new_bricks(gpu, n_slots)
    for order in (BRICKS, BRICKS[::-1], BRICKS):
        found = seen(gpu, bricks, order)
        assert [own for own, _ in found] == order
        # The next is copied while one is marched through: never into the same place.
        assert all(a != b for (_, a), (_, b) in pairwise(found))


@given(st.permutations(BRICKS), st.integers(3, 8))
def test_any_order_will_do(order: list[Box], n_slots: int) -> None:
    gpu = HostGpu(None, copies_at_once=False, computes_at_once=False)
    bricks = new_bricks(gpu, n_slots)
    assert [own for own, _ in seen(gpu, bricks, order)] == order
    assert [own for own, _ in seen(gpu, bricks, order[::2])] == order[::2]


def test_what_is_there_is_not_read_again() -> None:
    gpu = HostGpu(None)
    bricks = new_bricks(gpu, len(BRICKS))
    seen(gpu, bricks, BRICKS)
    assert bricks.n_read == len(BRICKS)
    seen(gpu, bricks, BRICKS[::-1])
    assert bricks.n_read == len(BRICKS)
    few = new_bricks(gpu, 8)
    seen(gpu, few, BRICKS)
    seen(gpu, few, BRICKS)
    # At least all but two of the slots keep theirs: one is marched through, one is filled.
    assert few.n_read <= 2 * len(BRICKS) - (8 - 2)


def test_those_that_are_closed_are_left_out() -> None:
    gpu = HostGpu(None)
    bricks = new_bricks(gpu)
    closed = BRICKS[3:9]
    found = [slot.own for slot in bricks.in_turn(BRICKS, lambda own: own not in closed)]
    assert found == [own for own in BRICKS if own not in closed]
    assert bricks.n_read == len(found)
    assert not list(bricks.in_turn([], lambda _: True))
    assert not list(new_bricks(gpu).in_turn(BRICKS, lambda _: False))


def test_an_error_of_the_reader_is_told() -> None:
    def read(box: Box) -> NDArray[np.uint16]:
        raise OSError("the disk is gone")

    bricks = Bricks(HostGpu(None), SHAPE, DATA.dtype, 2, SIDE, 3, read)
    with pytest.raises(OSError, match="the disk is gone"):
        list(bricks.in_turn(BRICKS, lambda _: True))


def test_a_volume_in_one_piece_is_one_brick() -> None:
    gpu = HostGpu(None, copies_at_once=False)
    whole = Whole(gpu, DATA)
    (slot,) = whole.in_turn([Box.whole(SHAPE)], lambda _: True)
    there = np.concatenate([texture.values for texture in slot.textures], axis=-1)
    np.testing.assert_array_equal(there, DATA)
    assert (slot.own, slot.held) == (Box.whole(SHAPE), Box.whole(SHAPE))
