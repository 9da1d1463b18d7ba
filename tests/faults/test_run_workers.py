"""Workers that die, that hang, and a scheduler that is gone: a run notices, and loses nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import pytest

from invariants import broken
from otzi.collection import open_collection
from otzi.errors import ExecutorUnavailable
from otzi.events import Event, Warned
from otzi.ledger.stages import StageRow, read_stages
from otzi_pipelines.run.coordinator import run_collection
from run_stages import Times, pipeline

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from otzi.tomogram import Tomogram
    from otzi_pipelines.run.stages import Work
    from otzi_pipelines.run.volume import Volume

pytestmark = [
    pytest.mark.faults,
    # A worker that is killed leaves its sockets to the collector, wherever that comes by.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

N_TASKS = 12


def twice(value: int) -> tuple[int, int]:
    time.sleep(0.05)
    return 2 * value, os.getpid()


@dataclass(frozen=True)
class Spread(Times):
    """``labels/NAME``: made of the results of tasks elsewhere."""

    once: Callable[[int], None] = lambda pid: None
    """Called once, with the process id of the worker whose result came first."""
    pids: list[int] = field(default_factory=list)

    def run(self, volume: Volume, work: Work) -> bool:
        assert work.executor is not None
        total = 0
        for _, (value, pid) in work.executor.each(twice, range(N_TASKS)):
            work.check()
            total += value
            self.pids.append(pid)
            if len(self.pids) == 1:
                self.once(pid)
        assert total == N_TASKS * (N_TASKS - 1)
        return super().run(volume, work)


def _volume(n: int) -> NDArray[np.uint8]:
    """Give zeros and ones, which are classes, doubled or not."""
    return (np.arange(n, n + 120, dtype=np.uint8) % 2).reshape(4, 5, 6)


@pytest.fixture
def path(add_tomogram: Callable[..., Tomogram]) -> Path:
    for n in range(3):
        tomo = add_tomogram(_volume(n), f"ts_{n}")
    return tomo.collection.workspace


def _rows(path: Path) -> list[StageRow]:
    for n, tomo in enumerate(open_collection(path)):
        np.testing.assert_array_equal(tomo.array("labels/twice")[:], _volume(n) * 2)
    return read_stages(path)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_worker_that_dies_costs_no_attempt(path: Path, number: signal.Signals) -> None:
    stage = Spread("twice", once=lambda pid: os.kill(pid, number))
    outcome = run_collection(path, pipeline(stage, workers=2), executor="processes:2")
    assert outcome.exit_code == 0
    assert len(set(stage.pids)) > 2
    assert [(row.state, row.attempt) for row in _rows(path)] == [("committed", 1)] * 3
    assert broken(path, is_over=True) == []


def test_workers_that_hang_are_replaced(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("otzi_pipelines.run.watchdog._TIMES_THE_USUAL", 0)
    stopped: list[int] = []

    def stop(pid: int) -> None:
        stopped.append(pid)
        os.kill(pid, signal.SIGSTOP)

    said: list[Event] = []
    stage = Spread("twice", once=stop)
    stages = pipeline(stage, workers=1, volumes=1, stall_seconds=15)
    outcome = run_collection(path, stages, executor="processes:1", listen=said.append)
    assert outcome.exit_code == 0
    assert len(stopped) == 1
    assert any(isinstance(event, Warned) and "too long" in event.message for event in said)
    attempts = {row.tomogram: row.attempt for row in _rows(path)}
    assert broken(path, is_over=True) == []
    assert attempts["ts_0"] > 1
    with pytest.raises(ProcessLookupError):
        os.kill(stopped[0], 0)


def test_dask_reports_what_ran(path: Path, tmp_path: Path) -> None:
    pytest.importorskip("bokeh")
    file = tmp_path / "report.html"
    stages = pipeline(Spread("twice"), workers=1)
    assert run_collection(path, stages, executor="processes:1", report=file).exit_code == 0
    assert "twice" in file.read_text()
    assert [row.state for row in _rows(path)] == ["committed"] * 3


@contextmanager
def _scheduler(
    folder: Path,
) -> Iterator[tuple[str, subprocess.Popen[Any], list[subprocess.Popen[Any]]]]:
    """Run a scheduler and two workers of their own; give its address, its process, and theirs.

    Of a worker that is its nanny's process, which begins and watches the one that works.
    """
    file = folder / "scheduler.json"
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    dask = [sys.executable, "-m", "dask"]
    words = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(file)]
    here = Path(__file__).parent
    quiet["env"] = os.environ | {"PYTHONPATH": f"{here}:{here.parent}"}
    scheduler = subprocess.Popen([*dask, "scheduler", *words], **quiet)
    words = ["--scheduler-file", str(file), "--nthreads", "1", "--no-dashboard"]
    words += ["--local-directory", str(folder)]
    nannies = [subprocess.Popen([*dask, "worker", *words], **quiet) for _ in range(2)]
    try:
        until = time.monotonic() + 30
        while not file.exists() or not file.read_text():
            assert time.monotonic() < until
            time.sleep(0.05)
        yield json.loads(file.read_text())["address"], scheduler, nannies
    finally:
        for process in (*nannies, scheduler):
            process.terminate()
            process.wait(20)


def test_a_scheduler_that_is_gone_ends_the_run_and_the_next_one_goes_on(
    path: Path, tmp_path: Path
) -> None:
    with _scheduler(tmp_path) as (address, scheduler, _):
        stage = Spread("twice", once=lambda pid: scheduler.kill())
        with pytest.raises(ExecutorUnavailable) as gone:
            run_collection(path, pipeline(stage, volumes=1), executor=address)
    assert gone.value.exit_code == 69
    assert {row.state for row in read_stages(path)} <= {"ready", "failed"}
    assert broken(path) == []
    assert run_collection(path, pipeline(Times("twice"))).exit_code == 0
    assert [row.state for row in _rows(path)] == ["committed"] * 3


def test_a_nanny_that_is_killed_costs_no_attempt(path: Path, tmp_path: Path) -> None:
    """Its worker goes with it; what it worked on is done by the other."""
    with _scheduler(tmp_path) as (address, _, nannies):

        def kill(pid: int) -> None:
            parents = [process.pid for process in psutil.Process(pid).parents()]
            (nanny,) = [nanny for nanny in nannies if nanny.pid in parents]
            nanny.kill()

        stage = Spread("twice", once=kill)
        assert run_collection(path, pipeline(stage, volumes=1), executor=address).exit_code == 0
    assert [(row.state, row.attempt) for row in _rows(path)] == [("committed", 1)] * 3
