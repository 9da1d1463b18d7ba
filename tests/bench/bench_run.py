"""How much a coordinator costs: wall against ideal, tasks alive, memory, a run with nothing to do.

python tests/bench/bench_run.py [--tasks 20000]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import mrcfile
import numpy as np

from otzi.collection import create_collection
from otzi.execute import executor
from otzi.ledger.stages import embedded_stages
from otzi.memory import resident_memory_bytes
from otzi_pipelines.run import coordinator
from otzi_pipelines.run.coordinator import run_collection
from otzi_pipelines.run.pipeline import Pipeline, RunSettings, read_pipeline

if TYPE_CHECKING:
    from otzi_pipelines.run.stages import Work
    from otzi_pipelines.run.volume import Volume

N_VOLUMES = 20
N_WORKERS = 2


def rest(seconds: float) -> None:
    time.sleep(seconds)


@dataclass(frozen=True)
class Tasks:
    """Tasks elsewhere that rest, and a small file that says that they have."""

    folder: Path
    n: int
    seconds: float
    ahead: int
    alive: list[int] = field(default_factory=list)

    key = "tasks"
    needs = ("raw",)
    may_use = ()
    makes = None

    def recipe(self, volume: Volume) -> dict[str, Any]:
        return {}

    def made_digest(self, volume: Volume) -> str | None:
        return "done" if (self.folder / volume.id).exists() else None

    def n_bytes(self, volume: Volume, n_classes: int) -> int:
        return 0

    def run(self, volume: Volume, work: Work) -> bool:
        assert work.executor is not None
        items = [self.seconds] * self.n
        for _ in work.executor.each(rest, items, ahead=self.ahead, priority=work.priority):
            self.alive.append(len(work.executor._cluster.scheduler.tasks))  # type: ignore[attr-defined]
            work.check()
        (self.folder / volume.id).touch()
        return True


def fill(path: Path, n: int) -> None:
    """Make a collection of so many tiny tomograms."""
    collection = create_collection(path)
    for number in range(n):
        with collection.add(f"ts_{number:03}").write(
            "raw", dtype="uint8", shape=(4, 5, 6), spacing_angstrom=(1, 1, 1), recipe={}
        ) as writer:
            writer[0:4, 0:5, 0:6] = np.full((4, 5, 6), number % 250, np.uint8)


def scheduler(folder: Path, n_tasks: int, seconds: float, ahead: int) -> None:
    """Run so many tasks, of all volumes together; print what it took."""
    fill(folder / "c", N_VOLUMES)
    stage = Tasks(folder, n_tasks // N_VOLUMES, seconds, ahead)
    settings = RunSettings(volumes=2, workers=N_WORKERS)
    with executor(f"processes:{N_WORKERS}") as warm:
        for _ in warm.each(rest, [0.0] * N_WORKERS):
            pass
        before, cpu = resident_memory_bytes(), time.process_time()
        began = time.monotonic()
        where = f"processes:{N_WORKERS}"
        with patch.object(coordinator, "started", lambda *_: nullcontext(warm)):
            outcome = coordinator.run_collection(
                folder / "c", Pipeline((stage,), settings), executor=where
            )
        wall = time.monotonic() - began
    assert outcome.exit_code == 0
    ideal = n_tasks * seconds / N_WORKERS
    against = f", {wall / ideal:.3f} x ideal" if ideal else ""
    print(
        f"{n_tasks} tasks of {seconds:g} s, {N_VOLUMES} volumes, {N_WORKERS} workers: "
        f"{wall:.1f} s{against}; at most {max(stage.alive)} alive; coordinator "
        f"{1000 * (time.process_time() - cpu) / n_tasks:.2f} ms CPU a task, "
        f"{(resident_memory_bytes() - before) / 1e6:+.1f} MB"
    )


def nothing_to_do(folder: Path, n: int) -> None:
    """Ingest tiny files and prepare them for the viewer; then run the finished collection again."""
    for number in range(n):
        volume = np.random.default_rng(number).integers(-90, 90, (8, 16, 16)).astype(np.int8)
        with mrcfile.new(folder / f"ts_{number:03}.mrc") as file:
            file.set_data(volume)
            file.voxel_size = 10.0
    stages = [{"stage": "ingest", "sources": ["."]}, {"stage": "view"}]
    pipeline = read_pipeline({"stage": stages}, folder / "p.toml")
    for what in (f"ingest and view of {n} tiny files", "the same again"):
        began, cpu = time.monotonic(), time.process_time()
        assert run_collection(folder / "c", pipeline).exit_code == 0
        print(
            f"{what}: {time.monotonic() - began:.2f} s, "
            f"{1000 * (time.process_time() - cpu) / n:.2f} ms CPU each"
        )


def ledger(folder: Path, n: int) -> None:
    """Claim and commit."""
    create_collection(folder / "c")
    stages = embedded_stages(folder / "c")
    began, cpu = time.monotonic(), time.process_time()
    for number in range(n):
        lease: Any = stages.claim(str(number), "view", "in", None, owner="me", lease_seconds=60)
        stages.commit(lease, "out", 1.0)
    print(
        f"ledger: {1000 * (time.process_time() - cpu) / n:.2f} ms CPU, "
        f"{1000 * (time.monotonic() - began) / n:.2f} ms for a claim and a commit"
    )


MEASURES = {
    "ledger": lambda folder, n_tasks: ledger(folder, 300),
    "again": lambda folder, n_tasks: nothing_to_do(folder, 300),
    "wall": lambda folder, n_tasks: scheduler(folder, 6 * N_VOLUMES, 1.0, 2),
    "growth": lambda folder, n_tasks: scheduler(folder, n_tasks, 0.0, 25),
}


def main() -> None:
    """Measure what is asked for, or all, and print it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("measures", nargs="*", choices=[*MEASURES, []])
    parser.add_argument("--tasks", type=int, default=20_000, help="For growth.")
    arguments = parser.parse_args()
    for name in arguments.measures or MEASURES:
        with tempfile.TemporaryDirectory(prefix=f"bench-run-{name}-") as folder:
            MEASURES[name](Path(folder), arguments.tasks)


if __name__ == "__main__":
    main()
