"""Work in other processes: the results of threads, whatever happens to the workers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask
import pytest
from dask._task_spec import DataNode, Task, TaskRef

from otzi import clusters
from otzi.cluster_slurm import SlurmSettings
from otzi.clusters import DaskExecutor
from otzi.errors import (
    ConfigurationError,
    ExecutorUnavailable,
    NotFoundError,
    OutOfSpace,
    WorkersKilled,
)
from otzi.execute import executor
from otzi.settings import load_settings
from tasks import add, environment, full, kill_once, kill_worker, nap, square

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dask._task_spec import GraphNode

    from otzi.execute import Executor

_TESTS = Path(__file__).parent


@pytest.fixture(scope="module")
def processes() -> Iterator[Executor]:
    with executor("processes:2") as there:
        yield there


def _scheduler(there: Executor) -> Any:
    assert isinstance(there, DaskExecutor)
    return there._cluster.scheduler


def _settled(there: Executor) -> None:
    """Wait until the scheduler has heard what was let go."""
    tasks = _scheduler(there).tasks
    limit = time.monotonic() + 10
    while tasks and time.monotonic() < limit:
        time.sleep(0.01)
    assert not tasks


def test_results_are_those_of_threads(processes: Executor) -> None:
    assert (processes.n_workers, processes.is_local) == (2, False)
    assert sorted(processes.each(square, range(20))) == [(x, x * x) for x in range(20)]
    graph: dict[Any, GraphNode] = {"one": DataNode("one", 1)}
    for i in range(8):
        graph["square", i] = Task(("square", i), square, i)
        needs = (TaskRef(("square", j)) for j in range(i + 1))
        graph["sum", i] = Task(("sum", i), add, TaskRef("one"), *needs)
    keys = ["one", *(("sum", i) for i in range(8)), ("square", 3)]
    with executor("local", 2) as here:
        assert dict(processes.graph(graph, keys)) == dict(here.graph(graph, keys))
    assert dict(processes.graph(graph, keys)) == dict(processes.graph(graph, keys))
    _settled(processes)


def test_no_task_asks_for_a_certain_worker(processes: Executor) -> None:
    scheduler = _scheduler(processes)
    graph = {i: Task(i, nap, 0.01) for i in range(6)}
    seen = 0
    for results in (processes.each(nap, [0.01] * 6), processes.graph(graph, list(graph))):
        for _ in results:
            for state in list(scheduler.tasks.values()):
                seen += 1
                assert not state.resource_restrictions
                assert not state.worker_restrictions
                assert not state.host_restrictions
    assert seen


def test_workers_run_one_thread_each_and_never_spill(processes: Executor) -> None:
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
    found = [result for _, result in processes.each(environment, [names] * 6)]
    assert {pid for pid, _ in found} != {os.getpid()}
    assert all(values == ["1"] * 4 for _, values in found)
    workers = _scheduler(processes).workers.values()
    assert [state.nthreads for state in workers] == [1, 1]
    assert clusters.WORKER_SETTINGS["distributed.worker.memory.spill"] is False


def test_the_scheduler_forgets_what_is_past(processes: Executor) -> None:
    """What it keeps of tasks that are done is bounded, so that a long run does not fill it."""
    list(processes.each(square, range(200)))
    _settled(processes)
    scheduler = _scheduler(processes)
    assert len(scheduler.transition_log) <= 100
    assert len(scheduler.computations) <= 10
    assert all(len(topic.events) <= 100 for topic in scheduler._broker._topics.values())


def test_an_error_is_raised_as_it_was_and_calls_off_the_rest(processes: Executor) -> None:
    with pytest.raises(OutOfSpace, match="no space left while writing 3"):
        list(processes.each(full, range(100)))
    graph = {i: Task(i, full, i) for i in range(20)}
    with pytest.raises(OutOfSpace):
        list(processes.graph(graph, list(graph)))
    _settled(processes)


def test_what_is_not_taken_is_called_off(processes: Executor) -> None:
    results = processes.each(nap, [0.05] * 50)
    next(results)
    results.close()  # type: ignore[attr-defined]
    _settled(processes)


def test_a_killed_worker_costs_no_result(processes: Executor, tmp_path: Path) -> None:
    flag = tmp_path / "killed"
    work = [(x, flag) for x in range(20)]
    assert sorted(processes.each(kill_once, work)) == [((x, flag), x * x) for x in range(20)]
    assert flag.exists()


def test_a_task_that_kills_every_worker_ends_with_an_error(processes: Executor) -> None:
    with pytest.raises(WorkersKilled, match="ended 11 workers"):
        list(processes.each(kill_worker, [0]))
    assert sorted(processes.each(square, range(4))) == [(0, 0), (1, 1), (2, 4), (3, 9)]


def test_workers_that_take_long_to_come_back_are_not_given_up(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(clusters, "_LOOK_MS", 100)
    work = [(x, tmp_path / "killed") for x in range(6)]
    with (
        dask.config.set({"distributed.deploy.lost-worker-timeout": "1 ms"}),
        executor("processes:1") as there,
    ):
        assert len(list(there.each(kill_once, work))) == 6


@pytest.fixture(scope="module")
def environ() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(_TESTS), "OMP_NUM_THREADS": "1"}


@pytest.fixture
def scheduler(
    tmp_path: Path, environ: dict[str, str]
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Give the address and process of a Dask scheduler without workers."""
    file = tmp_path / "scheduler.json"
    command = ["-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0"]
    command += ["--no-dashboard", "--scheduler-file", str(file)]
    with _started(command, environ) as process:
        yield _address(file), process
        process.kill()


def _started(command: list[str], environ: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *command],
        env=environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def _address(file: Path) -> str:
    for _ in range(600):
        if file.exists() and file.read_text().endswith("}"):
            return str(json.loads(file.read_text())["address"])
        time.sleep(0.05)
    raise TimeoutError(file)


def test_a_running_scheduler_is_used_and_its_end_is_told(
    scheduler: tuple[str, subprocess.Popen[str]], environ: dict[str, str]
) -> None:
    address, process = scheduler
    command = ["-m", "distributed.cli.dask_worker", address, "--nthreads", "1", "--no-dashboard"]
    with _started([*command, "--no-nanny"], environ) as worker:
        with executor(address) as there:
            assert there.n_workers == 1
            assert sorted(there.each(square, range(6))) == [(x, x * x) for x in range(6)]
        assert worker.poll() is None
        with executor(address) as there:
            results = there.each(nap, [0.05] * 100)
            next(results)
            process.kill()
            with pytest.raises(ExecutorUnavailable, match="gone"):
                list(results)
        worker.kill()


def test_a_scheduler_without_workers_says_how_to_start_some(
    scheduler: tuple[str, subprocess.Popen[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clusters, "_CONNECT_SECONDS", 1)
    address, _ = scheduler
    with pytest.raises(ExecutorUnavailable, match=f"dask worker {address}"), executor(address):
        pass


def test_a_scheduler_that_is_not_there_ends_with_69(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clusters, "_CONNECT_SECONDS", 0.3)
    with (
        pytest.raises(ExecutorUnavailable, match=r"tcp://127\.0\.0\.1:1 within") as error,
        executor("tcp://127.0.0.1:1"),
    ):
        pass
    assert error.value.exit_code == 69


_INTERRUPTED = """
    from otzi.execute import executor
    from tasks import nap, environment

    if __name__ == "__main__":
        with executor("processes:2") as there:
            pids = {pid for _, (pid, _) in there.each(environment, [()] * 4)}
            print(*pids, flush=True)
            list(there.each(nap, [0.1] * 1000))
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_workers_end_with_the_command(
    how: signal.Signals, tmp_path: Path, environ: dict[str, str]
) -> None:
    script = tmp_path / "command.py"
    script.write_text(textwrap.dedent(_INTERRUPTED))
    with subprocess.Popen(
        [sys.executable, script],
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
    ) as command:
        assert command.stdout is not None
        pids = [int(word) for word in command.stdout.readline().split()]
        assert pids
        if how == signal.SIGINT:  # as a terminal does: to the workers, too
            os.killpg(command.pid, how)
        else:
            command.send_signal(how)
        _, said = command.communicate(timeout=30)
    assert said.count("Traceback") == (how == signal.SIGINT)
    limit = time.monotonic() + 20
    while any(map(_is_alive, pids)) and time.monotonic() < limit:
        time.sleep(0.05)
    assert not any(map(_is_alive, pids))


def _is_alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False


def _slurm_file(folder: Path, **changed: str) -> Path:
    lines = {"jobs": "2", "cores": "4", "memory": '"16GB"', "walltime": '"08:00:00"'} | changed
    file = folder / "slurm.toml"
    file.write_text("".join(f"{key} = {value}\n" for key, value in lines.items()))
    return file


def test_slurm_jobs_end_before_their_time(tmp_path: Path) -> None:
    settings = load_settings(SlurmSettings, _slurm_file(tmp_path))
    assert settings.lifetime_seconds == 8 * 3600 - 300


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"walltime": '"00:05:00"'}, "too short"),
        ({"walltime": '"1 day"'}, "HH:MM:SS"),
        ({"jobs": "0"}, "1 or more"),
        ({"que": '"gpu"'}, "did you mean queue"),
    ],
)
def test_slurm_files_say_what_is_wrong(changed: dict[str, str], match: str, tmp_path: Path) -> None:
    with (
        pytest.raises(ConfigurationError, match=match),
        executor(f"slurm:{_slurm_file(tmp_path, **changed)}"),
    ):
        pass


def test_slurm_without_slurm_ends_with_69(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("dask_jobqueue")
    monkeypatch.setenv("PATH", str(tmp_path))
    with (
        pytest.raises(ExecutorUnavailable, match="sbatch"),
        executor(f"slurm:{_slurm_file(tmp_path)}"),
    ):
        pass


@pytest.mark.parametrize("kind", ["slurm", "k8s"])
def test_a_missing_cluster_file_is_named(kind: str, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="nothing"), executor(f"{kind}:{tmp_path}/nothing"):
        pass


def test_kubernetes_takes_nothing_but_a_dask_cluster(tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text("kind: Pod\n")
    with pytest.raises(ConfigurationError, match="no DaskCluster"), executor(f"k8s:{file}"):
        pass


def test_without_kubernetes_it_ends_with_69(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("dask_kubernetes")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "nothing"))
    file = tmp_path / "cluster.yaml"
    file.write_text("kind: DaskCluster\nmetadata: {name: otzi}\nspec: {}\n")
    with (
        pytest.raises(ExecutorUnavailable, match=r"take the cluster of .*kubectl") as error,
        executor(f"k8s:{file}"),
    ):
        pass
    assert error.value.exit_code == 69
