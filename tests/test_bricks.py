"""Bricks: what they may hold, and how far the next is, against loops over every brick."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otzi_viewers.render.bricks import BRICK_VOXELS, brick_distances, brick_maxima
from otzi_viewers.render.transfer import Transfer

shapes = st.tuples(*[st.integers(1, 34)] * 3)


def transfer(*low: float) -> Transfer:
    n = len(low)
    return Transfer(
        np.array(low),
        np.ones(n),
        np.ones(n - 1),
        np.ones((n - 1, 3)),
        1 / 255,
        np.zeros((n - 1, 4)),
    )


@settings(deadline=None)
@given(shapes, st.integers(1, 3), st.integers(0, 99))
def test_maxima_are_those_of_the_brick_and_one_voxel_around(shape, n_channels, seed) -> None:
    data = np.random.default_rng(seed).integers(0, 256, (*shape, n_channels), np.uint8)
    maxima = brick_maxima(data)
    assert maxima.shape == (*(-(-n // BRICK_VOXELS) for n in shape), n_channels)
    for brick in np.ndindex(maxima.shape[:3]):
        around = tuple(
            slice(max(b * BRICK_VOXELS - 1, 0), (b + 1) * BRICK_VOXELS + 1) for b in brick
        )
        np.testing.assert_array_equal(maxima[brick], data[around].max(axis=(0, 1, 2)))


@given(st.tuples(*[st.integers(1, 5)] * 3), st.integers(0, 99))
def test_distances_are_those_to_the_nearest_brick_with_a_class_and_density(shape, seed) -> None:
    codes = np.random.default_rng(seed).choice([0, 51, 255], (*shape, 3), p=(0.5, 0.3, 0.2))
    distances = brick_distances(codes.astype(np.uint8), transfer(0.5, 0.3, 0.1))
    occupied = ((codes[..., 0] > 127) | (codes[..., 1] > 76)) & (codes[..., 2] > 25)
    bricks = np.argwhere(occupied)
    for brick in product(*map(range, shape)):
        expected = np.abs(bricks - brick).max(axis=1).min() if len(bricks) else 255
        assert distances[brick] == expected


def test_a_row_of_bricks_counts_up_to_255() -> None:
    maxima = np.zeros((1, 1, 400, 2), np.uint8)
    assert (brick_distances(maxima, transfer(0.0, 0.0)) == 255).all()
    maxima[..., 0, :] = 1
    np.testing.assert_array_equal(
        brick_distances(maxima, transfer(0.0, 0.0)).ravel(), np.minimum(np.arange(400), 255)
    )


@pytest.mark.parametrize(
    ("code", "low_code", "distance"), [(50, 51, 255), (52, 51, 0), (0, 0, 255)]
)
def test_a_brick_counts_from_its_first_value_above_the_limit(code, low_code, distance) -> None:
    maxima = np.full((1, 1, 1, 2), (code, 255), np.uint8)
    assert brick_distances(maxima, transfer(low_code / 255, 0.0))[0, 0, 0] == distance
