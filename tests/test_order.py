"""The order of bricks: for every ray of every eye, and as few as can be for all together."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otzi_viewers.render.order import brick_order

counts = st.integers(1, 5)


@st.composite
def scenes(draw):
    """Give which bricks are visible, and eyes as points in units of bricks."""
    shape = draw(st.tuples(counts, counts, counts))
    seed = draw(st.integers(0, 999))
    random = np.random.default_rng(seed)
    visible = random.random(shape) < draw(st.sampled_from((0.3, 0.8, 1.0)))
    eyes = random.uniform(-3, np.array(shape) + 3, (draw(st.integers(1, 4)), 3))
    return visible, eyes, random


def place_of(eye, shape):
    return tuple(
        -1 if at < 0 else n if at >= n else int(at) for at, n in zip(eye, shape, strict=True)
    )


@given(scenes())
def test_every_ray_meets_its_bricks_in_order_and_each_once(scene) -> None:
    visible, eyes, random = scene
    order = list(brick_order(visible, [place_of(eye, visible.shape) for eye in eyes]))
    for n, eye in enumerate(eyes):
        taken = [brick for brick, takers in order if n in takers]
        assert sorted(taken) == [tuple(map(int, at)) for at in np.argwhere(visible)]
        rank = {brick: place for place, brick in enumerate(taken)}
        for target in random.uniform(0, visible.shape, (20, 3)):
            along = eye + np.linspace(0, 3, 400)[:, None] * (target - eye)
            inside = along[((along >= 0) & (along < visible.shape)).all(axis=1)]
            met = [rank[at] for at in map(tuple, inside.astype(int)) if visible[at]]
            assert all(before <= after for before, after in pairwise(met))


@pytest.mark.parametrize("forward", [(1, 0, 0), (-1, 1, 0), (1, -1, 1), (0, 0, -1)])
def test_parallel_rays_meet_their_bricks_in_order(forward) -> None:
    visible = np.ones((3, 4, 5), bool)
    place = tuple(
        None if f == 0 else -1 if f > 0 else n for f, n in zip(forward, (3, 4, 5), strict=True)
    )
    taken = [brick for brick, _ in brick_order(visible, [place])]
    rank = {brick: n for n, brick in enumerate(taken)}
    for brick in taken:
        for axis, toward in enumerate(forward):
            before = tuple(b - toward * (a == axis) for a, b in enumerate(brick))
            if toward and before in rank:
                assert rank[before] < rank[brick]


@given(scenes())
def test_eyes_that_agree_share_every_brick(scene) -> None:
    visible, eyes, _ = scene
    same = [place_of(eyes[0], visible.shape)] * 3
    order = list(brick_order(visible, same))
    assert len(order) == visible.sum()
    assert all(takers == [0, 1, 2] for _, takers in order)


def test_eyes_on_either_side_of_a_face_share_all_but_what_lies_between() -> None:
    visible = np.ones((4, 6, 6), bool)
    order = list(brick_order(visible, [(-1, 2, 2), (-1, 3, 2)]))
    assert len(order) == 4 * 6 * 6 + 4 * 6


def test_nothing_visible_is_no_brick() -> None:
    assert list(brick_order(np.zeros((2, 3, 4), bool), [(-1, -1, -1)])) == []
