"""Where work runs: on threads of this process, in processes beside it, or on a cluster.

Work is either a function of each of many items, or a Dask graph. Whatever the executor, results
come to whoever iterates: that process owns the ledger and writes the products. What is sent
elsewhere has to pickle: module-level functions and frozen dataclasses.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from graphlib import TopologicalSorter
from heapq import heapify, heappop, heappush
from itertools import islice
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from otzi.errors import UsageError
from otzi.memory import usable_cores

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Sequence

    from dask._task_spec import GraphNode

__all__ = ["NOTHING", "After", "Executor", "Gates", "Threads", "checked_executor", "executor"]

Item = TypeVar("Item")
Result = TypeVar("Result")

After = Mapping[Any, "Collection[Any]"]
"""By task, the keys whose results are taken before it begins."""
NOTHING: After = MappingProxyType({})

_AHEAD = 2
_CHOICES = "local, processes, processes:N, tcp://HOST:PORT, slurm:FILE or k8s:FILE"


class Executor(Protocol):
    """Where work runs."""

    @property
    def n_workers(self) -> int:
        """How many tasks run at the same time, now."""
        ...

    @property
    def is_local(self) -> bool:
        """Whether work runs in this process, on threads."""
        ...

    def each(
        self,
        function: Callable[[Item], Result],
        items: Iterable[Item],
        *,
        ahead: int = _AHEAD,
        priority: int = 0,
    ) -> Iterator[tuple[Item, Result]]:
        """Yield each item and its result as they come, in any order.

        An exception stops what has not begun, and is raised.

        Parameters
        ----------
        function
            Of one item.
        items
            Taken one by one, as there is room for them.
        ahead
            As many items as this for each worker are begun and not yet yielded, at most.
        priority
            Of several calls at the same time, that of the largest goes first, where the executor
            is a cluster.
        """
        ...

    def graph(
        self,
        graph: Mapping[Any, GraphNode],
        keys: Sequence[Hashable],
        *,
        after: After = NOTHING,
        priority: int = 0,
    ) -> Iterator[tuple[Any, Any]]:
        """Yield the wanted keys of a Dask graph and their results as they are ready.

        A result is let go once no task needs it and it is taken. An exception is raised as in
        `each`.

        Parameters
        ----------
        graph
            Tasks by key.
        keys
            Those whose results are wanted.
        after
            By task, the wanted keys whose results are taken, and done with, before it begins: what
            holds back work whose results nobody has room for. A dependency would do the same, but
            a worker that is lost would then have to do again all that ever was before.
        priority
            As in `each`.
        """
        ...

    def close(self) -> None:
        """End the workers; tasks that have not begun never do."""
        ...


@contextmanager
def executor(where: str = "local", workers: int | None = None) -> Iterator[Executor]:
    """Give what runs work, for as long as the context lasts.

    Parameters
    ----------
    where
        ``"local"``: threads of this process; ``"processes"`` or ``"processes:N"``: processes of
        this machine; ``"tcp://HOST:PORT"``: a running Dask scheduler; ``"slurm:FILE"``: jobs as a
        TOML file says; ``"k8s:FILE"``: a Dask cluster as a YAML file of the Dask operator says.
    workers
        Threads or processes, where `where` does not say; one for each core if None.

    Raises
    ------
    UsageError
        If `where` is none of these.
    ExecutorUnavailable
        If it cannot be reached, or a package that it takes is missing.
    """
    kind, detail = checked_executor(where)
    running: Executor
    if kind == "local":
        running = Threads(workers or usable_cores())
    else:
        from otzi.clusters import connect

        running = connect(kind, detail, workers or usable_cores())
    try:
        yield running
    finally:
        running.close()


def checked_executor(where: str) -> tuple[str, str]:
    """Give the kind of an executor and what follows it, without starting anything.

    Raises
    ------
    UsageError
        If there is no such executor.
    """
    kind, _, detail = where.partition(":")
    given = {
        "local": not detail,
        "processes": where == kind or (detail.isdecimal() and int(detail) > 0),
        "tcp": detail.startswith("//") and len(detail) > 2,
        "slurm": bool(detail),
        "k8s": bool(detail),
    }
    if not given.get(kind, False):
        raise UsageError(f"executor {where!r} is none of {_CHOICES}")
    return kind, detail


class Gates:
    """Which tasks of a graph may begin: those that come after no result that is yet to be taken.

    A task that needs a held one is held, too.

    Parameters
    ----------
    needs
        By task, those that it needs, in any order.
    after
        By task, the keys whose results are taken before it begins.
    """

    def __init__(self, needs: Mapping[Any, Collection[Any]], after: After) -> None:
        self._closed: dict[Any, set[Any]] = {}
        self._held: dict[Any, list[Any]] = {}
        for key in TopologicalSorter(needs).static_order():
            closed = set(after.get(key, ()))
            closed.update(*(self._closed[other] for other in needs[key]))
            self._closed[key] = closed
            for gate in closed:
                self._held.setdefault(gate, []).append(key)

    def open(self) -> list[Any]:
        """Give the tasks that may begin now, in the order of needs."""
        return [key for key, closed in self._closed.items() if not closed]

    def is_open(self, key: Any) -> bool:
        """Tell whether a task may begin, as far as results are taken."""
        return not self._closed[key]

    def taken(self, gate: Any) -> list[Any]:
        """Give the tasks that may begin now that a result is taken, in the order of needs."""
        freed = []
        for key in self._held.pop(gate, ()):
            self._closed[key].discard(gate)
            if not self._closed[key]:
                freed.append(key)
        return freed


class Threads:
    """Threads of this process, which all calls share."""

    is_local = True

    def __init__(self, n_workers: int) -> None:
        self.n_workers = n_workers
        self._pool = ThreadPoolExecutor(n_workers)

    def each(
        self,
        function: Callable[[Item], Result],
        items: Iterable[Item],
        *,
        ahead: int = _AHEAD,
        priority: int = 0,
    ) -> Iterator[tuple[Item, Result]]:
        """Yield each item and its result as they come; see `Executor`."""
        source = iter(items)
        running: dict[Future[Result], Item] = {}
        try:
            while True:
                for item in islice(source, ahead * self.n_workers - len(running)):
                    running[self._pool.submit(function, item)] = item
                if not running:
                    return
                yield _take(running)
        finally:
            _abandon(running)

    def graph(
        self,
        graph: Mapping[Any, GraphNode],
        keys: Sequence[Hashable],
        *,
        after: After = NOTHING,
        priority: int = 0,
    ) -> Iterator[tuple[Any, Any]]:
        """Yield the wanted keys of a Dask graph and their results; see `Executor`."""
        from dask.optimization import cull
        from dask.order import order

        nodes, needs = cull(dict(graph), list(keys))
        places = order(nodes, {key: set(needed) for key, needed in needs.items()})
        # What needs nothing brings more into memory: it comes after all that can be done without.
        rank = {key: (not needs[key], place) for key, place in places.items()}
        wanted = set(keys)
        missing = {key: set(needed) for key, needed in needs.items()}
        gates = Gates(dict.fromkeys(nodes, ()), after)
        users: dict[Any, set[Any]] = {key: set() for key in nodes}
        for key, needed in needs.items():
            for other in needed:
                users[other].add(key)
        ready = [(rank[key], key) for key in gates.open() if not missing[key]]
        heapify(ready)
        values: dict[Any, Any] = {}
        running: dict[Future[Any], Any] = {}
        try:
            while ready or running:
                while ready and len(running) < _AHEAD * self.n_workers:
                    _, key = heappop(ready)
                    inputs = {other: values[other] for other in needs[key]}
                    running[self._pool.submit(nodes[key], inputs)] = key
                    del inputs
                key, value = _take(running)
                for other in needs[key]:
                    users[other].discard(key)
                    if not users[other]:
                        del values[other]
                if users[key]:
                    values[key] = value
                for user in users[key]:
                    missing[user].discard(key)
                    if not missing[user] and gates.is_open(user):
                        heappush(ready, (rank[user], user))
                if key in wanted:
                    yield key, value
                    for held in gates.taken(key):
                        if not missing[held]:
                            heappush(ready, (rank[held], held))
                del value
        finally:
            _abandon(running)

    def close(self) -> None:
        """End the threads once they have done what they do now."""
        self._pool.shutdown(cancel_futures=True)


def _take(running: dict[Future[Result], Item]) -> tuple[Item, Result]:
    """Give the first that is done, of several the one begun first; nothing here keeps it."""
    wait(running, return_when=FIRST_COMPLETED)
    future = next(future for future in running if future.done())
    return running.pop(future), future.result()


def _abandon(running: Iterable[Future[Any]]) -> None:
    """Have nothing run any more, so that its files may be removed."""
    for future in running:
        future.cancel()
    wait(running)
