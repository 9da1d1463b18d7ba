"""How many tiles at a time the memory allows, and what is left for chunks that are read again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from otzi.errors import MemoryBudgetError
from otzi.memory import format_bytes, give_back_freed_memory, resident_memory_bytes
from otzi.tiles.batch import window
from otzi_pipelines.ramps.histograms import histogram_bytes

if TYPE_CHECKING:
    from otzi.box import Zyx
    from otzi.tiles.blend import ProbabilityType
    from otzi.tiles.blocks import BlockPlan
    from otzi.tiles.ensemble import Ensemble
    from otzi.tiles.infer import TorchModel

__all__ = ["Budget", "left_bytes", "workers_that_fit"]

# Measured: libraries and kernels that come with the first tile, and chunks that wait for a shard.
_ONCE_BYTES = 100 * 10**6
# Measured: a worker process that has imported all it needs, torch among it.
_PROCESS_BYTES = 500 * 10**6


@dataclass(frozen=True, slots=True)
class Budget:
    """What a run takes."""

    blocks: BlockPlan
    model: TorchModel | Ensemble
    in_processes: bool
    """Whether each worker is a process of its own."""
    dtype: ProbabilityType
    """As stored."""

    def needed_bytes(self, workers: int) -> int:
        """Give the memory that so many blocks at a time take, all processes together."""
        n_classes = len(self.model.classes)
        n_channels = n_classes + self.model.n_measures
        observed = histogram_bytes(n_classes, self.blocks.plan.shape[0], self.dtype)
        waiting = self.blocks.frontier_bytes(window(self.blocks, workers), n_channels)
        each = self.model.memory_bytes(self.tile_shape) + self._block_bytes(n_channels)
        each += self.in_processes * _PROCESS_BYTES
        return resident_memory_bytes() + _ONCE_BYTES + observed + waiting + workers * each

    @property
    def tile_shape(self) -> Zyx:
        """What the network sees at a time."""
        return self.blocks.plan.read((0, 0, 0)).shape

    def _block_bytes(self, n_channels: int) -> int:
        """Give what a block of many tiles takes while it is made: its density and its sums."""
        if self.blocks.is_single:
            return 0
        item = np.dtype(np.uint32).itemsize
        return self.blocks.reach((0, 0, 0)).n_voxels * (n_channels + 1) * item


def workers_that_fit(budget: Budget, most: int, memory_bytes: int, *, fewest: int = 1) -> int:
    """Give how many blocks at a time fit into the memory, `fewest` to `most`.

    Raises
    ------
    MemoryBudgetError
        If not even the fewest do.
    """
    give_back_freed_memory()
    for workers in range(most, fewest - 1, -1):
        if budget.needed_bytes(workers) <= memory_bytes:
            return workers
    needed, network = budget.needed_bytes(fewest), budget.model.memory_bytes(budget.tile_shape)
    tiles = "one tile" if fewest == 1 else f"{fewest} tiles"
    raise MemoryBudgetError(
        f"{tiles} of {budget.blocks.plan.tile} voxels at a time needs {format_bytes(needed)} "
        f"({format_bytes(network)} for the network, the rest for unfinished cells and the "
        f"process), --memory is {format_bytes(memory_bytes)}: allow more, or a smaller --tile"
    )


def left_bytes(budget: Budget, workers: int, memory_bytes: int) -> int:
    """Give what each process may keep of chunks that are read again."""
    n_processes = workers if budget.in_processes else 1
    return max(0, memory_bytes - budget.needed_bytes(workers)) // n_processes
