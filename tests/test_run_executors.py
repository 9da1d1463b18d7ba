"""Runs on executors that come and go: a scheduler that is begun anew, and jobs of a real SLURM."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from distributed import Client

from otzi import cluster_slurm
from otzi.collection import open_collection
from otzi.errors import ExecutorUnavailable
from otzi.events import Event, Warned
from otzi.ledger.stages import read_stages
from otzi_pipelines.run.coordinator import run_collection
from otzi_pipelines.run.pipeline import read_pipeline
from otzi_pipelines.run.progress import Moved, RunEvent
from run_stages import Times, pipeline
from slurm_cluster import missing_programs, slurm_cluster
from tasks import square
from test_segment import make_model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from otzi.tomogram import Tomogram
    from otzi_pipelines.run.pipeline import Pipeline
    from otzi_pipelines.run.stages import Work
    from otzi_pipelines.run.volume import Volume

N_TASKS = 12
CLASSES = ("background", "membrane", "lumen")
JOBS = """
jobs = 2
cores = 1
memory = "2GB"
walltime = "00:15:00"
queue = "all"
directives = ["--nodes=1"]
local_folder = "{folder}/local"
log_folder = "{folder}"
"""


@dataclass(frozen=True)
class Spread(Times):
    """``labels/NAME``: made once tasks elsewhere are done."""

    first: Callable[[], None] = lambda: None
    """Called once, after the first result."""
    results: list[int] = field(default_factory=list)

    def run(self, volume: Volume, work: Work) -> bool:
        assert work.executor is not None
        for _, value in work.executor.each(square, range(N_TASKS)):
            self.results.append(value)
            if len(self.results) == 1:
                self.first()
        return super().run(volume, work)


class Scheduler:
    """A Dask scheduler and a worker, always at the same address; both can be killed and begun."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = str(free.getsockname()[1])
        self.address = f"tcp://127.0.0.1:{self._port}"
        self._processes: list[subprocess.Popen[bytes]] = []

    def begin(self) -> None:
        """Begin both, and wait until they work."""
        environ = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
        local = ["--no-dashboard", "--host", "127.0.0.1"]
        words = [
            ["scheduler", *local, "--port", self._port],
            ["worker", self.address, "--no-dashboard", "--nthreads", "1", "--no-nanny"],
        ]
        words[1] += ["--local-directory", str(self._folder)]
        for command in words:
            process = subprocess.Popen(
                [sys.executable, "-m", "dask", *command],
                env=environ,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            self._processes.append(process)
        with Client(self.address, timeout=120, set_as_default=False) as client:  # type: ignore[no-untyped-call]
            client.wait_for_workers(1, timeout=120)

    def kill(self) -> None:
        """Kill both, and take note of their end."""
        for process in self._processes:
            process.kill()
            process.wait()
        self._processes.clear()


@pytest.fixture
def scheduler(tmp_path: Path) -> Iterator[Scheduler]:
    scheduler = Scheduler(tmp_path)
    scheduler.begin()
    yield scheduler
    scheduler.kill()


@pytest.fixture
def path(add_tomogram: Callable[..., Tomogram]) -> Path:
    for n in range(2):
        tomo = add_tomogram(np.full((4, 5, 6), n, np.uint8), f"ts_{n}")
    return tomo.collection.workspace


@pytest.mark.faults
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_scheduler_that_is_begun_anew_is_found_again(path: Path, scheduler: Scheduler) -> None:
    def anew() -> None:
        scheduler.kill()
        scheduler.begin()

    said: list[Event] = []
    stage = Spread("twice", first=anew)
    outcome = run_collection(
        path, pipeline(stage, volumes=1), executor=scheduler.address, listen=said.append
    )
    assert outcome.exit_code == 0
    (warning,) = [event.message for event in said if isinstance(event, Warned)]
    assert "the Dask scheduler is gone" in warning
    assert "looked for once more" in warning
    rows = [(row.tomogram, row.state, row.attempt) for row in read_stages(path)]
    assert rows == [("ts_0", "committed", 1), ("ts_1", "committed", 1)]


@pytest.mark.faults
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_one_that_stays_away_ends_the_run_with_69(
    path: Path, scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The contract: 75 is for what a full disk and a lock are, 69 for an executor."""
    monkeypatch.setattr("otzi.clusters._CONNECT_SECONDS", 1)
    stage = Spread("twice", first=scheduler.kill)
    with pytest.raises(ExecutorUnavailable, match="no Dask scheduler answers") as gone:
        run_collection(path, pipeline(stage, volumes=1), executor=scheduler.address)
    assert gone.value.exit_code == 69
    assert {row.state for row in read_stages(path)} == {"ready"}


def _tomograms(path: Path) -> None:
    from otzi.collection import create_collection

    col = create_collection(path, CLASSES)
    for n in range(2):
        volume = np.random.default_rng(n).normal(0, 9, (20, 30, 80)).astype(np.float32)
        with col.add(f"ts_{n}").write(
            "raw", dtype="f4", shape=volume.shape, spacing_angstrom=(10.0,) * 3, recipe={}
        ) as writer:
            writer[:, :, :] = volume
            writer.attributes["statistics"] = {
                "mean": float(volume.mean()),
                "standard_deviation": float(volume.std()),
                "percentiles": dict.fromkeys(("0.1", "0.5", "1"), -30.0)
                | {"50": 0.0} | dict.fromkeys(("99", "99.5", "99.9"), 30.0),
            }  # fmt: skip


def _pipeline(folder: Path) -> Pipeline:
    segment = {"stage": "segment", "model": "model", "name": "unet", "tile": 16, "overlap": 4}
    objects = {"of": "probs/unet", "classes": ["membrane"], "name": "m", "threshold": 0.3}
    document = {
        "run": {"backoff_seconds": 0.1},
        "stage": [segment, {"stage": "objects", "labels": True, **objects}],
    }
    return read_pipeline(document, folder / "p.toml")


def _content(path: Path) -> dict[tuple[str, str], str]:
    products = ("probs/unet", "ramps/unet", "objects/m")
    return {
        (t.id, product): t.digest(product) for t in open_collection(path) for product in products
    }


@pytest.mark.slurm
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_job_killed_in_mid_volume_changes_no_byte(
    tmp_path: Path, require: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    if missing := missing_programs():
        require("slurm", f"{', '.join(missing)} not here: apt-get install slurm-wlm munge")
    pytest.importorskip("dask_jobqueue")
    make_model(tmp_path / "model", classes=CLASSES)
    for name in ("threads", "slurm"):
        _tomograms(tmp_path / name)
    stages = _pipeline(tmp_path)
    assert run_collection(tmp_path / "threads", stages).exit_code == 0
    (tmp_path / "jobs.toml").write_text(JOBS.format(folder=tmp_path))
    killed: list[str] = []

    def kill_a_job(event: RunEvent) -> None:
        """Once, when the first tiles are there."""
        if not killed and isinstance(event, Moved):
            killed.append(min(_jobs()))
            subprocess.run(["scancel", "--signal=KILL", "--full", killed[0]], check=True)

    with ExitStack() as stack:
        environ = stack.enter_context(slurm_cluster(tmp_path / "cluster"))
        for name in ("SLURM_CONF", "PATH"):
            monkeypatch.setenv(name, environ[name])
        monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
        monkeypatch.setattr(cluster_slurm, "_LOOK_MS", 1000)
        outcome = run_collection(
            tmp_path / "slurm",
            stages,
            executor=f"slurm:{tmp_path / 'jobs.toml'}",
            tell=kill_a_job,
        )
        assert outcome.exit_code == 0
        assert len(killed) == 1
        until = time.monotonic() + 120
        while _jobs() and time.monotonic() < until:
            time.sleep(0.2)
        assert not _jobs()
    assert _content(tmp_path / "slurm") == _content(tmp_path / "threads")
    assert {row.state for row in read_stages(tmp_path / "slurm")} == {"committed"}


def _jobs() -> set[str]:
    """Give the numbers of the jobs that wait or run."""
    command: list[Any] = ["squeue", "--noheader", "--format=%A", "--states=PENDING,RUNNING"]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
