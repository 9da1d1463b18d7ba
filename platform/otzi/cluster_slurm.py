"""Workers as SLURM jobs, as many as wanted, however many are lost on the way."""

from __future__ import annotations

import asyncio
import shlex
import shutil
from asyncio.subprocess import DEVNULL, PIPE
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask
from tornado.ioloop import PeriodicCallback

from otzi.clusters import CALLED_OFF, WORKER_SETTINGS, DaskExecutor, connected, required
from otzi.errors import ExecutorUnavailable
from otzi.settings import STRICT, load_settings

__all__ = ["SlurmSettings", "slurm_jobs"]

_SPARE_SECONDS = 5 * 60
_STAGGER_SECONDS = 4 * 60
_LOOK_MS = 15_000
_MOST_IN_VAIN = 5


@dataclass(frozen=True, kw_only=True)
class SlurmSettings:
    """Jobs of one worker each, as the TOML file of ``slurm:FILE`` says."""

    __pydantic_config__ = STRICT

    jobs: int
    """How many; a lost one is replaced."""
    cores: int
    """Of a job: as many tasks run in it at the same time."""
    memory: str
    """Of a job, such as ``"32GB"``."""
    walltime: str
    """``"HH:MM:SS"``: a job ends by itself 5 minutes before, and its place is taken by another."""
    queue: str | None = None
    """Partition."""
    account: str | None = None
    directives: tuple[str, ...] = ()
    """More options of sbatch, such as ``"--gres=gpu:1"``."""
    prologue: tuple[str, ...] = ()
    """Lines of shell before the worker starts, such as ``"module load cuda"``."""
    interface: str | None = None
    """Network interface over which workers reach this machine, such as ``"ib0"``."""
    local_folder: Path | None = None
    """On the nodes, for what workers put down."""
    log_folder: Path | None = None
    """For what the jobs say; the folder of the command where left out."""

    def __post_init__(self) -> None:
        """Refuse jobs that end before they work."""
        if self.jobs < 1 or self.cores < 1:
            raise ValueError(f"jobs = {self.jobs} and cores = {self.cores}: both must be 1 or more")
        if self.lifetime_seconds <= _STAGGER_SECONDS:
            raise ValueError(f"walltime {self.walltime} is too short: ask for 10 minutes or more")

    @property
    def lifetime_seconds(self) -> int:
        """After how long a worker stops taking tasks."""
        parts = self.walltime.split(":")
        if len(parts) != 3 or not all(part.isdecimal() for part in parts):
            raise ValueError(f"walltime {self.walltime!r}: write it as HH:MM:SS")
        hours, minutes, seconds = map(int, parts)
        return 3600 * hours + 60 * minutes + seconds - _SPARE_SECONDS


def slurm_jobs(file: str) -> DaskExecutor:
    """Give the executor whose workers are SLURM jobs: at once, though jobs come as they are let.

    Raises
    ------
    NotFoundError
        If there is no such file.
    ConfigurationError
        If it does not say what jobs to submit.
    ExecutorUnavailable
        If ``dask-jobqueue`` or SLURM is not here.
    """
    settings = load_settings(SlurmSettings, Path(file))
    jobqueue = required("dask_jobqueue", "slurm")
    if shutil.which("sbatch") is None:
        raise ExecutorUnavailable("there is no sbatch here: run this where jobs are submitted")
    with dask.config.set(WORKER_SETTINGS):
        cluster = jobqueue.SLURMCluster(**_arguments(settings))
    cluster.scale(jobs=settings.jobs)
    client = connected(cluster, f"slurm:{file}")
    upkeep = _Upkeep(cluster, client, settings)
    cluster.loop.add_callback(PeriodicCallback(upkeep, _LOOK_MS).start)
    return DaskExecutor(client, cluster)


def _arguments(settings: SlurmSettings) -> dict[str, Any]:
    return {
        "cores": settings.cores,
        "processes": 1,
        "memory": settings.memory,
        "walltime": settings.walltime,
        "queue": settings.queue,
        "account": settings.account,
        "interface": settings.interface,
        "local_directory": settings.local_folder and str(settings.local_folder),
        "log_directory": settings.log_folder and str(settings.log_folder),
        "job_extra_directives": list(settings.directives),
        "job_script_prologue": [*map(_exported, WORKER_SETTINGS), *settings.prologue],
        "job_name": "otzi",
        "worker_extra_args": [
            "--lifetime",
            f"{settings.lifetime_seconds}s",
            "--lifetime-stagger",
            f"{_STAGGER_SECONDS}s",
        ],
        "scheduler_options": {"dashboard_address": "127.0.0.1:0", "dashboard": False},
    }


def _exported(setting: str) -> str:
    """Give the line of shell that tells a worker of one of Dask's settings."""
    name = setting.upper().replace(".", "__").replace("-", "_")
    return f"export DASK_{name}={shlex.quote(repr(WORKER_SETTINGS[setting]))}"


class _Upkeep:
    """Has SLURM run as many jobs as wanted: Dask does not see a job that ends before it works.

    Where jobs end again and again and none ever works, all that waits for them is called off.
    """

    def __init__(self, cluster: Any, client: Any, settings: SlurmSettings) -> None:
        self._cluster = cluster
        self._client = client
        self._settings = settings
        self._n_in_vain = 0

    async def __call__(self) -> None:
        from distributed import Status

        submitted = dict(self._cluster.workers)
        queue = await asyncio.create_subprocess_exec(
            "squeue", "--me", "--noheader", "--format=%A", stdout=PIPE, stderr=DEVNULL
        )
        listed, _ = await queue.communicate()
        if queue.returncode or self._cluster.status != Status.running:
            return  # SLURM does not answer now, or all of it is being closed
        known = set(listed.decode().split())
        lost = [name for name, job in submitted.items() if job.job_id not in known]
        if self._cluster.scheduler.workers:
            self._n_in_vain = 0
        elif lost:
            self._n_in_vain += len(lost)
        if self._n_in_vain >= _MOST_IN_VAIN * self._settings.jobs:
            self._give_up()
            return
        for name in lost:
            self._cluster.workers.pop(name, None)
            submitted[name].status = Status.closed  # or Dask would look for it at the end
        self._cluster.scale(jobs=self._settings.jobs)

    def _give_up(self) -> None:
        said = self._settings.log_folder or "the folder in which the command was called"
        message = (
            f"{self._n_in_vain} SLURM jobs ended, one after another, before they worked: read "
            f"what they say in {said}"
        )
        for state in list(self._client.futures.values()):
            state.cancel(reason=CALLED_OFF, msg=message)
