"""What follows from held-out losses: when the rate falls, when it ends, which was best."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from otzi_pipelines.train.schedule import is_best, is_over, learning_rate
from otzi_pipelines.train.settings import TrainSettings

SETTINGS = TrainSettings(steps=40, learning_rate=0.02)
LOSSES = st.lists(st.floats(0, 2) | st.none(), max_size=30)


def test_the_rate_falls_along_half_a_cosine() -> None:
    rates = [learning_rate(SETTINGS, step, []) for step in range(41)]
    assert rates[0] == SETTINGS.learning_rate
    assert rates[20] == pytest.approx(SETTINGS.learning_rate / 2)
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] == pytest.approx(0)


def test_a_constant_rate_stays() -> None:
    settings = replace(SETTINGS, schedule="constant")
    assert {learning_rate(settings, step, [1.0] * step) for step in range(40)} == {0.02}


@given(LOSSES, st.integers(1, 4))
def test_on_a_plateau_it_falls_as_torch_does(losses: list[float | None], patience: int) -> None:
    settings = replace(
        SETTINGS, schedule="plateau", plateau_validations=patience, minimum_gain=0.125
    )
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.02)
    # torch falls after more than `patience` bad ones, we after as many.
    reference = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimiser,
        factor=0.5,
        patience=patience - 1,
        threshold=0.125,
        threshold_mode="abs",
        eps=0,
    )
    for loss in losses:
        reference.step(float("inf") if loss is None else loss)
    assert learning_rate(settings, 7, losses) == pytest.approx(optimiser.param_groups[0]["lr"])


@pytest.mark.parametrize(
    ("losses", "over"),
    [
        ([], False),
        ([1.0, 0.9, 0.8, 0.7], False),
        ([1.0, 0.9, 0.8995, 0.8991], True),  # less than minimum_gain better
        ([1.0, 0.9, 0.95, 0.8], False),
        ([1.0, None, None], True),
    ],
)
def test_it_ends_when_nothing_is_gained(losses: list[float | None], over: bool) -> None:
    assert is_over(replace(SETTINGS, stop_validations=2), losses) == over
    assert not is_over(SETTINGS, losses)


@given(LOSSES, LOSSES)
def test_what_is_over_stays_so(losses: list[float | None], more: list[float | None]) -> None:
    settings = replace(SETTINGS, stop_validations=2)
    if is_over(settings, losses):
        assert is_over(settings, losses + more)


def test_the_best_is_the_first_of_the_least() -> None:
    losses = [None, 0.5, 0.7, 0.5, 0.3, None]
    found = [is_best(losses[: i + 1]) for i in range(len(losses))]
    assert found == [True, True, False, False, True, False]
