"""Ramps: the threshold is the fixed point that the definition names."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otzi.ramps import SliceThresholds, isodata, ramp, slice_histograms
from references import isodata_of_values

codes = st.lists(st.integers(0, 255), min_size=2, max_size=60)


@given(codes)
def test_isodata_of_a_histogram_is_that_of_the_values(values: list[int]) -> None:
    expected = isodata_of_values(np.array(values) / 255)
    found = isodata(np.bincount(values, minlength=256))
    np.testing.assert_allclose(found, expected, atol=1e-9)


@given(codes)
def test_isodata_stands_still_between_two_means(values: list[int]) -> None:
    threshold = isodata(np.bincount(values, minlength=256))
    scaled = np.array(values) / 255
    if len(set(values)) == 1:
        assert np.isnan(threshold)
        return
    low, high = scaled[scaled <= threshold], scaled[scaled > threshold]
    assert threshold == pytest.approx((low.mean() + high.mean()) / 2, abs=1e-9)


def test_two_modes_are_parted_in_the_middle() -> None:
    values = np.r_[np.full(900, 26), np.full(100, 230)]
    assert isodata(np.bincount(values, minlength=256)) == pytest.approx(128 / 255)


@given(st.integers(1, 4), st.integers(2, 9))
def test_histograms_count_each_slice(depth: int, bins: int) -> None:
    volume = np.random.default_rng(depth).integers(0, bins, (depth, 5, 6))
    counts = slice_histograms(volume, bins)
    for z in range(depth):
        np.testing.assert_array_equal(counts[z], np.bincount(volume[z].ravel(), minlength=bins))


def test_slices_of_one_value_do_not_pull_the_mean_down() -> None:
    counts = np.zeros((4, 256), np.int64)
    counts[0, 0] = counts[3, 255] = 10
    counts[1, [0, 255]] = 5
    counts[2, [51, 255]] = 5
    thresholds = SliceThresholds.from_histograms(counts)
    assert np.isnan(thresholds.curve[[0, 3]]).all()
    assert thresholds.n_used == 2
    assert thresholds.low == pytest.approx((0.5 + 0.6) / 2)
    assert SliceThresholds.from_histograms(counts[[0, 3]]).low == 0.0


def test_a_ramp_ends_at_nothing_and_all() -> None:
    values = np.array([0.0, 0.2, 0.6, 1.0])
    np.testing.assert_allclose(ramp(values, 0.2), [0, 0, 0.5, 1], atol=1e-6)
    assert np.isfinite(ramp(values, 1.0)).all()
