"""The whole of a volume, cell by cell, in memory that does not grow with its length.

One Dask graph for a volume, on any executor: each tile is inferred once, each cell is blended from
the parts of up to 8 blocks of tiles. A block begins only when the cells of the block `window`
before it are written, so that what waits follows the cross-section of the volume.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from otzi.events import Listener, ignore, step
from otzi.tiles.parts import read_and_infer_parts
from otzi.tiles.tasks import ScatterGraph

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from otzi.box import Box, Zyx
    from otzi.execute import Executor
    from otzi.tiles.blend import ProbabilityType
    from otzi.tiles.blocks import BlockPlan
    from otzi.tiles.infer import Model

__all__ = ["backpressure", "store_tiles", "task_graph", "window"]


def window(blocks: BlockPlan, n_workers: int) -> int:
    """Give how many blocks may be ahead of the last whole one: enough to keep all workers busy."""
    return 2 * n_workers if blocks.is_single else n_workers + 1


def store_tiles(
    read: Callable[[Box], NDArray[Any]],
    model: Model,
    blocks: BlockPlan,
    take: Callable[[Box, NDArray[Any]], None],
    executor: Executor,
    *,
    dtype: ProbabilityType = "uint8",
    batch: int = 1,
    workers: int | None = None,
    priority: int = 0,
    is_done: Callable[[Box], bool] = lambda cell: False,
    listen: Listener = ignore,
    name: str = "segment",
) -> int:
    """Give the class probabilities of a whole volume, cell by cell, to whoever writes them.

    They are bit-equal to those of `otzi.predict_tiles`, whatever the executor, the number of its
    workers and the blocks, as long as the model gives the same for a tile in any batch.

    Parameters
    ----------
    read
        Gives the normalised density of a box, from any thread or process.
    model
        Asked for up to `batch` tiles at a time.
    blocks
        Of the volume.
    take
        Called in this thread with every cell once: its box, and ``(c, z, y, x)`` as stored, with
        the model's measures after the classes.
    executor
        Where tiles are inferred.
    dtype
        As stored.
    batch
        Tiles at a time.
    workers
        As many as there will be; those of the executor now where left out.
    priority
        Of several volumes at the same time that of the largest goes first.
    is_done
        Tells of a cell that need not be made: an interrupted run did; only the tiles that the
        others need are inferred.
    listen
        Told of every cell.
    name
        Of the work, for people.

    Returns
    -------
    int
        How many tiles were inferred, not counting those a lost worker had to do again.

    Raises
    ------
    ModelError
        If what the model gives is no probability, or of another shape.
    """
    plan = blocks.plan
    wanted = {cell for cell in plan.tiles if not is_done(plan.cell(cell))}
    ahead = window(blocks, workers or executor.n_workers)
    graph = task_graph(read, model, blocks, wanted, dtype, batch)
    after = backpressure(graph, wanted, ahead)
    boxes = {graph.cell(cell): plan.cell(cell) for cell in plan.sweep if cell in wanted}
    with step(listen, name, len(boxes), "cells") as work:
        for key, stored in executor.graph(graph.tasks, list(boxes), after=after, priority=priority):
            take(boxes[key], stored)
            work.advance()
    return sum(len(blocks.members(block)) for block in _needed(blocks, wanted))


def _needed(blocks: BlockPlan, wanted: set[Zyx]) -> list[Zyx]:
    """Give the blocks that reach into a wanted cell, in the order of the sweep."""
    return [block for block in blocks.sweep if not wanted.isdisjoint(blocks.dependents(block))]


def task_graph(
    read: Callable[[Box], NDArray[Any]],
    model: Model,
    blocks: BlockPlan,
    wanted: set[Zyx],
    dtype: ProbabilityType,
    batch: int,
) -> ScatterGraph:
    """Give the tasks of a volume: `wanted` cells, and the blocks that they need."""
    graph = ScatterGraph(blocks, "cell", "stored")
    for block in _needed(blocks, wanted):
        cells = [cell for cell in blocks.dependents(block) if cell in wanted]
        how = (read, model, blocks, block, cells, dtype, batch)
        graph.add_block(block, cells, read_and_infer_parts, *how)
    for cell in blocks.plan.sweep:
        if cell in wanted:
            graph.add_cell(cell, dtype, len(model.classes))
    return graph


def backpressure(graph: ScatterGraph, wanted: set[Zyx], ahead: int) -> dict[Any, list[Any]]:
    """Give, by the task of block i, the cells that are taken before it begins.

    They are those of block i − `ahead`, or of the last before it that has any to make.
    """
    blocks = graph.blocks
    needed = _needed(blocks, wanted)
    after, last = {}, list[Any]()
    for block, before in zip(needed[ahead:], needed, strict=False):
        cells = [graph.cell(cell) for cell in blocks.members(before) if cell in wanted]
        after[graph.block(block)] = last = cells or last
    return after
