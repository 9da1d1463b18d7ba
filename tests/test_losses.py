"""The losses against their formulas, what they ask of heads, and what they leave alone."""

from __future__ import annotations

import math
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from labelled import UNKNOWN, one_hot
from otzi.errors import ConfigurationError
from otzi.networks.architectures import build, config_from_json
from otzi.networks.heads import Head
from otzi_pipelines.train.losses import (
    HEADS,
    adaptive_wing,
    check_head,
    cross_entropy,
    known_weight,
    loss_sum,
)
from otzi_pipelines.train.settings import LossName
from references import mean_cross_entropy, mean_regression, wing

rng = np.random.default_rng(0)
LOGITS = rng.normal(0, 3, (2, 3, 4, 5, 6)).astype(np.float32)
SOFT = rng.dirichlet((1, 1, 1), (2, 4, 5, 6)).astype(np.float32).transpose(0, 4, 1, 2, 3)
HARD_LABELS = rng.integers(0, 3, (2, 4, 5, 6))
MASKED_LABELS = np.where(rng.random(HARD_LABELS.shape) < 0.7, UNKNOWN, HARD_LABELS)
HARD, MASKED = (np.stack([one_hot(x) for x in labels]) for labels in (HARD_LABELS, MASKED_LABELS))


def mean(total: torch.Tensor, target: np.ndarray, weights: torch.Tensor | None = None) -> float:
    return float(total / known_weight(torch.from_numpy(target), weights))


def network(head: Head, n_classes: int = 3) -> torch.nn.Module:
    fields = {"n_classes": n_classes, "width": 2, "levels": 1, "head": head}
    return build(config_from_json("unet", fields)).eval()


@pytest.mark.parametrize("weights", [None, (0.2, 3.0, 1.0), (0.0, 1.0, 0.0)])
@pytest.mark.parametrize("target", [SOFT, HARD, MASKED], ids=["soft", "hard", "masked"])
def test_it_is_the_formula(target: np.ndarray, weights: tuple[float, ...] | None) -> None:
    counted = None if weights is None else torch.tensor(weights)
    found = cross_entropy(torch.from_numpy(LOGITS), torch.from_numpy(target), counted)
    expected = mean_cross_entropy(LOGITS, target, weights)
    assert mean(found, target, counted) == pytest.approx(expected, rel=1e-5)


def test_hard_labels_are_those_of_torch() -> None:
    found = cross_entropy(torch.from_numpy(LOGITS), torch.from_numpy(MASKED))
    expected = torch.nn.functional.cross_entropy(
        torch.from_numpy(LOGITS), torch.from_numpy(MASKED_LABELS), ignore_index=UNKNOWN
    )
    assert mean(found, MASKED) == pytest.approx(expected.item(), rel=1e-5)


def log(p: float) -> float:
    """As torch has it in binary cross-entropy."""
    return max(math.log(p), -100) if p > 0 else -100


ERRORS = {
    "bce": lambda p, t: -(t * log(p) + (1 - t) * log(1 - p)),
    "mse": lambda p, t: (p - t) ** 2,
    "adaptive-wing": wing,
}


@pytest.mark.parametrize("weights", [None, (0.2, 3.0, 1.0)])
@pytest.mark.parametrize("target", [SOFT, HARD, MASKED], ids=["soft", "hard", "masked"])
@pytest.mark.parametrize(("loss", "head"), [(loss, h) for loss in ERRORS for h in HEADS[loss]])
def test_regressions_are_their_formulas(
    loss: LossName, head: Head, target: np.ndarray, weights: tuple[float, ...] | None
) -> None:
    judged = network(head)
    counted = None if weights is None else torch.tensor(weights)
    outputs = torch.from_numpy(LOGITS)
    found = loss_sum(loss, judged, outputs, torch.from_numpy(target), counted)
    shares = judged.activate(outputs).numpy()
    expected = mean_regression(ERRORS[loss], shares, target, weights)
    assert mean(found, target, counted) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("loss", ["bce", "mse", "adaptive-wing"])
def test_a_single_channel_is_that_of_the_foreground(loss: LossName) -> None:
    foreground = SOFT[:, 1:2]
    target = np.concatenate([1 - foreground, foreground], axis=1)
    outputs = torch.from_numpy(LOGITS[:, :1])
    found = loss_sum(loss, network("sigmoid", 2), outputs, torch.from_numpy(target))
    shares = torch.sigmoid(outputs).numpy()
    expected = mean_regression(ERRORS[loss], shares, foreground, voxels=target.sum(1))
    assert mean(found, target) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("loss", get_args(LossName))
@pytest.mark.parametrize("head", get_args(Head))
def test_what_does_not_go_together_is_refused(loss: LossName, head: Head) -> None:
    if head in HEADS[loss]:
        check_head(loss, head)
    else:
        with pytest.raises(ConfigurationError, match=f"'{loss}' does not go with network.head"):
            check_head(loss, head)


@pytest.mark.parametrize("loss", get_args(LossName))
def test_unknown_voxels_do_not_pull(loss: LossName) -> None:
    outputs = torch.from_numpy(LOGITS).requires_grad_()
    loss_sum(loss, network(HEADS[loss][0]), outputs, torch.from_numpy(MASKED)).backward()
    assert outputs.grad is not None
    pull = outputs.grad.abs().sum(1).numpy()
    assert not pull[MASKED_LABELS == UNKNOWN].any()
    assert pull[MASKED_LABELS != UNKNOWN].all()


@pytest.mark.parametrize("loss", get_args(LossName))
def test_nothing_known_is_no_loss(loss: LossName) -> None:
    outputs = torch.from_numpy(LOGITS).requires_grad_()
    total = loss_sum(loss, network(HEADS[loss][0]), outputs, torch.zeros(LOGITS.shape))
    total.backward()
    assert total.item() == 0
    assert outputs.grad is not None
    assert not outputs.grad.any()


def test_the_entropy_of_the_target_is_the_least() -> None:
    best = mean(cross_entropy(torch.from_numpy(np.log(SOFT)), torch.from_numpy(SOFT)), SOFT)
    assert best == pytest.approx(-(SOFT * np.log(SOFT)).sum(1).mean(), rel=1e-5)
    assert best < mean(cross_entropy(torch.from_numpy(LOGITS), torch.from_numpy(SOFT)), SOFT)


@given(st.floats(0, 1))
def test_the_branches_of_the_wing_meet_in_value_and_slope(target: float) -> None:
    theta, step = 0.5, 1e-6
    at = torch.tensor([theta - step, theta, theta + step], dtype=torch.float64)
    shares = (target - at).requires_grad_()
    values = adaptive_wing(shares, torch.full_like(shares, target))
    (slopes,) = torch.autograd.grad(values.sum(), shares)
    assert values[1].item() == pytest.approx(values[0].item(), abs=1e-4)
    assert values[2].item() == pytest.approx(values[1].item(), abs=1e-4)
    assert slopes[0].item() == pytest.approx(slopes[2].item(), rel=1e-4)
    assert slopes[0].item() < 0


@given(st.floats(-2, 3), st.floats(0, 1))
def test_the_wing_falls_towards_the_target(share: float, target: float) -> None:
    shares = torch.tensor([share], dtype=torch.float64, requires_grad=True)
    value = adaptive_wing(shares, torch.tensor([target], dtype=torch.float64))
    value.backward()
    assert shares.grad is not None
    assert value.item() == pytest.approx(wing(share, target), rel=1e-9, abs=1e-12)
    assert value.item() >= 0
    assert shares.grad.item() * (share - target) >= 0
    assert math.isfinite(shares.grad.item())
