"""Graphs whose tasks are held back until results are taken, on threads and on processes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from dask._task_spec import Task, TaskRef
from hypothesis import given
from hypothesis import strategies as st

from otzi.execute import Gates, executor
from tasks import leave_mark

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from dask._task_spec import GraphNode

    from otzi.execute import Executor


@pytest.fixture(scope="module", params=["local", "processes:2"])
def running(request: pytest.FixtureRequest) -> Iterator[Executor]:
    with executor(request.param, workers=2) as it:
        yield it


def gates_above(task: int, needs: dict[int, set[int]], after: dict[int, set[int]]) -> set[int]:
    """Give what is to be taken before a task, by walking up from it."""
    found = set(after.get(task, ()))
    for other in needs[task]:
        found |= gates_above(other, needs, after)
    return found


@given(st.data())
def test_a_task_is_open_when_all_gates_above_it_are_taken(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 12))

    def edges() -> dict[int, set[int]]:
        return {
            i: data.draw(st.sets(st.integers(0, i - 1), max_size=3)) if i else set()
            for i in range(n)
        }

    needs, after = edges(), edges()
    gates, taken = Gates(needs, after), set[int]()

    def expected() -> set[int]:
        return {i for i in range(n) if gates_above(i, needs, after) <= taken}

    is_open = set(gates.open())
    assert is_open == expected()
    for gate in data.draw(st.permutations(range(n))):
        taken.add(gate)
        freed = gates.taken(gate)
        places = {task: place for place, task in enumerate(freed)}
        for task in freed:
            assert all(places[other] < places[task] for other in needs[task] & places.keys())
        assert not is_open & set(freed)
        is_open |= set(freed)
        assert is_open == expected() == {i for i in range(n) if gates.is_open(i)}


@pytest.mark.parametrize("ahead", [1, 3])
def test_no_task_begins_before_what_it_comes_after_is_taken(
    running: Executor, tmp_path: Path, ahead: int
) -> None:
    """A chain of pairs; each leaves a mark where it begins."""
    n = 10
    graph: dict[Any, GraphNode] = {}
    for i in range(n):
        graph["mark", i] = Task(("mark", i), leave_mark, tmp_path, i)
        parts = [TaskRef(("mark", j)) for j in range(max(0, i - 1), i + 1)]
        graph["pair", i] = Task(("pair", i), leave_mark, tmp_path, f"pair{i}", *parts)
    keys = [("pair", i) for i in range(n)]
    after = {("mark", i): [("pair", i - ahead)] for i in range(ahead, n)}
    taken = set[int]()
    for (_, i), result in running.graph(graph, keys, after=after):
        assert result == f"pair{i}"
        time.sleep(0.02)  # what could begin would have
        begun = {int(path.name) for path in tmp_path.iterdir() if path.name.isdigit()}
        assert all(j < ahead or j - ahead in taken for j in begun)
        taken.add(i)
    assert taken == set(range(n))


def test_a_result_that_others_need_later_is_kept_for_them(
    running: Executor, tmp_path: Path
) -> None:
    graph: dict[Any, GraphNode] = {
        "base": Task("base", leave_mark, tmp_path, "base"),
        "first": Task("first", leave_mark, tmp_path, "first", TaskRef("base")),
        "last": Task("last", leave_mark, tmp_path, "last", TaskRef("base"), TaskRef("first")),
    }
    after = {"last": ["first"]}
    for keys in (["first", "last"], ["base", "first", "last"]):
        for path in tmp_path.iterdir():
            path.unlink()
        assert dict(running.graph(graph, keys, after=after)) == {key: key for key in keys}
        assert (tmp_path / "base").read_text() == "."
