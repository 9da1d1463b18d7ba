"""Kernels: exact for the polynomials of their order, radii as ilastik cuts them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otzi.pseudo.kernels import gaussian_kernel, kernel_radius
from otzi.pseudo.stencils import short_kernel
from references import sampled_gaussian

sigmas = st.floats(0.5, 12)
windows = st.floats(2, 4)


def whole(half: np.ndarray, order: int) -> np.ndarray:
    return np.concatenate([(-1) ** order * half[:0:-1], half])


@given(sigmas, windows, st.integers(0, 2))
def test_a_kernel_is_the_sampled_derivative(sigma: float, window: float, order: int) -> None:
    expected = sampled_gaussian(sigma, window, order)
    found = whole(gaussian_kernel(sigma, window, order), order)
    np.testing.assert_allclose(found, expected, atol=1e-12)


@given(sigmas, windows, st.integers(0, 2))
def test_a_kernel_derives_polynomials_exactly(sigma: float, window: float, order: int) -> None:
    kernel = whole(gaussian_kernel(sigma, window, order), order)
    radius = kernel_radius(sigma, window)
    assert len(kernel) == 2 * radius + 1
    x = np.arange(-radius, radius + 1)
    sums = [(kernel * power).sum() for power in (np.ones_like(x), x, x**2 / 2)]
    np.testing.assert_allclose(sums[: order + 1], np.eye(3)[order][: order + 1], atol=1e-9)


@pytest.mark.parametrize(
    ("sigma", "window", "radius"),
    [(0.3, 3.5, 1), (0.7, 3.5, 2), (1, 3.5, 4), (99**0.5, 3.5, 35), (0.7, 2, 1), (0.5, 2, 1)],
)
def test_the_radius_is_rounded_half_up(sigma: float, window: float, radius: int) -> None:
    assert kernel_radius(sigma, window) == radius


def test_a_short_kernel_has_no_weight_beyond_its_radius() -> None:
    assert short_kernel(0.198, 2, 0) == (1, 0, 0)
    assert short_kernel(0.5, 2, 1) == (0, 0.5, 0)
    assert short_kernel(1, 2, 2)[2] != 0
