"""What a worker can do with a model: found out where it runs, before anything is written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from otzi.errors import MemoryBudgetError
from otzi.tiles.blocks import BlockPlan
from otzi.tiles.parts import infer_parts

if TYPE_CHECKING:
    from collections.abc import Callable

    from otzi.box import Zyx
    from otzi.execute import Executor
    from otzi.tiles.ensemble import Ensemble
    from otzi.tiles.infer import TorchModel
    from otzi.tiles.plan import TilePlan

__all__ = ["Capability", "capability", "fitting_batch"]

_MOST_TILES = 16
_TILES_ON_DEVICE = 2
"""Along y and x in a block on a GPU, which has all tiles along z."""


@dataclass(frozen=True, slots=True)
class Capability:
    """What a worker makes of a model."""

    arithmetic: str
    """What decides the last bits of the probabilities."""
    batch: int
    """Tiles at a time."""
    blocks: BlockPlan
    """What is inferred as one piece of work: on a processor a tile, which takes long enough."""


def capability(
    executor: Executor | None,
    model: TorchModel | Ensemble,
    plan: TilePlan,
    tiles_per_block: Zyx | None = None,
) -> Capability:
    """Give what the workers of an executor make of a model, by asking one; this process if None.

    On a GPU a block of nothing is made whole, with as many tiles at a time as fit beside its sums:
    blocks of `tiles_per_block`, or of all tiles along z and two along y and x.

    Raises
    ------
    MemoryBudgetError
        If not even one tile at a time fits into the memory of its device.
    """
    if executor is None or executor.is_local:
        return _try((model, plan, tiles_per_block))
    ((_, found),) = executor.each(_try, [(model, plan, tiles_per_block)])
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


def _try(what: tuple[TorchModel | Ensemble, TilePlan, Zyx | None]) -> Capability:
    model, plan, tiles_per_block = what
    if not model.blends_on_device:
        return Capability(model.arithmetic, 1, BlockPlan(plan, tiles_per_block or (1, 1, 1)))
    usual = plan.grid[0], _TILES_ON_DEVICE, _TILES_ON_DEVICE
    blocks, first = BlockPlan(plan, tiles_per_block or usual), (0, 0, 0)
    nothing = np.zeros(blocks.read(first).shape, np.float32)
    cells = blocks.dependents(first)
    batch = fitting_batch(
        lambda n: infer_parts(nothing, model, blocks, first, cells, "uint8", n),
        min(_MOST_TILES, len(blocks.members(first))),
    )
    return Capability(model.arithmetic, batch, blocks)
