"""A Dask graph in the making: blocks of tiles scatter parts, cells gather them."""

from __future__ import annotations

from operator import getitem
from typing import TYPE_CHECKING, Any

from dask._task_spec import GraphNode, Task, TaskRef

from otzi.errors import UsageError
from otzi.tiles.cells import blended, is_alone
from otzi.tiles.plan import TilePlan

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from otzi.box import Zyx
    from otzi.tiles.blend import ProbabilityType
    from otzi.tiles.blocks import BlockPlan
    from otzi.tiles.infer import Model

__all__ = ["ScatterGraph", "plan_for"]


def plan_for(model: Model, shape: Zyx, tile: int, overlap: int) -> TilePlan:
    """Give the tiles of a volume.

    Raises
    ------
    UsageError
        If tile, overlap and the model's size do not fit together.
    """
    if tile % model.size_multiple:
        raise UsageError(
            f"tile {tile} does not fit the model: take a multiple of {model.size_multiple} voxels"
        )
    return TilePlan(shape, tile, overlap)


class ScatterGraph:
    """Tasks by key, those of one volume; a cell's task gives it as stored, ``(c, z, y, x)``.

    Parameters
    ----------
    blocks
        Of the volume.
    name
        Of the keys of cells: ``(name, 0, z, y, x)``, as Dask names the chunks of an array.
    token
        Of all other keys.
    """

    def __init__(self, blocks: BlockPlan, name: str, token: str) -> None:
        self.blocks = blocks
        self.tasks: dict[Any, GraphNode] = {}
        self._name, self._token = name, token

    def cell(self, index: Zyx) -> tuple[Any, ...]:
        """Give the key of a cell."""
        return self._name, 0, *index

    def block(self, index: Zyx) -> tuple[Any, ...]:
        """Give the key of a block."""
        return f"tiles-{self._token}", *index

    def add_block(
        self, block: Zyx, cells: Sequence[Zyx], function: Callable[..., Any], *arguments: Any
    ) -> None:
        """Add a task that gives the parts of `cells`, and those that take one of them each."""
        whole = self.block(block)
        self.tasks[whole] = Task(whole, function, *arguments)
        for place, cell in enumerate(cells):
            alone = is_alone(self.blocks, cell)
            key = self.cell(cell) if alone else self._part(block, cell)
            self.tasks[key] = Task(key, getitem, TaskRef(whole), place)

    def add_cell(self, cell: Zyx, dtype: ProbabilityType, n_classes: int) -> None:
        """Add the task of a cell, of which all blocks are there."""
        if is_alone(self.blocks, cell):
            return
        parts = [TaskRef(self._part(b, cell)) for b in self.blocks.contributors(cell)]
        key = self.cell(cell)
        self.tasks[key] = Task(key, blended, self.blocks, cell, dtype, n_classes, *parts)

    def _part(self, block: Zyx, cell: Zyx) -> tuple[Any, ...]:
        return f"part-{self._token}", *block, *cell
