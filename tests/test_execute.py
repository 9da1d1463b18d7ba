"""Threads: each item once, no more at the same time than said, nothing after an error."""

from __future__ import annotations

import gc
import sys
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any

import dask
import numpy as np
import pytest
from dask._task_spec import DataNode, Task, TaskRef
from hypothesis import given
from hypothesis import strategies as st

from otzi.errors import ExecutorUnavailable, UsageError
from otzi.execute import Threads, checked_executor, executor
from tasks import add, square

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from dask._task_spec import GraphNode


@given(st.lists(st.integers(-9, 9), max_size=30), st.integers(1, 4), st.integers(1, 3))
def test_each_item_comes_once_with_its_result(items: list[int], workers: int, ahead: int) -> None:
    with executor("local", workers) as here:
        taken = list(here.each(square, items, ahead=ahead))
    assert sorted(taken) == sorted((x, x * x) for x in items)


@given(st.data())
def test_a_graph_gives_what_daskes_own_scheduler_gives(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 25))
    graph: dict[Any, GraphNode] = {("node", 0): DataNode(("node", 0), 1)}
    for i in range(1, n):
        needs = data.draw(st.sets(st.integers(0, i - 1), max_size=4))
        graph["node", i] = Task(("node", i), add, i, *(TaskRef(("node", j)) for j in sorted(needs)))
    keys = [("node", i) for i in data.draw(st.sets(st.integers(0, n - 1), min_size=1))]
    with executor("local", data.draw(st.integers(1, 3))) as here:
        taken = list(here.graph(graph, keys))
    assert len(taken) == len(keys)
    assert dict(taken) == dict(zip(keys, dask.get(graph, keys), strict=True))


@pytest.mark.parametrize("ahead", [1, 2, 3])
def test_no_more_items_are_in_flight_than_said(ahead: int) -> None:
    drawn, taken = 0, 0

    def items() -> Iterator[int]:
        nonlocal drawn
        for i in range(30):
            drawn += 1
            assert drawn - taken <= 2 * ahead
            yield i

    with executor("local", 2) as here:
        for _ in here.each(square, items(), ahead=ahead):
            taken += 1
    assert (drawn, taken) == (30, 30)


def test_no_more_threads_work_than_said_whoever_calls() -> None:
    busy, most = 0, 0
    lock = threading.Lock()

    def one(_: int) -> None:
        nonlocal busy, most
        with lock:
            busy += 1
            most = max(most, busy)
        time.sleep(0.002)
        with lock:
            busy -= 1

    with executor("local", 2) as here:
        calls = [threading.Thread(target=lambda: list(here.each(one, range(10)))) for _ in range(3)]
        for call in calls:
            call.start()
        for call in calls:
            call.join()
    assert most == 2


def test_an_error_is_raised_and_nothing_begins_after_it() -> None:
    begun: list[int] = []

    def one(x: int) -> int:
        begun.append(x)
        if x == 2:
            raise ValueError("two")
        return x

    with executor("local", 1) as here, pytest.raises(ValueError, match="two"):
        list(here.each(one, range(100)))
    assert len(begun) < 6


def test_nothing_runs_once_whoever_takes_results_has_stopped() -> None:
    running = threading.Event()
    ended = threading.Event()

    def one(x: int) -> int:
        if x:
            running.set()
            time.sleep(0.05)
            ended.set()
        return x

    with executor("local", 2) as here:
        results = here.each(one, range(10))
        assert next(results) == (0, 0)
        assert running.wait(5)
        results.close()  # type: ignore[attr-defined]
        assert ended.is_set()


def _array(_: int, *__: Any) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return np.zeros(10)


def test_results_are_let_go_once_they_are_taken() -> None:
    chain: dict[Any, GraphNode] = {0: Task(0, _array, 0)}
    chain |= {i: Task(i, _array, i, TaskRef(i - 1)) for i in range(1, 12)}
    with executor("local", 1) as here:
        for taken in (here.each(_array, range(12)), here.graph(chain, list(chain))):
            seen: list[weakref.ref[Any]] = []
            for _, result in taken:
                seen.append(weakref.ref(result))
                del result
                gc.collect()
                assert sum(ref() is not None for ref in seen) <= 2


def test_what_is_named_is_what_runs() -> None:
    assert checked_executor("local") == ("local", "")
    assert checked_executor("processes:3") == ("processes", "3")
    assert checked_executor("tcp://host:8786") == ("tcp", "//host:8786")
    assert checked_executor("slurm:a/b.toml") == ("slurm", "a/b.toml")
    with executor("local", 3) as here:
        assert isinstance(here, Threads)
        assert (here.n_workers, here.is_local) == (3, True)


@pytest.mark.parametrize(
    "where",
    ["", "threads", "local:2", "processes:", "processes:0", "processes:x", "tcp:", "slurm:"],
)
def test_any_other_name_is_refused_with_the_choices(where: str) -> None:
    with pytest.raises(UsageError, match=r"none of local, processes.*k8s:FILE"), executor(where):
        pass


@pytest.mark.parametrize(
    ("where", "module", "extra"),
    [("slurm", "dask_jobqueue", "slurm"), ("k8s", "dask_kubernetes.operator", "k8s")],
)
def test_a_missing_package_is_named_with_its_extra(
    where: str, module: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "cluster"
    file.write_text(
        "kind: DaskCluster"
        if where == "k8s"
        else 'jobs = 2\ncores = 1\nmemory = "2GB"\nwalltime = "01:00:00"\n'
    )
    monkeypatch.setitem(sys.modules, module, None)
    with (
        pytest.raises(ExecutorUnavailable, match=rf"otzi\[{extra}\]"),
        executor(f"{where}:{file}"),
    ):
        pass
