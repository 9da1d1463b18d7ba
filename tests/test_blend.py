"""Integer blending: any order gives the same bits, and a voxel's classes always sum to one."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otzi.errors import ModelError
from otzi.tiles.blend import PROBABILITY_STEPS, accumulate, finalise, quantise
from otzi.tiles.plan import UNITY
from references import blended_uint8, steps_of_probabilities


def softmax(n_classes: int, seed: int, sharpness: float = 3.0, n: int = 5) -> np.ndarray:
    logits = np.random.default_rng(seed).normal(0, sharpness, (n_classes, n, n, n))
    powers = np.exp(logits - logits.max(0)).astype(np.float32)
    return powers / powers.sum(0)


n_classes = st.integers(2, 9)
seeds = st.integers(0, 2**32)
sharpness = st.floats(0.01, 60)


@given(n_classes, seeds, sharpness)
@settings(deadline=None)
def test_steps_sum_to_one_and_are_near(n: int, seed: int, sharp: float) -> None:
    probabilities = softmax(n, seed, sharp)
    steps = quantise(probabilities)
    assert (steps.sum(0, dtype=int) == PROBABILITY_STEPS).all()
    assert np.abs(steps / PROBABILITY_STEPS - probabilities).max() < 1.01 / PROBABILITY_STEPS
    np.testing.assert_array_equal(steps, steps_of_probabilities(probabilities, PROBABILITY_STEPS))


@given(n_classes, seeds, sharpness)
@settings(deadline=None)
def test_stored_classes_sum_to_255_and_are_within_one_step(n: int, seed: int, sharp: float) -> None:
    total = quantise(softmax(n, seed, sharp)).astype(np.uint32) * np.uint32(UNITY)
    stored = finalise(total, "uint8")
    assert (stored.sum(0, dtype=int) == 255).all()
    exact = total / (PROBABILITY_STEPS * UNITY)
    assert np.abs(stored / 255 - exact).max() < 1 / 255
    np.testing.assert_array_equal(stored, blended_uint8(total.astype(np.int64)))


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-7), ("float16", 5e-4)])
def test_floats_are_the_accumulated_fraction(dtype: str, tolerance: float) -> None:
    total = quantise(softmax(4, 1)).astype(np.uint32) * np.uint32(UNITY)
    probabilities = finalise(total, dtype)
    assert probabilities.dtype == dtype
    np.testing.assert_allclose(probabilities, total / (PROBABILITY_STEPS * UNITY), atol=tolerance)
    np.testing.assert_allclose(probabilities.sum(0, dtype=float), 1, atol=4 * tolerance)


def test_certainty_survives_every_step() -> None:
    certain = np.zeros((3, 2, 2, 2), np.float32)
    certain[1] = 1
    total = quantise(certain).astype(np.uint32) * np.uint32(UNITY)
    assert total.max() == PROBABILITY_STEPS * UNITY < 2**32
    np.testing.assert_array_equal(finalise(total, "uint8"), certain * 255)
    np.testing.assert_array_equal(finalise(total, "float32"), certain)


def test_any_order_of_tiles_gives_the_same_sum() -> None:
    rng = np.random.default_rng(2)
    parts = [quantise(softmax(3, seed)) for seed in range(4)]
    weights = [[rng.integers(0, 33, 5, dtype=np.uint32) for _ in range(3)] for _ in parts]
    exact = sum(
        np.einsum("czyx,z,y,x->czyx", part.astype(int), *map(np.int64, w))
        for part, w in zip(parts, weights, strict=True)
    )
    for order in itertools.permutations(range(4)):
        total = np.zeros((3, 5, 5, 5), np.uint32)
        for i in order:
            accumulate(total, parts[i], weights[i])
        np.testing.assert_array_equal(total, exact)


@pytest.mark.parametrize(
    ("value", "reason"), [(np.nan, "nan"), (-0.25, "-0.25"), (np.inf, "inf"), (0.9, "sum of 1")]
)
def test_what_is_no_probability_is_refused(value: float, reason: str) -> None:
    probabilities = softmax(3, 0)
    probabilities[1, 2, 2, 2] = value + probabilities[1, 2, 2, 2] * (value == 0.9)
    with pytest.raises(ModelError, match=reason):
        quantise(probabilities)
