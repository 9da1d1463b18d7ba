"""Ramps: the threshold is the fixed point that the definition names."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from otzi.ramps import SliceThresholds, fit_quadratic, isodata, quadratic, ramp
from references import isodata_of_values

codes = st.lists(st.integers(0, 255), min_size=2, max_size=60)


@given(codes)
@example([0, 76, 165, 165, 165, 171, 179, 219, 255, 255])  # whose mean is one of them
def test_isodata_of_a_histogram_is_that_of_the_values(values: list[int]) -> None:
    expected = isodata_of_values(np.array(values)) / 255
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


@given(codes)
def test_contrast_is_the_deviation_between_the_two_sides(values: list[int]) -> None:
    histogram = np.bincount(values, minlength=256)
    (threshold,), (contrast,) = vars(SliceThresholds.from_histograms(histogram[None])).values()
    scaled = np.array(values) / 255
    sides = scaled.copy()
    if len(set(values)) > 1:
        for side in (scaled <= isodata(histogram), scaled > isodata(histogram)):
            sides[side] = scaled[side].mean()
    assert np.isnan(threshold) == (len(set(values)) == 1)
    expected = sides.std() if len(set(values)) > 1 else 0
    assert contrast == pytest.approx(expected, abs=1e-6)


def test_two_modes_are_parted_in_the_middle() -> None:
    values = np.r_[np.full(900, 26), np.full(100, 230)]
    assert isodata(np.bincount(values, minlength=256)) == pytest.approx(128 / 255)


def test_counts_of_a_whole_slice_do_not_overflow() -> None:
    histogram = np.zeros(256, np.uint32)
    histogram[[0, 51, 255]] = 2**31, 2**31 - 2, 2**31
    doubled = histogram.astype(np.int64)
    assert isodata(histogram) == isodata(doubled)


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


coefficients = st.tuples(st.floats(0.3, 0.7), st.floats(-0.1, 0.1), st.floats(-0.15, 0.15))


@given(coefficients, st.integers(12, 80), st.integers(0, 9))
def test_slices_that_stand_out_do_not_bend_the_fit(
    expected: tuple[float, float, float], depth: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    curve = quadratic(expected, depth) + rng.normal(0, 0.003, depth)
    others = rng.choice(depth, depth // 6, replace=False)
    curve[others[::2]], curve[others[1::2]] = np.nan, 1.0
    np.testing.assert_allclose(fit_quadratic(curve), expected, atol=0.03)


@given(coefficients, st.integers(3, 40))
def test_a_quadratic_is_its_own_fit_either_way_up(
    expected: tuple[float, float, float], depth: int
) -> None:
    curve = quadratic(expected, depth)
    c0, c1, c2 = fit_quadratic(curve)
    np.testing.assert_allclose((c0, c1, c2), expected, atol=1e-6)
    np.testing.assert_allclose(fit_quadratic(curve[::-1]), (c0, -c1, c2), atol=1e-6)


def test_a_fit_to_next_to_nothing_is_flat() -> None:
    assert fit_quadratic(np.full(5, np.nan)) == (0, 0, 0)
    assert fit_quadratic(np.array([np.nan, 0.25, 0.75])) == (0.5, 0, 0)
    np.testing.assert_array_equal(quadratic((0.4, 0, 0), 1), [0.4])
    np.testing.assert_array_equal(quadratic((0.5, 2, 0), 3), [0, 0.5, 1])
