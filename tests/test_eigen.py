"""Eigenvalues: the closed form is LAPACK's within the tolerance of the features."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otzi.pseudo.eigen import eigenvalues

TOLERANCE = 1e-3

magnitudes = st.floats(1e-18, 1e18)
entries = st.lists(st.floats(-1, 1, width=32), min_size=6, max_size=6)
directions = st.lists(st.floats(-1, 1), min_size=3, max_size=3)


def closed_form(tensor: np.ndarray) -> np.ndarray:
    zz, zy, zx, yy, yx, xx = np.float32(tensor[np.triu_indices(3)])
    return np.array(eigenvalues(zz, zy, zx, yy, yx, xx))


def largest_first(tensor: np.ndarray) -> np.ndarray:
    return np.linalg.eigvalsh(tensor)[::-1]


def symmetric(six: list[float]) -> np.ndarray:
    tensor = np.zeros((3, 3))
    tensor[np.triu_indices(3)] = six
    return np.triu(tensor) + np.triu(tensor, 1).T


@given(entries, magnitudes)
@settings(deadline=None)  # the first call compiles
def test_of_any_symmetric_tensor(six: list[float], magnitude: float) -> None:
    tensor = symmetric(six) * magnitude
    expected = largest_first(tensor)
    bound = TOLERANCE * max(abs(expected).max(), 1e-30)
    np.testing.assert_allclose(closed_form(tensor), expected, atol=bound, rtol=0)


@given(directions, st.floats(-1, 1), st.floats(-1, 1))
def test_where_two_of_them_meet(normal: list[float], along: float, across: float) -> None:
    n = np.add(normal, [2, 0, 0])
    n /= np.linalg.norm(n)
    tensor = across * np.eye(3) + (along - across) * np.outer(n, n)
    expected = largest_first(tensor)
    bound = TOLERANCE * abs(expected).max() + 1e-30
    np.testing.assert_allclose(closed_form(tensor), expected, atol=bound, rtol=0)


@given(entries)
def test_they_descend_and_sum_to_the_trace(six: list[float]) -> None:
    tensor = symmetric(six)
    first, middle, last = closed_form(tensor)
    assert first >= middle >= last
    assert first + middle + last == pytest.approx(np.trace(tensor), abs=1e-5)


@pytest.mark.parametrize("value", [0.0, 1.0, -2.5, 1e-20])
def test_all_the_same(value: float) -> None:
    np.testing.assert_allclose(closed_form(value * np.eye(3)), [value] * 3, rtol=1e-6)


def test_what_is_no_number_stays_so() -> None:
    for hole in range(6):
        six = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
        six[hole] = np.nan
        assert np.isnan(closed_form(symmetric(six))).all()
