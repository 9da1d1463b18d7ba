"""Presets: what is stored is what was measured, within the error that is stated."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otzi.errors import SourceError, UsageError
from otzi.store.moments import Moments
from otzi.store.presets import checked_preset, quantisation_for, stored_dtype

RNG = np.random.default_rng(3)


def _moments(values: np.ndarray) -> Moments:
    return Moments.none(values.dtype, float(np.nanmedian(values))).add(values)


def test_exact_keeps_the_type_and_the_values() -> None:
    values = RNG.normal(0, 9, (4, 5, 6)).astype(np.int16)
    assert quantisation_for("exact", _moments(values)) is None
    assert stored_dtype("exact", np.dtype(">i2")) == np.dtype(np.int16)


@settings(deadline=None, max_examples=30)
@given(
    mean=st.floats(-1e4, 1e4),
    deviation=st.floats(1e-3, 1e4),
    seed=st.integers(0, 5),
)
def test_train_is_finer_than_a_hundredth_of_the_deviation(
    mean: float, deviation: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    values = rng.normal(mean, deviation, (8, 16, 16)).astype(np.float32)
    quantisation = quantisation_for("train", _moments(values))
    assert quantisation is not None
    stored = quantisation.encode(values)
    assert stored.dtype == np.float16
    assert np.isfinite(stored).all()
    error = quantisation.decode(stored) - values.astype(np.float64)
    assert np.sqrt(np.mean(error**2)) < 0.01 * values.std(dtype=np.float64) + 1e-3 * deviation


def test_train_stores_small_values_as_they_are() -> None:
    values = RNG.normal(0, 1, (8, 8, 8)).astype(np.float32)
    quantisation = quantisation_for("train", _moments(values))
    assert quantisation is not None
    assert quantisation.is_identity
    np.testing.assert_array_equal(quantisation.encode(values), values.astype(np.float16))


def test_train_standardises_what_float16_cannot_hold() -> None:
    values = RNG.normal(1e6, 3e5, (8, 8, 8)).astype(np.float32)
    quantisation = quantisation_for("train", _moments(values))
    assert quantisation is not None
    assert not quantisation.is_identity
    assert np.abs(quantisation.encode(values)).max() < 10


def test_compact_adds_a_hundredth_of_the_deviation() -> None:
    values = RNG.normal(5, 2, (32, 32, 32)).astype(np.float32)
    moments = _moments(values)
    quantisation = quantisation_for("compact", moments)
    assert quantisation is not None
    stored = quantisation.encode(values)
    assert (stored.dtype, int(stored.min()) >= -127) == (np.int8, True)
    error = quantisation.decode(stored) - values
    assert error.std() / values.std() < 0.012
    assert quantisation.clipped_fraction(moments) < 1e-3


@pytest.mark.parametrize(
    ("values", "word"),
    [
        (np.array([1.0, np.nan, 2.0, 3.0], np.float32), "1 voxels are not finite"),
        (np.where(np.arange(4096) % 50 == 0, 1000, RNG.normal(0, 1, 4096)), "clip 2.00%"),
    ],
)
def test_compact_refuses_what_it_would_spoil(values: np.ndarray, word: str) -> None:
    with pytest.raises(SourceError, match=word) as refused:
        quantisation_for("compact", _moments(values.astype(np.float32)))
    assert "--preset exact" in str(refused.value)


def test_a_constant_volume_can_be_compact() -> None:
    values = np.full((4, 4, 4), 7, np.float32)
    quantisation = quantisation_for("compact", _moments(values))
    assert quantisation is not None
    np.testing.assert_array_equal(quantisation.decode(quantisation.encode(values)), values)


def test_there_are_three_presets() -> None:
    with pytest.raises(UsageError, match="exact, train, compact"):
        checked_preset("tiny")
