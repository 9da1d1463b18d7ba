"""Temperature scaling: what dividing logits does, and the temperature that is best."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from otzi.errors import UsageError
from otzi.metrics import Agreement
from otzi.temperature import TEMPERATURES, TemperatureFit, tempered


def sample(temperature: float, n: int = 20_000, n_classes: int = 3, seed: int = 0) -> Any:
    """Give probabilities that are too sure by a temperature, and a truth of the right ones."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.5, (n_classes, n))
    right = softmax(logits, axis=0)
    truth = (rng.random(n) > right.cumsum(axis=0)).sum(axis=0).clip(0, n_classes - 1)
    return softmax(logits * temperature, axis=0), truth


def by_minimising(probabilities: np.ndarray, truth: np.ndarray) -> float:
    """Give the best temperature by evaluating the cross-entropy itself."""
    logs = np.log(probabilities.clip(1e-7))

    def cross_entropy(log_temperature: float) -> float:
        scaled = log_softmax(logs / np.exp(log_temperature), axis=0)
        return float(-scaled[truth, np.arange(truth.size)].mean())

    return float(np.exp(minimize_scalar(cross_entropy, bounds=(-2, 3), method="bounded").x))


@given(arrays(np.float64, (3, 8), elements=st.floats(-20, 20)), st.floats(0.2, 5))
def test_a_temperature_divides_logits(logits: np.ndarray, temperature: float) -> None:
    probabilities = softmax(logits, axis=0)
    expected = softmax(logits / temperature, axis=0)
    found = tempered(probabilities, temperature, axis=0)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)
    tensor = tempered(torch.from_numpy(probabilities), temperature, axis=0)
    np.testing.assert_allclose(tensor.numpy(), found, rtol=1e-12)


@given(st.floats(0.5, 4), st.integers(2, 5), st.integers(0, 9))
@settings(deadline=None, max_examples=20)
def test_the_temperature_of_the_least_cross_entropy_is_found(
    temperature: float, n_classes: int, seed: int
) -> None:
    probabilities, truth = sample(temperature, 2000, n_classes, seed)
    expected = by_minimising(probabilities, truth)
    found = TemperatureFit.measure(probabilities, truth).best()
    assert found == pytest.approx(expected, rel=2e-3)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_what_is_too_sure_is_known_by_how_much(temperature: float) -> None:
    probabilities, truth = sample(temperature)
    fit = TemperatureFit.measure(probabilities, truth)
    assert fit.best() == pytest.approx(temperature, rel=0.05)
    before = Agreement.measure(probabilities, truth)
    after = Agreement.measure(tempered(probabilities, fit.best(), axis=0), truth)
    assert after.calibration_error < 0.02
    assert after.cross_entropy <= before.cross_entropy
    assert after.micro_f1 == before.micro_f1


def test_stored_steps_hardly_matter() -> None:
    probabilities, truth = sample(2.0)
    exact = TemperatureFit.measure(probabilities, truth).best()
    stored = np.rint(255 * probabilities).astype(np.uint8)
    assert TemperatureFit.measure(stored, truth).best() == pytest.approx(exact, rel=0.1)


def test_soft_truth_is_what_many_hard_ones_are() -> None:
    probabilities = np.array([[0.8, 0.6], [0.2, 0.4]])
    soft = np.array([[0.75, 0.5], [0.25, 0.5]])
    fit = TemperatureFit.measure(
        np.repeat(probabilities, 4, axis=1), np.array([0, 0, 0, 1] + [0, 1] * 2)
    )
    np.testing.assert_allclose(4 * TemperatureFit.measure(probabilities, soft).slopes, fit.slopes)


def test_blocks_add_up_and_the_unknown_is_left_out() -> None:
    probabilities, truth = sample(1.7, 999)
    whole = TemperatureFit.measure(probabilities, truth)
    soft = (truth == np.arange(3)[:, None]).astype(np.float64)
    soft[:, ::3] = 0
    probabilities[:, 1::3] = 0
    parts = [slice(0, 400), slice(400, 999)]
    found = TemperatureFit.none()
    for part in parts:
        found += TemperatureFit.measure(probabilities[:, part], soft[:, part])
    left = TemperatureFit.measure(probabilities[:, 2::3], truth[2::3])
    assert (found.n_voxels, whole.n_voxels) == (333, 999)
    np.testing.assert_allclose(found.slopes, left.slopes)


def test_slopes_only_fall_with_the_temperature() -> None:
    """The cross-entropy is convex: there is one best."""
    slopes = TemperatureFit.measure(*sample(1.3)).slopes
    assert (np.diff(slopes) < 0).all()
    assert len(slopes) == len(TEMPERATURES)


@pytest.mark.parametrize(
    ("truth", "says"), [([0, 0], r"falls beyond 0\.125"), ([1, 1], "falls beyond 32")]
)
def test_where_none_is_the_best_that_is_said(truth: list[int], says: str) -> None:
    probabilities = np.array([[0.9, 0.8], [0.1, 0.2]])
    with pytest.raises(UsageError, match=says):
        TemperatureFit.measure(probabilities, np.array(truth)).best()
    with pytest.raises(UsageError, match="no labelled voxel"):
        TemperatureFit.none().best()
