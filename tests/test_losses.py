"""The loss against its formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from labelled import UNKNOWN, one_hot
from otzi_pipelines.train.losses import cross_entropy
from references import mean_cross_entropy

rng = np.random.default_rng(0)
LOGITS = rng.normal(0, 3, (2, 3, 4, 5, 6)).astype(np.float32)
SOFT = rng.dirichlet((1, 1, 1), (2, 4, 5, 6)).astype(np.float32).transpose(0, 4, 1, 2, 3)
HARD_LABELS = rng.integers(0, 3, (2, 4, 5, 6))
MASKED_LABELS = np.where(rng.random(HARD_LABELS.shape) < 0.7, UNKNOWN, HARD_LABELS)
HARD, MASKED = (np.stack([one_hot(x) for x in labels]) for labels in (HARD_LABELS, MASKED_LABELS))


@pytest.mark.parametrize("weights", [None, (0.2, 3.0, 1.0), (0.0, 1.0, 0.0)])
@pytest.mark.parametrize("target", [SOFT, HARD, MASKED], ids=["soft", "hard", "masked"])
def test_it_is_the_formula(target: np.ndarray, weights: tuple[float, ...] | None) -> None:
    found = cross_entropy(
        torch.from_numpy(LOGITS),
        torch.from_numpy(target),
        None if weights is None else torch.tensor(weights),
    )
    assert found.item() == pytest.approx(mean_cross_entropy(LOGITS, target, weights), rel=1e-5)


def test_hard_labels_are_those_of_torch() -> None:
    found = cross_entropy(torch.from_numpy(LOGITS), torch.from_numpy(MASKED))
    expected = torch.nn.functional.cross_entropy(
        torch.from_numpy(LOGITS), torch.from_numpy(MASKED_LABELS), ignore_index=UNKNOWN
    )
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


def test_unknown_voxels_do_not_pull() -> None:
    logits = torch.from_numpy(LOGITS).requires_grad_()
    cross_entropy(logits, torch.from_numpy(MASKED)).backward()
    assert logits.grad is not None
    pull = logits.grad.abs().sum(1).numpy()
    assert not pull[MASKED_LABELS == UNKNOWN].any()
    assert pull[MASKED_LABELS != UNKNOWN].all()


def test_nothing_known_is_no_loss() -> None:
    logits = torch.from_numpy(LOGITS).requires_grad_()
    loss = cross_entropy(logits, torch.zeros(LOGITS.shape))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_the_entropy_of_the_target_is_the_least() -> None:
    best = cross_entropy(torch.from_numpy(np.log(SOFT)), torch.from_numpy(SOFT)).item()
    assert best == pytest.approx(-(SOFT * np.log(SOFT)).sum(1).mean(), rel=1e-5)
    assert best < cross_entropy(torch.from_numpy(LOGITS), torch.from_numpy(SOFT)).item()
