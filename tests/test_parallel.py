"""Work over threads: in order, told of, and over when something fails."""

from __future__ import annotations

import threading

import pytest

from otzi.events import Advanced, Event, Started
from otzi.parallel import in_threads


def test_results_are_in_order_and_told_of() -> None:
    events: list[Event] = []
    found = list(in_threads(lambda n: n * n, range(50), "squares", "numbers", events.append, 4))
    assert found == [n * n for n in range(50)]
    assert events[0] == Started("squares", 50, "numbers")
    assert events.count(Advanced("squares", 1)) == 50


def test_items_are_worked_on_at_the_same_time() -> None:
    meeting = threading.Barrier(3, timeout=10)
    assert len(list(in_threads(lambda _: meeting.wait(), range(3), "a", "b", n_threads=3))) == 3


@pytest.mark.parametrize("n_threads", [1, 2])
def test_after_a_failure_no_more_is_begun(n_threads: int) -> None:
    begun: list[int] = []
    go_on = threading.Event()

    def fail_at_0(n: int) -> None:
        begun.append(n)
        if n == 0:
            raise ValueError("bad item")
        go_on.wait(10)

    def listen(_: Event) -> None: ...

    results = in_threads(fail_at_0, range(100), "a", "b", listen, n_threads)
    threading.Timer(2.0, go_on.set).start()
    with pytest.raises(ValueError, match="bad item"):
        next(results)
    assert len(begun) < 10


def test_whoever_takes_the_results_may_stop() -> None:
    begun: list[int] = []
    results = in_threads(begun.append, range(10_000), "a", "b", n_threads=1)
    next(results)
    results.close()  # type: ignore[attr-defined]
    assert len(begun) < 10_000
