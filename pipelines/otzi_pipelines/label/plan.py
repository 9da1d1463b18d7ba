"""How pseudo-labels of a volume are cut into blocks, so that they fit into the memory allowed."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from otzi.errors import MemoryBudgetError
from otzi.memory import format_bytes
from otzi.pseudo.lazy import block_memory_bytes

if TYPE_CHECKING:
    from otzi.box import Zyx
    from otzi.pseudo.bank import FeatureBank

__all__ = ["CHUNK_VOXELS", "LabelPlan", "plan_labels"]

CHUNK_VOXELS = 64

_BLOCKS: tuple[Zyx, ...] = ((128, 128, 128), (64, 128, 128), (64, 64, 128), (64, 64, 64))
_PROCESS_BYTES = 450 * 10**6  # interpreter, libraries, machine code, forest, unfinished shards
_WORKER_BYTES = 350 * 10**6  # of a process of its own: the same without shards
_READ_BYTES = 64 * 10**6  # stored chunks that a block is read from
_COPIES = 3  # of the samples, while the forest is fitted


@dataclass(frozen=True, slots=True)
class LabelPlan:
    """Blocks of whole chunks, and how many of them at the same time."""

    block: Zyx
    workers: int
    """Threads of this process, which label blocks unless processes beside it do."""
    memory_bytes: int
    """What this process, and those beside it, are expected to take at most."""


def plan_labels(
    bank: FeatureBank,
    shape: Zyx,
    n_classes: int,
    n_samples: int,
    *,
    workers: int,
    memory_bytes: int | None,
    processes: int = 0,
) -> LabelPlan:
    """Give the largest blocks for as many workers as the memory holds.

    Parameters
    ----------
    bank, shape, n_classes
        Features, volume in voxels, and classes.
    n_samples
        Voxels of the strokes.
    workers
        Threads, at most.
    memory_bytes
        What all may take together; not bounded if None.
    processes
        That label the blocks, beside this one; 0 where its threads do.

    Raises
    ------
    MemoryBudgetError
        If not even one worker with the smallest block fits.
    """

    def each(block: Zyx) -> int:
        return block_memory_bytes(bank, _within(block, shape), n_classes) + _READ_BYTES

    fixed = _PROCESS_BYTES + _COPIES * 4 * n_samples * len(bank.names)
    for n in range(workers, 0, -1):
        for block in _BLOCKS:
            if processes:
                beside = processes * (_WORKER_BYTES + each(block) + 2 * n_classes * prod(block))
                plan = LabelPlan(block, n, fixed + n * each(_BLOCKS[-1]) + beside)
            else:
                plan = LabelPlan(block, n, fixed + n * each(block))
            if memory_bytes is None or plan.memory_bytes <= memory_bytes:
                return plan
    remedy, where = "take fewer --scales", ""
    if processes:
        remedy, where = "run fewer processes", f" in this process and {processes} more"
    raise MemoryBudgetError(
        f"{n_samples} stroke voxels and one block of {CHUNK_VOXELS} voxels a side, with "
        f"{len(bank.names)} channels that see {bank.halo_voxels} voxels around it, need "
        f"{format_bytes(plan.memory_bytes)}{where}, --memory is {format_bytes(memory_bytes or 0)}: "
        f"allow more, or {remedy}"
    )


def _within(block: Zyx, shape: Zyx) -> Zyx:
    z, y, x = (min(b, n) for b, n in zip(block, shape, strict=True))
    return z, y, x
