"""How objects of a volume are looked for in blocks, so that they fit into the memory allowed."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, inf, prod
from typing import TYPE_CHECKING

from otzi.errors import MemoryBudgetError, UsageError
from otzi.memory import format_bytes
from otzi_pipelines.objects.join import JOINED_PART_BYTES

if TYPE_CHECKING:
    from otzi.box import Zyx
    from otzi.ome import Spacing

__all__ = ["CHUNK_VOXELS", "ObjectPlan", "least_voxels", "plan_objects"]

CHUNK_VOXELS = 64

_BLOCKS: tuple[Zyx, ...] = ((256, 256, 256), (128, 256, 256), (128, 128, 128), (64, 64, 64))
_PROCESS_BYTES = 300 * 10**6  # interpreter, libraries, machine code, unfinished shards
_WORKER_BYTES = 250 * 10**6  # of a process of its own: the same without shards
_VOXEL_BYTES = 14  # masks, class, labels of one class and of all, numbers
_ALIVE = 3  # blocks for each worker: computed, on their way, being written
_LEAST_PARTS = 100_000
_NM3 = 1000.0  # cubic ångström


@dataclass(frozen=True, slots=True)
class ObjectPlan:
    """Blocks of whole chunks, how many at the same time, and how many pieces of objects."""

    block: Zyx
    workers: int
    """Threads of this process, which label blocks unless processes beside it do."""
    most_parts: int | None
    """Not bounded if None."""


def plan_objects(
    shape: Zyx,
    bytes_per_voxel: int,
    *,
    workers: int,
    memory_bytes: int | None,
    processes: int = 0,
) -> ObjectPlan:
    """Give the largest blocks for as many workers as the memory holds.

    Parameters
    ----------
    shape
        Of the volume.
    bytes_per_voxel
        Of the stored classes that are read at the same time.
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
    if memory_bytes is None:
        return ObjectPlan(_BLOCKS[1], workers, None)
    least = 0
    for n in range(workers, 0, -1):
        for block in _BLOCKS:
            voxels = prod(min(b + 1, extent) for b, extent in zip(block, shape, strict=True))
            of_block = voxels * (_VOXEL_BYTES + 2 * bytes_per_voxel)
            in_flight = (processes or n) * _ALIVE * 4 * voxels
            beside = processes * (_WORKER_BYTES + of_block) if processes else n * of_block
            rest = memory_bytes - (_PROCESS_BYTES + in_flight + beside)
            if rest >= _LEAST_PARTS * JOINED_PART_BYTES:
                return ObjectPlan(block, n, rest // JOINED_PART_BYTES)
            least = memory_bytes - rest + _LEAST_PARTS * JOINED_PART_BYTES
    where = f" in this process and {processes} more" if processes else ""
    remedy = "allow more, or run fewer processes" if processes else "allow more"
    raise MemoryBudgetError(
        f"objects need {format_bytes(least)}{where} for one block of {CHUNK_VOXELS} voxels a side "
        f"at a time, --memory is {format_bytes(memory_bytes)}: {remedy}"
    )


def least_voxels(volume_nm3: float, spacing_angstrom: Spacing) -> int:
    """Give the fewest voxels, at least one, that have such a volume together.

    Raises
    ------
    UsageError
        If it is no volume.
    """
    if not 0 <= volume_nm3 < inf:
        raise UsageError(f"a least volume of {volume_nm3:g} nm³: give 0 or more")
    voxels = volume_nm3 * _NM3 / prod(spacing_angstrom)
    return max(1, ceil(round(voxels, 6)))
