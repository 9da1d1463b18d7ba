"""Workers as jobs of a real SLURM: one that is killed costs no result, and is replaced."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from otzi import cluster_slurm
from otzi.errors import ExecutorUnavailable
from otzi.execute import executor
from slurm_cluster import missing_programs, slurm_cluster
from tasks import nap, square

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.slurm

_SETTINGS = """
jobs = 2
cores = 1
memory = "1GB"
walltime = "00:15:00"
queue = "all"
directives = ["--nodes=1"]
prologue = ["{prologue}"]
local_folder = "{folder}/local"
log_folder = "{folder}"
"""


@pytest.fixture
def settings(
    tmp_path: Path,
    require: Callable[[str, str], None],
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> Iterator[Path]:
    """Give the file of ``slurm:FILE`` for a SLURM that runs; jobs are looked after every second."""
    if missing := missing_programs():
        require("slurm", f"{', '.join(missing)} not here: apt-get install slurm-wlm munge")
    pytest.importorskip("dask_jobqueue")
    file = tmp_path / "jobs.toml"
    prologue = getattr(request, "param", "export HERE=1")
    file.write_text(_SETTINGS.format(folder=tmp_path, prologue=prologue))
    with slurm_cluster(tmp_path / "slurm") as environ:
        for name in ("SLURM_CONF", "PATH"):
            monkeypatch.setenv(name, environ[name])
        monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
        monkeypatch.setattr(cluster_slurm, "_LOOK_MS", 1000)
        yield file


def _jobs() -> set[str]:
    """Give the numbers of the jobs that wait or run."""
    command = ["squeue", "--noheader", "--format=%A", "--states=PENDING,RUNNING"]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


def _reached(condition: Callable[[], bool], seconds: float = 60) -> bool:
    limit = time.monotonic() + seconds
    while not condition() and time.monotonic() < limit:
        time.sleep(0.1)
    return condition()


def test_a_killed_job_costs_no_result_and_is_replaced(settings: Path) -> None:
    with executor(f"slurm:{settings}") as there:
        assert _reached(lambda: there.n_workers == 2)
        first = _jobs()
        assert len(first) == 2
        naps = [0.1 + i / 1000 for i in range(60)]
        results = there.each(nap, naps)
        taken = [next(results) for _ in range(10)]
        lost = min(first)
        subprocess.run(["scancel", "--signal=KILL", "--full", lost], check=True)
        taken += results
        assert sorted(taken) == [(seconds, seconds) for seconds in naps]
        assert _reached(lambda: len(_jobs() - {lost}) == 2 and there.n_workers == 2)
        assert _jobs() - first
        assert dict(there.each(square, range(8))) == {x: x * x for x in range(8)}
    assert _reached(lambda: not _jobs())


@pytest.mark.parametrize("settings", ["exit 1"], indirect=True)
def test_jobs_that_never_work_end_the_wait(settings: Path) -> None:
    with (
        pytest.raises(
            ExecutorUnavailable, match=rf"ended, .* before they worked: .*{settings.parent}"
        ),
        executor(f"slurm:{settings}") as there,
    ):
        list(there.each(square, range(4)))
