"""Normalisation: one linear map for a whole volume, in either of two ways."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from otzi.errors import ConfigurationError
from otzi.normalise import MIN_MAX, ROBUST, Normalisation


def statistics(values: np.ndarray) -> dict[str, Any]:
    low, high = np.percentile(values, (0.1, 99.9))
    return {
        "minimum": values.min(),
        "maximum": values.max(),
        "mean": values.mean(),
        "standard_deviation": values.std(),
        "percentiles": {"0.1": low, "99.9": high},
    }


@pytest.fixture
def volume() -> np.ndarray:
    volume = np.random.default_rng(0).normal(300, 40, (8, 9, 10))
    volume[0, 0, 0] = 10_000  # gold
    return volume


def test_min_max_is_from_0_to_1(volume: np.ndarray) -> None:
    seen = Normalisation.from_statistics(statistics(volume), MIN_MAX)(volume)
    expected = (volume - volume.min()) / (volume.max() - volume.min())
    np.testing.assert_allclose(seen, expected, atol=1e-6)
    assert (seen.min(), seen.max()) == (0, 1)


def test_robust_has_zero_mean_and_unit_deviation(volume: np.ndarray) -> None:
    described = statistics(volume)
    seen = Normalisation.from_statistics(described, ROBUST)(volume)
    low, high = described["percentiles"].values()
    expected = (np.clip(volume, low, high) - volume.mean()) / volume.std()
    np.testing.assert_allclose(seen, expected, atol=1e-5)
    assert Normalisation.from_statistics(described) == Normalisation.from_array(volume)


@pytest.mark.parametrize("way", [ROBUST, MIN_MAX])
def test_what_is_constant_or_not_finite_becomes_0(way: str) -> None:
    described = statistics(np.full((2, 2, 2), 7.0))
    normalise = Normalisation.from_statistics(described, way)
    assert not normalise(np.array([7, np.nan, np.inf, -np.inf])).any()


def test_another_way_is_not_known() -> None:
    with pytest.raises(ConfigurationError, match="'per tile': choose 'whole volume"):
        Normalisation.from_statistics(statistics(np.arange(9.0)), "per tile")
