"""Agreement with a truth: as scikit-learn has it, and the same however the volume is cut."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, log_loss

from otzi.errors import UsageError
from otzi.metrics import N_BINS, Agreement
from references import calibration_error_of_class


def example(n_classes: int, seed: int, n: int = 300) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.full(n_classes, 0.5), n).T
    truth = rng.integers(0, n_classes, n)
    return probabilities, truth


cases = given(st.integers(2, 6), st.integers(0, 2**32))


@cases
@settings(deadline=None, max_examples=30)
def test_hard_truth_as_scikit_learn_has_it(n: int, seed: int) -> None:
    probabilities, truth = example(n, seed)
    agreement = Agreement.measure(probabilities, truth)
    predicted = probabilities.argmax(0)
    there = sorted({*truth, *predicted})
    expected = f1_score(truth, predicted, labels=there, average=None)
    np.testing.assert_allclose(agreement.dice[there], expected)
    assert agreement.macro_dice == pytest.approx(expected.mean())
    assert agreement.micro_f1 == pytest.approx(accuracy_score(truth, predicted))
    clipped = np.maximum(probabilities, 1e-7).T
    expected_loss = log_loss(truth, clipped / clipped.sum(1, keepdims=True), labels=range(n))
    assert agreement.cross_entropy == pytest.approx(expected_loss, rel=1e-5)


@cases
@settings(deadline=None, max_examples=30)
def test_however_it_is_cut(n: int, seed: int) -> None:
    probabilities, truth = example(n, seed)
    whole = Agreement.measure(probabilities, truth)
    total = Agreement.none(n)
    for part in np.array_split(np.random.default_rng(seed).permutation(len(truth)), 4):
        total = Agreement.measure(probabilities[:, part], truth[part]) + total
    np.testing.assert_array_equal(total.confusion, whole.confusion)
    np.testing.assert_allclose(total.soft_dice, whole.soft_dice)
    assert total.cross_entropy == pytest.approx(whole.cross_entropy)
    assert total.calibration_error == pytest.approx(whole.calibration_error)
    np.testing.assert_allclose(total.class_calibration, whole.class_calibration)
    assert total.n_voxels == len(truth)


@cases
@settings(deadline=None, max_examples=30)
def test_certain_soft_labels_are_hard_labels(n: int, seed: int) -> None:
    probabilities, truth = example(n, seed)
    hard = Agreement.measure(probabilities, truth)
    soft = Agreement.measure(probabilities, np.eye(n)[truth].T)
    np.testing.assert_array_equal(hard.confusion, soft.confusion)
    np.testing.assert_array_equal(hard.calibration, soft.calibration)
    assert hard.cross_entropy == pytest.approx(soft.cross_entropy, rel=1e-12)
    np.testing.assert_allclose(hard.soft_dice, soft.soft_dice)


def test_calibration_by_its_definition() -> None:
    probabilities, truth = example(3, 5, n=1000)
    confidence, predicted = probabilities.max(0), probabilities.argmax(0)
    expected = 0.0
    for low in np.arange(15) / 15:
        inside = (confidence > low) & (confidence <= low + 1 / 15)
        if inside.any():
            accuracy = (predicted == truth)[inside].mean()
            expected += inside.mean() * abs(accuracy - confidence[inside].mean())
    assert Agreement.measure(probabilities, truth).calibration_error == pytest.approx(expected)


@cases
@settings(deadline=None, max_examples=20)
def test_calibration_of_a_class_by_its_definition(n: int, seed: int) -> None:
    probabilities, hard = example(n, seed)
    probabilities[:, :5] = np.eye(n)[:, [0, 1, 0, 1, 0]]
    soft, _ = example(n, seed + 1)
    for truth, shares in ((hard, np.eye(n)[hard].T), (soft, soft)):
        expected = [
            calibration_error_of_class(p, t, N_BINS)
            for p, t in zip(probabilities, shares, strict=True)
        ]
        found = Agreement.measure(probabilities, truth).class_calibration_error
        np.testing.assert_allclose(found, expected, atol=1e-12)


@cases
@settings(deadline=None, max_examples=20)
def test_the_foreground_is_one_class(n: int, seed: int) -> None:
    probabilities, truth = example(n, seed)
    agreement = Agreement.measure(probabilities, truth)
    expected = f1_score(truth > 0, probabilities.argmax(0) > 0)
    assert agreement.foreground_f1 == pytest.approx(expected)
    if n == 2:
        assert agreement.foreground_f1 == agreement.dice[1]


def test_stored_as_uint8_they_are_steps_of_255() -> None:
    rng = np.random.default_rng(3)
    stored = rng.multinomial(255, (0.9, 0.098, 0.002), size=400).T.astype(np.uint8)
    truth, soft = rng.integers(0, 3, 400), stored[:, ::-1]
    values = stored / 255
    for of_uint8, of_floats in ((truth, truth), (soft, soft / 255)):
        found = Agreement.measure(stored, of_uint8)
        expected = Agreement.measure(values, of_floats)
        np.testing.assert_array_equal(found.confusion, expected.confusion)
        np.testing.assert_allclose(found.class_calibration, expected.class_calibration)
        np.testing.assert_allclose(found.soft_dice, expected.soft_dice)
    assert (values.min(axis=0) == 0).any()
    at_least_half_a_step = np.maximum(values, 1 / 510)[truth, np.arange(400)]
    surprise = -np.log(at_least_half_a_step).mean()
    assert Agreement.measure(stored, truth).cross_entropy == pytest.approx(surprise)


def test_a_probability_on_the_edge_of_a_bin_is_below_it() -> None:
    codes = np.arange(256)
    stored = np.stack([codes, 255 - codes]).astype(np.uint8)
    expected = np.bincount(np.maximum(-(-codes * N_BINS // 255) - 1, 0))
    for probabilities in (stored, stored / 255, (stored / 255).astype(np.float32)):
        found = Agreement.measure(probabilities, codes % 2).class_calibration[0, :, 0]
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, np.bool_, np.uint8])
def test_voxels_of_which_nothing_is_known_are_left_out(dtype: type) -> None:
    scale = 255 if dtype == np.uint8 else 1
    truth = (np.eye(3)[:, [0, 1, 2, 1, 0, 2]] * scale).astype(dtype)
    probabilities = (np.eye(3)[:, [0, 1, 1, 1, 2, 2]] * scale).astype(dtype)
    known = np.array([True, False, True, True, False, True])
    expected = Agreement.measure(probabilities[:, known], truth[:, known])
    truth[:, 1] = probabilities[:, 4] = 0
    found = Agreement.measure(probabilities, truth)
    assert found.n_voxels == 4
    for name in ("confusion", "shared", "claimed", "calibration", "class_calibration"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    assert found.surprise == expected.surprise


def test_a_forecast_that_keeps_its_word_is_calibrated() -> None:
    rng = np.random.default_rng(0)
    probability = rng.uniform(0.5, 1, 200_000)
    truth = (rng.random(200_000) > probability).astype(int)
    honest = Agreement.measure(np.stack([probability, 1 - probability]), truth)
    assert honest.calibration_error < 0.01
    boasting = np.stack([np.full_like(probability, 0.999), np.full_like(probability, 0.001)])
    assert Agreement.measure(boasting, truth).calibration_error > 0.2


def test_soft_dice_by_its_definition() -> None:
    probabilities, _ = example(3, 1)
    truth, _ = example(3, 2)
    expected = 2 * (probabilities * truth).sum(1) / (probabilities.sum(1) + truth.sum(1))
    np.testing.assert_allclose(Agreement.measure(probabilities, truth).soft_dice, expected)


def test_perfection() -> None:
    truth = np.array([[0, 1], [2, 1]])
    perfect = Agreement.measure(np.moveaxis(np.eye(3, dtype=np.float32)[truth], -1, 0), truth)
    assert perfect.macro_dice == perfect.micro_f1 == 1
    assert perfect.cross_entropy == perfect.calibration_error == 0


def test_a_class_that_is_nowhere_does_not_count() -> None:
    agreement = Agreement.measure(np.array([[0.9, 0.2], [0.1, 0.8], [0, 0]]), np.array([0, 1]))
    summary = agreement.summary(["a", "b", "c"])
    assert summary["dice"] == {"a": 1.0, "b": 1.0, "c": None}
    assert summary["macro_dice"] == 1.0
    json.dumps(summary, allow_nan=False)
    nothing = Agreement.none(2).summary(["a", "b"])
    assert nothing["macro_dice"] is nothing["cross_entropy"] is None


@pytest.mark.parametrize(
    ("truth", "names"),
    [
        (np.zeros(3, int), r"\(3,\)"),
        (np.zeros(4), "float64"),
        (np.full(4, 2), "0 to 1"),
        (np.full(4, -1), "-1"),
    ],
)
def test_a_truth_that_does_not_fit_is_refused(truth: np.ndarray, names: str) -> None:
    with pytest.raises(UsageError, match=names):
        Agreement.measure(np.full((2, 4), 0.5), truth)


def test_other_integers_are_no_probabilities() -> None:
    with pytest.raises(UsageError, match="int16"):
        Agreement.measure(np.zeros((2, 4), np.int16), np.zeros(4, int))
