"""A real SLURM of one node on this machine: its own folder, ports and key, no system service."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["missing_programs", "slurm_cluster"]

_PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel")
_PATH = f"{os.environ['PATH']}:/usr/sbin"


def missing_programs() -> list[str]:
    """Give what has to be installed first: ``apt-get install slurm-wlm munge``."""
    return [name for name in _PROGRAMS if shutil.which(name, path=_PATH) is None]


@contextmanager
def slurm_cluster(folder: Path, n_cores: int = 2) -> Iterator[dict[str, str]]:
    """Run munged, slurmctld and slurmd, and give the environment in which sbatch finds them."""
    for name in ("state", "spool", "munge"):
        (folder / name).mkdir(parents=True, mode=0o700)
    key, munge_socket = folder / "munge" / "key", folder / "munge" / "socket"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    configuration = folder / "slurm.conf"
    configuration.write_text(_configuration(folder, munge_socket, n_cores))
    environ = os.environ | {"SLURM_CONF": str(configuration), "PATH": _PATH}
    munged = ["munged", "--foreground", "--force", f"--key-file={key}", f"--socket={munge_socket}"]
    munged += [f"--{what}-file={folder}/munge/{what}" for what in ("log", "pid", "seed")]
    commands = [munged, ["slurmctld", "-D", "-i"], ["slurmd", "-D", "-N", "node"]]
    with ExitStack() as stack, (folder / "output").open("wb") as output:
        for command in commands:
            process = subprocess.Popen(command, env=environ, stdout=output, stderr=output)
            stack.callback(_end, process)
            if command is munged:
                _wait_for(munge_socket.exists, folder)
        _wait_for(lambda: _node_is_idle(environ), folder)
        try:
            yield environ
        finally:
            user = ["scancel", "--full", f"--user={os.getuid()}", "--signal=KILL"]
            subprocess.run(user, env=environ, check=False, capture_output=True)


def _configuration(folder: Path, munge_socket: Path, n_cores: int) -> str:
    host = socket.gethostname()
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(2)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        controller, node = (each.getsockname()[1] for each in sockets)
    user = Path("/proc/self").owner()
    lines = f"""
        ClusterName=test
        SlurmctldHost={host}(127.0.0.1)
        SlurmctldPort={controller}
        SlurmUser={user}
        SlurmdUser={user}
        AuthType=auth/munge
        AuthInfo=socket={munge_socket}
        CryptoType=crypto/munge
        MpiDefault=none
        ProctrackType=proctrack/linuxproc
        TaskPlugin=task/none
        SelectType=select/cons_tres
        SelectTypeParameters=CR_Core
        ReturnToService=2
        SlurmdParameters=config_overrides
        SchedulerParameters=sched_interval=1,bf_interval=1
        MinJobAge=2
        KillWait=1
        StateSaveLocation={folder}/state
        SlurmdSpoolDir={folder}/spool
        SlurmctldPidFile={folder}/slurmctld.pid
        SlurmdPidFile={folder}/slurmd.pid
        SlurmctldLogFile={folder}/slurmctld.log
        SlurmdLogFile={folder}/slurmd.log
        NodeName=DEFAULT CPUs={n_cores} RealMemory=99999
        NodeName=node NodeHostname={host} NodeAddr=127.0.0.1 Port={node}
        PartitionName=all Nodes=node Default=YES MaxTime=INFINITE State=UP
    """
    return "\n".join(line.strip() for line in lines.splitlines())


def _node_is_idle(environ: dict[str, str]) -> bool:
    run = subprocess.run(
        ["sinfo", "--noheader", "--format=%t"], env=environ, capture_output=True, text=True
    )
    return run.stdout.strip() == "idle"


def _wait_for(is_ready: object, folder: Path, seconds: float = 60) -> None:
    limit = time.monotonic() + seconds
    while not is_ready():  # type: ignore[operator]
        if time.monotonic() > limit:
            said = "".join(p.read_text() for p in folder.glob("*.log"))
            raise TimeoutError(f"SLURM does not start: {(folder / 'output').read_text()}{said}")
        time.sleep(0.05)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
