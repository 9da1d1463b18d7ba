"""How long a whole collection takes, foretold: a simulation of the coordinator's turns.

Tasks are handed to workers as `otzi run` does it: a few tomograms at a time, of these the first in
order before the others, stage after stage. What a task costs is what the README's session took,
voxel for voxel, on two cores; what a stage does outside its tasks runs beside other tomograms.

    python tests/bench/bench_collection.py
"""

from __future__ import annotations

from dataclasses import dataclass
from heapq import heappop, heappush
from math import ceil

from otzi.durations import format_seconds
from otzi.memory import format_bytes

CORES_MEASURED = 2
VOXELS_MEASURED = 100 * 315 * 326
VOXELS = 500 * 1440 * 1024
CLASSES = 4
SCHEDULER_SECONDS = 0.0024
"""Of the coordinator's processor for a task: what Dask's scheduler was measured to take."""


@dataclass(frozen=True)
class StageCost:
    """What a stage of one tomogram takes."""

    name: str
    alone_seconds: float
    """In the coordinator, before its tasks."""
    n_tasks: int
    task_seconds: float
    bytes_per_voxel: float
    """On the disk, with the pyramid, before compression."""


def measured(name: str, seconds: float, bytes_per_voxel: float, *, in_tasks: bool) -> StageCost:
    """Give the cost for a whole tomogram of what took so long for the demo's, on two cores."""
    whole = seconds * CORES_MEASURED * VOXELS / VOXELS_MEASURED
    if not in_tasks:
        return StageCost(name, whole / CORES_MEASURED, 0, 0.0, bytes_per_voxel * 8 / 7)
    n_tasks = max(1, round(whole / 10))
    return StageCost(name, 0.0, n_tasks, whole / n_tasks, bytes_per_voxel * 8 / 7)


STAGES = (
    measured("ingest", 0.4, 2, in_tasks=False),
    measured("pseudolabel", 21.9, CLASSES, in_tasks=True),
    measured("segment", 12.3, CLASSES, in_tasks=True),
    measured("ramps", 0.1, 0, in_tasks=False),
    measured("view", 0.5, 1 + CLASSES, in_tasks=False),
)


def simulate(stages: tuple[StageCost, ...], n_volumes: int, workers: int, at_once: int) -> float:
    """Give the seconds until all tomograms are through all stages."""
    free = workers
    scheduler_free = 0.0
    begun = 0
    waiting: list[tuple[int, float]] = []
    left = [0] * n_volumes
    stage_of = [-1] * n_volumes
    events: list[tuple[float, int, bool]] = []
    now = 0.0

    def advance(volume: int) -> None:
        nonlocal begun
        stage_of[volume] += 1
        if stage_of[volume] < len(stages):
            heappush(events, (now + stages[stage_of[volume]].alone_seconds, volume, False))
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


def main() -> None:
    """Check the simulation by what was measured, and print the table."""
    checked = simulate((StageCost("rest", 0.0, 6, 1.0, 0.0),), 20, 2, 2)
    print(f"20 tomograms of 6 tasks of 1 s on 2 workers: {checked:.1f} s foretold")
    work = sum(s.alone_seconds * CORES_MEASURED + s.n_tasks * s.task_seconds for s in STAGES)
    disk = sum(stage.bytes_per_voxel for stage in STAGES) * VOXELS
    n_tasks = sum(stage.n_tasks for stage in STAGES)
    print(
        f"one tomogram of {VOXELS / 1e6:.0f} million voxels: {format_seconds(work)} of a core, "
        f"{n_tasks} tasks, up to {format_bytes(disk)} on the disk"
    )
    for n_volumes in (300, 3000):
        for workers in (1, 8, 64, 512):
            at_once = max(2, ceil(workers / max(stage.n_tasks for stage in STAGES)) + 1)
            seconds = simulate(STAGES, n_volumes, workers, at_once)
            in_tasks = sum(s.n_tasks * s.task_seconds for s in STAGES) * n_volumes
            print(
                f"{n_volumes:5} tomograms ({format_bytes(n_volumes * VOXELS * 2):>7} of int16), "
                f"{workers:3} workers, {at_once} at a time: {seconds / 86400:7.1f} days, "
                f"workers busy {in_tasks / workers / seconds:4.0%}, up to "
                f"{format_bytes(n_volumes * disk)}"
            )


if __name__ == "__main__":
    main()
