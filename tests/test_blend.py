"""Integer blending: any order gives the same bits, and a voxel's classes always sum to one."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otzi.errors import ModelError
from otzi.tiles.blend import PROBABILITY_STEPS, accumulate, finalise, quantise, quantise_box
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


def test_a_box_has_the_steps_of_the_whole() -> None:
    probabilities = softmax(4, 3, n=9)
    whole = quantise(probabilities)
    for start, shape in [((0, 0, 0), (9, 9, 9)), ((2, 3, 1), (4, 5, 7)), ((8, 0, 8), (1, 9, 1))]:
        z, y, x = (slice(a, a + n) for a, n in zip(start, shape, strict=True))
        box = quantise_box(probabilities, start, shape, n_classes=4)
        np.testing.assert_array_equal(box, whole[:, z, y, x])


def test_what_is_wrong_outside_of_a_box_is_not_looked_at() -> None:
    probabilities = softmax(3, 3)
    probabilities[:, 0] = np.nan
    quantise_box(probabilities, (1, 0, 0), (4, 5, 5), n_classes=3)
    with pytest.raises(ModelError, match="nan"):
        quantise_box(probabilities, (0, 0, 0), (1, 5, 5), n_classes=3)


def test_measures_are_part_of_no_sum() -> None:
    measure = np.random.default_rng(4).random((2, 5, 5, 5)).astype(np.float32)
    outputs = np.concatenate([softmax(3, 5), measure])
    steps = quantise_box(outputs, (0, 0, 0), (5, 5, 5), n_classes=3)
    np.testing.assert_array_equal(steps[:3], quantise(outputs[:3]))
    np.testing.assert_array_equal(steps[3:], np.rint(measure * np.float32(PROBABILITY_STEPS)))
    total = steps.astype(np.uint32) * np.uint32(UNITY)
    stored = finalise(total, "uint8", 3)
    np.testing.assert_array_equal(stored[:3], finalise(total[:3], "uint8"))
    np.testing.assert_allclose(stored[3:], measure * 255, atol=0.51)


@pytest.mark.parametrize("value", [np.nan, -0.1, 1.5])
def test_a_measure_beyond_0_to_1_is_refused(value: float) -> None:
    outputs = np.concatenate([softmax(3, 5), np.zeros((1, 5, 5, 5), np.float32)])
    outputs[3, 1, 2, 3] = value
    with pytest.raises(ModelError, match=f"gives {value:g}"):
        quantise_box(outputs, (0, 0, 0), (5, 5, 5), n_classes=3)


def test_steps_are_added_where_they_belong() -> None:
    rng = np.random.default_rng(6)
    steps = rng.integers(0, 2**14, (2, 3, 4, 5)).astype(np.uint16)
    weights = [rng.integers(0, 65, n).astype(np.uint32) for n in (3, 4, 5)]
    total = rng.integers(0, 99, (2, 6, 7, 8)).astype(np.uint32)
    expected, before = total.astype(np.int64), total[:, 2:5, 1:5, 3:8].astype(np.int64)
    expected[:, 2:5, 1:5, 3:8] += np.einsum("czyx,z,y,x->czyx", steps.astype(int), *weights)
    accumulate(total, steps, weights, (2, 1, 3))
    np.testing.assert_array_equal(total, expected)
    first = np.full((2, 3, 4, 5), 7, np.uint32)
    accumulate(first, steps, weights, is_first=True)
    np.testing.assert_array_equal(first, expected[:, 2:5, 1:5, 3:8] - before)
