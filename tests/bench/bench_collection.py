"""How long a whole collection takes, and what disk and memory: foretold from measured rates.

The coordinator's turns are simulated: tasks are handed to workers as `otzi run` does it, a few
tomograms at a time, of these the first in order before the others, stage after stage. What a
stage costs is what it was measured to take on two cores (see `STAGES`), or what the ledger of a
collection says that was run so::

    python tests/bench/bench_collection.py [COLLECTION]

The simulation is checked by what `bench_run.py` measures: 20 tomograms of 6 tasks of a second.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from dataclasses import dataclass
from heapq import heappop, heappush
from math import prod
from pathlib import Path
from statistics import median

from otzi.collection import open_collection
from otzi.durations import format_seconds
from otzi.ledger.stages import read_stages
from otzi.memory import format_bytes

VOXELS = 500 * 1440 * 1024
"""Of a tomogram of the collection: 300 of them are half a terabyte of int16."""
VOXELS_DEMO = 100 * 315 * 326
CORES_MEASURED = 2
TASK_SECONDS = 10.0
"""About as long as a shard's worth of tiles or features takes a core."""
SCHEDULER_SECONDS = 0.004
"""Of the coordinator's processor for a task: what Dask's scheduler and client take."""


@dataclass(frozen=True)
class StageCost:
    """What a stage of one tomogram takes."""

    name: str
    alone_seconds: float
    """In the coordinator, before its tasks."""
    n_tasks: int
    task_seconds: float
    disk_bytes: float
    """Of its product, with the pyramid, as it lies on the disk."""
    memory_bytes: float
    """Of the process that works, at most."""


def in_tasks(
    name: str, core_seconds: float, bytes_per_voxel: float, memory_bytes: float
) -> StageCost:
    """Give the cost of a stage whose work workers share, by what it takes one core."""
    n_tasks = max(1, round(core_seconds / TASK_SECONDS))
    disk_bytes = bytes_per_voxel * VOXELS
    return StageCost(name, 0.0, n_tasks, core_seconds / n_tasks, disk_bytes, memory_bytes)


def alone(name: str, seconds: float, bytes_per_voxel: float, memory_bytes: float) -> StageCost:
    """Give the cost of a stage that the coordinator does by itself, on its own two cores."""
    return StageCost(name, seconds, 0, 0.0, bytes_per_voxel * VOXELS, memory_bytes)


STAGES = (
    # 2.9 GB of float32 at full size; stored as uint8, of which the noise does not compress.
    alone("ingest", 8.1, 1.1, 561e6),
    # 300 x 1440 x 1024 voxels in 332 s, 61 channels, 100 trees.
    in_tasks("pseudolabel", 332 * CORES_MEASURED * 500 / 300, 2.0, 747e6),
    # The demo's network, voxel by voxel: 12.3 s; memory as at full size.
    in_tasks("segment", 12.3 * CORES_MEASURED * VOXELS / VOXELS_DEMO, 2.4, 1.6e9),
    alone("ramps", 0.1 * VOXELS / VOXELS_DEMO, 0.0, 1.6e9),
    alone("view", 0.5 * VOXELS / VOXELS_DEMO, 3.5, 1.6e9),
)
"""As the README measures them on two cores of a shared machine. Bytes are those of the demo's
products for each voxel of its chunks, times 4 classes in place of its 3."""


def simulate(
    stages: tuple[StageCost, ...],
    n_volumes: int,
    workers: int,
    at_once: int,
    cores: int = CORES_MEASURED,
) -> float:
    """Give the seconds until all are through all stages; `cores` are the coordinator's."""
    free = workers
    scheduler_free = coordinator_free = 0.0
    begun = 0
    waiting: list[tuple[int, float]] = []
    left = [0] * n_volumes
    stage_of = [-1] * n_volumes
    events: list[tuple[float, int, bool]] = []
    now = 0.0

    def advance(volume: int) -> None:
        nonlocal begun, coordinator_free
        stage_of[volume] += 1
        if stage_of[volume] < len(stages):
            # What it does by itself it does for one tomogram after another: its cores are few.
            ready = now
            if seconds := stages[stage_of[volume]].alone_seconds * CORES_MEASURED / cores:
                ready = coordinator_free = max(coordinator_free, now) + seconds
            heappush(events, (ready, volume, False))
        elif begun < n_volumes:
            begun += 1
            advance(begun - 1)

    for volume in range(min(at_once, n_volumes)):
        begun += 1
        advance(volume)
    while events:
        now, volume, was_task = heappop(events)
        if was_task:
            free += 1
            left[volume] -= 1
        else:
            stage = stages[stage_of[volume]]
            left[volume] = stage.n_tasks
            for _ in range(stage.n_tasks):
                heappush(waiting, (volume, stage.task_seconds))
        if left[volume] == 0:
            advance(volume)
        while free and waiting:
            first, seconds = heappop(waiting)
            free -= 1
            scheduler_free = max(scheduler_free, now) + SCHEDULER_SECONDS
            heappush(events, (scheduler_free + seconds, first, True))
    return now


def of_ledger(collection: Path) -> tuple[StageCost, ...]:
    """Give the costs that a collection's ledger knows, in the order of `STAGES`."""
    tomograms = {tomo.id: tomo for tomo in open_collection(collection)}
    seconds, sizes = defaultdict(list), defaultdict(list)
    for row in read_stages(collection):
        if row.state != "committed" or not row.seconds or row.tomogram not in tomograms:
            continue
        tomo, (kind, _, name) = tomograms[row.tomogram], row.stage.partition("/")
        product = {"ingest": "raw", "pseudolabel": f"labels/{name}", "segment": f"probs/{name}"}
        made = product.get(kind, row.stage)
        n_voxels = prod(tomo.shape)
        seconds[kind].append(row.seconds * VOXELS / n_voxels)
        if tomo.has(made):
            n_bytes = sum(size for size, _ in tomo.manifest(made).values())
            sizes[kind].append(n_bytes / n_voxels)
    costs = []
    for stage in STAGES:
        if stage.name not in seconds:
            continue
        took, size = median(seconds[stage.name]), median(sizes[stage.name] or [0.0])
        if stage.n_tasks:
            measured = in_tasks(stage.name, took * CORES_MEASURED, size, stage.memory_bytes)
        else:
            measured = alone(stage.name, took, size, stage.memory_bytes)
        costs.append(measured)
    return tuple(costs)


def table(stages: tuple[StageCost, ...]) -> None:
    """Print what a tomogram costs, stage by stage, and what collections do."""
    print(f"one tomogram, {VOXELS / 1e6:.0f} million voxels")
    for stage in stages:
        work = stage.alone_seconds * CORES_MEASURED + stage.n_tasks * stage.task_seconds
        print(
            f"  {stage.name:<12} {format_seconds(work):>8} of a core, {stage.n_tasks:3} tasks, "
            f"{format_bytes(stage.disk_bytes):>8} of disk, {format_bytes(stage.memory_bytes)}"
        )
    disk = sum(stage.disk_bytes for stage in stages)
    most = max(stage.memory_bytes for stage in stages)
    in_work = sum(stage.n_tasks * stage.task_seconds for stage in stages)
    for n_volumes in (300, 3000):
        for workers, cores in ((1, 2), (8, 2), (64, 2), (64, 16)):
            at_once = 2 if workers < 64 else 4
            seconds = simulate(stages, n_volumes, workers, at_once, cores)
            busy = in_work * n_volumes / workers / seconds
            print(
                f"{n_volumes:5} tomograms, {format_bytes(n_volumes * VOXELS * 2)} of int16, "
                f"{workers:2} workers and {cores:2} cores for the coordinator: "
                f"{seconds / 86400:5.2f} days, workers busy {busy:4.0%}, "
                f"{format_bytes(n_volumes * disk)} of disk, "
                f"{format_bytes((workers + 1) * most)} of memory in all"
            )


def main() -> None:
    """Check the simulation, and print the table of what was measured or of a collection."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("collection", nargs="?", type=Path, help="One that was run on two cores.")
    arguments = parser.parse_args()
    checked = simulate((StageCost("rest", 0.0, 6, 1.0, 0.0, 0.0),), 20, 2, 2)
    print(f"20 tomograms of 6 tasks of 1 s on 2 workers: {checked:.1f} s foretold")
    table(of_ledger(arguments.collection) if arguments.collection else STAGES)
    if not arguments.collection:
        print("without strokes, of which few tomograms have any:")
        table(tuple(stage for stage in STAGES if stage.name != "pseudolabel"))


if __name__ == "__main__":
    main()
