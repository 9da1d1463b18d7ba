"""What a worker can do with a model: found out where it runs, before anything is written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from otzi.errors import MemoryBudgetError

if TYPE_CHECKING:
    from collections.abc import Callable

    from otzi.box import Zyx
    from otzi.execute import Executor
    from otzi.tiles.ensemble import Ensemble
    from otzi.tiles.infer import TorchModel

__all__ = ["Capability", "capability", "fitting_batch"]

_MOST_TILES = 16


@dataclass(frozen=True, slots=True)
class Capability:
    """What a worker makes of a model."""

    arithmetic: str
    """What decides the last bits of the probabilities."""
    batch: int
    """Tiles at a time."""
    blends_on_device: bool
    """Whether blocks of many tiles pay: quantisation and sums are made on a GPU."""


def capability(executor: Executor | None, model: TorchModel | Ensemble, tile: Zyx) -> Capability:
    """Give what the workers of an executor make of a model, by asking one; this process if None.

    Raises
    ------
    MemoryBudgetError
        If one tile does not fit into the memory of its device.
    """
    if executor is None or executor.is_local:
        return _try((model, tile))
    ((_, found),) = executor.each(_try, [(model, tile)])
    return found


def fitting_batch(infer: Callable[[int], object], most: int = _MOST_TILES) -> int:
    """Give the largest of `most`, half of it, a quarter … tiles that fit into memory at a time.

    Raises
    ------
    MemoryBudgetError
        If not even one does.
    """
    while True:
        try:
            infer(most)
        except MemoryBudgetError:
            if most == 1:
                raise
            most //= 2
        else:
            return most


def _try(what: tuple[TorchModel | Ensemble, Zyx]) -> Capability:
    model, tile = what
    batch = 1
    if model.blends_on_device:
        sides = [-(-n // model.size_multiple) * model.size_multiple for n in tile]
        batch = fitting_batch(lambda n: model(np.zeros((n, 1, *sides), np.float32)))
    return Capability(model.arithmetic, batch, model.blends_on_device)
