"""The low-passed density: blocks are the whole, the window is that of the percentiles."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import ndimage

from otzi.box import Box, tile
from otzi_pipelines.low_pass import PERCENTILES, LowPass, mean_of_27

if TYPE_CHECKING:
    from collections.abc import Callable

    from otzi.tomogram import Tomogram


@settings(deadline=None)  # it is compiled on its first call
@given(
    arrays.arrays(
        np.float32,
        arrays.array_shapes(min_dims=3, max_dims=3, max_side=6),
        elements=st.floats(-1e3, 1e3, width=32),
    )
)
def test_the_mean_is_over_27_voxels(volume: np.ndarray) -> None:
    expected = ndimage.uniform_filter(volume.astype(float), 3, mode="nearest")
    found = mean_of_27(np.pad(volume, 1, mode="edge"))
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_blocks_are_the_whole(add_tomogram: Callable[..., Tomogram]) -> None:
    volume = np.random.default_rng(3).normal(40, 9, (30, 70, 41)).astype(np.float32)
    density = LowPass(add_tomogram(volume))
    whole = density(Box.whole(density.shape))
    for box in tile(density.shape, (13, 32, 20)):
        np.testing.assert_array_equal(density(box), whole[box.slices])


def test_what_is_not_finite_is_grey(add_tomogram: Callable[..., Tomogram]) -> None:
    volume = np.full((5, 5, 5), 7, np.float32)
    density = LowPass(add_tomogram(volume))
    volume[2, 2, 2] = np.nan
    volume[0, 0, 0] = -np.inf
    density._array = volume
    assert (density(Box.whole(density.shape)) == 7).all()


def test_stored_values_are_scaled(add_tomogram: Callable[..., Tomogram]) -> None:
    density = LowPass(add_tomogram(np.full((5, 5, 5), 7, np.int8)))
    density._scale, density._offset = np.float32(2), np.float32(1)
    assert (density(Box.whole(density.shape)) == 15).all()


def test_the_window_is_that_of_the_percentiles(add_tomogram: Callable[..., Tomogram]) -> None:
    volume = np.random.default_rng(1).normal(-3, 500, (40, 130, 140)).astype(np.int16)
    tomo = add_tomogram(volume)
    smooth = ndimage.uniform_filter(volume.astype(float), 3, mode="nearest")
    expected = np.percentile(smooth, PERCENTILES)
    step = (np.percentile(volume, 99.9) - np.percentile(volume, 0.1)) / 65536
    np.testing.assert_allclose(LowPass(tomo).window(), expected, atol=2 * step)


def test_a_constant_volume_has_a_window_of_nothing(add_tomogram: Callable[..., Tomogram]) -> None:
    tomo = add_tomogram(np.full((4, 5, 6), 7, np.int8))
    assert LowPass(tomo).window() == (7.0, 7.0)
