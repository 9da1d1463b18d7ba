"""Agreement with a truth: as scikit-learn has it, and the same however the volume is cut."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, log_loss

from otzi.errors import UsageError
from otzi.metrics import Agreement


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
