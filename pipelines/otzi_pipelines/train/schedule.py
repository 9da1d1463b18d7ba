"""What follows from the held-out losses so far: the rate of learning, and whether it goes on.

All of it is a function of them, so that a run that is resumed has nothing more to remember.
"""

from __future__ import annotations

from math import cos, inf, pi
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from otzi_pipelines.train.settings import TrainSettings

    Losses = Sequence[float | None]

__all__ = ["is_best", "is_over", "learning_rate"]


def learning_rate(settings: TrainSettings, step: int, losses: Losses) -> float:
    """Give the learning rate of a step, counted from 0, after validations with these losses."""
    match settings.schedule:
        case "constant":
            return settings.learning_rate
        case "cosine":
            return settings.learning_rate * (1 + cos(pi * step / settings.steps)) / 2
        case "plateau":
            patience = settings.plateau_validations
            falls = sum(n > 0 and n % patience == 0 for n in _in_vain(settings, losses))
            return settings.learning_rate * settings.plateau_factor**falls


def is_over(settings: TrainSettings, losses: Losses) -> bool:
    """Tell whether the last `stop_validations` in a row have brought nothing."""
    patience = settings.stop_validations
    return patience > 0 and any(n >= patience for n in _in_vain(settings, losses))


def is_best(losses: Losses) -> bool:
    """Tell whether the last of these losses is the least; None is more than any."""
    *before, last = (inf if loss is None else loss for loss in losses)
    return not before or last < min(before)


def _in_vain(settings: TrainSettings, losses: Losses) -> Iterator[int]:
    """Yield after each validation how many in a row have brought nothing."""
    best, n = inf, 0
    for loss in losses:
        n += 1
        if loss is not None and loss < best - settings.minimum_gain:
            best, n = loss, 0
        yield n
