"""Work in other processes: of this machine, or of a Dask cluster wherever it runs."""

from __future__ import annotations

import importlib
import logging
import signal
from collections import Counter
from concurrent.futures import CancelledError
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import uuid4

from dask.optimization import cull

from otzi.errors import ExecutorUnavailable, WorkersKilled
from otzi.execute import NOTHING, Gates

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path
    from types import ModuleType

    from dask._task_spec import GraphNode

    from otzi.execute import After

__all__ = [
    "CALLED_OFF",
    "WORKER_SETTINGS",
    "DaskExecutor",
    "connect",
    "connected",
    "dask_setup",
    "required",
]

Item = TypeVar("Item")
Result = TypeVar("Result")

WORKER_SETTINGS: dict[str, Any] = {
    # Results are small: a worker that fills its memory leaks, and is better ended than spilled.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": 0.8,
    "distributed.worker.memory.terminate": 0.95,
    # A worker that dies takes blameless tasks with it.
    "distributed.scheduler.allowed-failures": 10,
    # What the scheduler remembers of the past, which grows with every task until it is full.
    "distributed.admin.low-level-log-length": 100,
    "distributed.diagnostics.computations.max-history": 10,
    "distributed.nanny.pre-spawn-environ": {
        "MALLOC_TRIM_THRESHOLD_": 65536,
        "OMP_NUM_THREADS": 1,
        "MKL_NUM_THREADS": 1,
        "OPENBLAS_NUM_THREADS": 1,
        "NUMBA_NUM_THREADS": 1,
    },
    "distributed.worker.preload": ["otzi.clusters"],
}
"""Dask's settings for the clusters that are begun here."""

CALLED_OFF = "called off by otzi"
"""Why a future is cancelled whose message is meant for whoever waits."""

_CONNECTION_LOST = "scheduler-connection-lost"
"""Dask's word for why a future is cancelled."""

_CONNECT_SECONDS = 10
_LOOK_MS = 2000


def connect(kind: str, detail: str, workers: int) -> DaskExecutor:
    """Give the executor of a kind and detail, as `otzi.execute.checked_executor` gives them.

    Raises
    ------
    ExecutorUnavailable
        If it cannot be reached, or a package that it takes is missing.
    """
    if kind == "processes":
        return _processes(int(detail or workers))
    if kind == "tcp":
        return _scheduler(f"{kind}:{detail}")
    if kind == "slurm":
        from otzi.cluster_slurm import slurm_jobs

        return slurm_jobs(detail)
    from otzi.cluster_kubernetes import kubernetes_pods

    return kubernetes_pods(detail)


class DaskExecutor:
    """The workers of a Dask scheduler.

    No task asks for a resource or a certain worker: the scheduler would then send out all tasks at
    once, and no more hold back those that memory has no room for.
    """

    is_local = False

    def __init__(self, client: Any, cluster: Any = None) -> None:
        """Take a `distributed.Client`, and the cluster that is to be closed with it."""
        self._client = client
        self._cluster = cluster

    @property
    def address(self) -> str:
        """Where another process reaches the same workers: ``tcp://HOST:PORT``."""
        with _lost(self._client):
            return str(self._client.scheduler.address)

    @property
    def n_workers(self) -> int:
        """How many tasks run at the same time, now; 1 while there are no workers."""
        with _lost(self._client):
            return max(1, int(sum(self._client.nthreads().values())))

    def each(
        self,
        function: Callable[[Item], Result],
        items: Iterable[Item],
        *,
        ahead: int = 2,
        priority: int = 0,
    ) -> Iterator[tuple[Item, Result]]:
        """Yield each item and its result as they come; see `otzi.execute.Executor`."""
        name = f"{_name(function)}-{uuid4().hex}"
        source, running = enumerate(items), _Running(self._client)
        with running:
            while True:
                room = ahead * self.n_workers - len(running)
                for i, item in islice(source, max(0, room)):
                    future = self._client.submit(
                        function, item, key=f"{name}-{i}", pure=False, priority=priority
                    )
                    running.add(future, item)
                if not running:
                    return
                yield running.take()

    def graph(
        self,
        graph: Mapping[Any, GraphNode],
        keys: Sequence[Hashable],
        *,
        after: After = NOTHING,
        priority: int = 0,
    ) -> Iterator[tuple[Any, Any]]:
        """Yield the wanted keys of a Dask graph and their results; see `otzi.execute.Executor`.

        Tasks are sent when they may begin; what later ones need is held until these are sent.
        """
        from distributed import Future

        nodes, needs = cull(dict(graph), list(keys))
        token, wanted = uuid4().hex, set(keys)
        name = {key: _renamed(key, token) for key in nodes}
        n_unsent_users = Counter(other for needed in needs.values() for other in needed)
        held: dict[Any, Any] = {}
        gates = Gates(needs, after)

        def send(batch: list[Any]) -> None:
            needed = [other for key in batch for other in needs[key]]
            n_unsent_users.subtract(needed)
            kept = [key for key in batch if key in wanted or n_unsent_users[key]]
            tasks = {name[key]: nodes[key].substitute(name, key=name[key]) for key in batch}
            with _lost(self._client):
                futures = self._client.get(
                    tasks, [name[key] for key in kept], sync=False, priority=priority
                )
            for key, future in zip(kept, futures, strict=True):
                held[key] = future
                if key in wanted:  # one of its own, for it is let go when it is taken
                    running.add(Future(future.key, self._client), key)
            del futures
            for key in [*kept, *needed]:
                if not n_unsent_users[key]:
                    held.pop(key, None)

        with _Running(self._client) as running:
            send(gates.open())
            while running:
                key, result = running.take()
                yield key, result
                del result
                if freed := gates.taken(key):
                    send(freed)

    @contextmanager
    def reporting(self, file: Path) -> Iterator[None]:
        """Write Dask's own report of what runs within, an HTML page, unless the scheduler is gone.

        Raises
        ------
        ExecutorUnavailable
            If bokeh, which draws it, is not installed.
        """
        from distributed import performance_report

        required("bokeh", "report")
        with self._client.as_current():
            report: Any = performance_report(str(file))  # type: ignore[no-untyped-call]
            report.__enter__()
            try:
                yield
            finally:
                if self._client.status == "running":
                    report.__exit__(None, None, None)

    def close(self) -> None:
        """Let go of the scheduler, and end the workers if they were begun for this."""
        self._client.close()
        if self._cluster is not None:
            self._cluster.close()


class _Running:
    """Futures whose results nobody has taken; what is left of them at the end is called off."""

    def __init__(self, client: Any) -> None:
        from distributed import as_completed

        self._client = client
        self._items: dict[Any, Any] = {}
        self._done: Any = as_completed(loop=client.loop)  # type: ignore[no-untyped-call]

    def __enter__(self) -> _Running:
        return self

    def __exit__(self, *_: object) -> None:
        if self._items and self._client.status == "running":
            self._client.cancel(list(self._items))
        self._items.clear()

    def __len__(self) -> int:
        return len(self._items)

    def add(self, future: Any, item: Any) -> None:
        self._items[future] = item
        self._done.add(future)

    def take(self) -> tuple[Any, Any]:
        """Give the item and result of the next that is done; nothing here keeps them."""
        with _lost(self._client):
            future = next(self._done)
            item = self._items.pop(future)
            try:
                return item, future.result()
            finally:
                future.release()


def connected(cluster: Any, name: str) -> Any:
    """Give a `distributed.Client` of a cluster or an address; `name` is its name for people.

    Dask's own `compute` goes on to use threads: the client is not made its default.

    Raises
    ------
    ExecutorUnavailable
        If it does not answer.
    """
    from distributed import Client

    try:
        return Client(  # type: ignore[no-untyped-call]
            cluster, timeout=_CONNECT_SECONDS, set_as_default=False
        )
    except (OSError, TimeoutError) as error:
        raise ExecutorUnavailable(
            f"no Dask scheduler answers at {name} within {_CONNECT_SECONDS} s: check that it runs "
            "and that this machine reaches it"
        ) from error


def dask_setup(_worker: Any) -> None:
    """Have Ctrl-C, which a terminal sends to all, end the command and leave workers to it.

    Dask calls this in every worker, by the setting ``distributed.worker.preload``.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def required(module: str, extra: str) -> ModuleType:
    """Give a module of an optional package.

    Raises
    ------
    ExecutorUnavailable
        If it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ExecutorUnavailable(
            f"{module} cannot be imported ({error}): pip install 'otzi[{extra}]'"
        ) from error


def _processes(n_workers: int) -> DaskExecutor:
    import dask
    from distributed import LocalCluster
    from tornado.ioloop import PeriodicCallback

    with dask.config.set(WORKER_SETTINGS):
        cluster: Any = LocalCluster(  # type: ignore[no-untyped-call]
            n_workers=n_workers,
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            scheduler_kwargs={"dashboard": False},
            silence_logs=logging.CRITICAL,
        )
    # Dask gives a process up that takes long to come back after it was killed.
    upkeep = PeriodicCallback(lambda: cluster.scale(n_workers), _LOOK_MS)
    cluster.loop.add_callback(upkeep.start)
    return DaskExecutor(connected(cluster, "127.0.0.1"), cluster)


def _scheduler(address: str) -> DaskExecutor:
    client = connected(address, address)
    try:
        client.wait_for_workers(1, timeout=_CONNECT_SECONDS)
    except TimeoutError as error:
        client.close()
        raise ExecutorUnavailable(
            f"the scheduler at {address} has had no workers for {_CONNECT_SECONDS} s: start some "
            f"with `dask worker {address}`"
        ) from error
    return DaskExecutor(client)


@contextmanager
def _lost(client: Any) -> Iterator[None]:
    """Turn what Dask says of a scheduler that is gone, and of a task that kills, into our words."""
    from distributed import KilledWorker
    from distributed.comm.core import CommClosedError

    try:
        yield
    except KilledWorker as error:
        raise WorkersKilled(
            f"a task ended {error.allowed_failures + 1} workers, one after another: most likely "
            "they have too little memory; give them more, or run fewer at the same time"
        ) from error
    except (AttributeError, CancelledError, OSError) as error:
        reason = getattr(error, "reason", None)
        if reason == CALLED_OFF:
            raise ExecutorUnavailable(error.msg) from error  # type: ignore[union-attr]
        # A call may see the closed connection before the client itself does, which has no scheduler
        # while it looks for one, and runs again once there is another.
        is_lost = reason == _CONNECTION_LOST or isinstance(error, CommClosedError)
        if client.status == "running" and not is_lost:
            raise
        raise ExecutorUnavailable(
            "the Dask scheduler is gone: start it again and run the command once more, what is "
            "done already stays"
        ) from error


def _name(function: Callable[..., Any]) -> str:
    return str(getattr(getattr(function, "func", function), "__name__", "task"))


def _renamed(key: Any, token: str) -> Any:
    """Give a key that no other call has."""
    if isinstance(key, tuple):
        return f"{key[0]}-{token}", *key[1:]
    return f"{key}-{token}"
