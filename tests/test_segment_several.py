"""Several tomograms: the first goes first, a damaged one stops no other, an error stops all."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from otzi.errors import ModelError, VerificationError
from otzi.events import Event, Noted, Warned
from otzi_pipelines.segment import several
from otzi_pipelines.segment.several import segment_several

if TYPE_CHECKING:
    from collections.abc import Callable

    from otzi.tomogram import Tomogram


class Cluster:
    """Stands for an executor."""

    def __init__(self) -> None:
        self.closed = threading.Event()

    def close(self) -> None:
        self.closed.set()


@pytest.fixture
def tomograms(add_tomogram: Callable[..., Tomogram]) -> list[Tomogram]:
    volume = np.zeros((4, 8, 8), np.int16)
    volume[1] = 9
    return [add_tomogram(volume, f"ts_{i}") for i in range(4)]


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Give what is segmented, and with which priority; nothing is."""
    seen = list[tuple[str, int]]()

    def segment(tomo: Tomogram, model: Any, *, priority: int, listen: Any, **_: Any) -> bool:
        seen.append((tomo.id, priority))
        listen(Noted(tomo.id))
        if tomo.id in model.get("damaged", ()):
            raise VerificationError("a shard is missing")
        if tomo.id in model.get("refused", ()):
            raise ModelError("gives nan")
        if "wait" in model:
            model["wait"](timeout=20)
        return True

    monkeypatch.setattr(several, "segment", segment)
    monkeypatch.setattr(several, "read_report", lambda tomo, name: {"of": tomo.id})
    monkeypatch.setattr("otzi.tomogram.Tomogram.path", lambda self, product: f"{self.id}/{product}")
    return seen


def run(
    tomograms: list[Tomogram],
    model: dict[str, Any],
    n_at_once: int,
    events: list[Event] | None = None,
    executor: Any = None,
) -> dict[str, dict[str, Any]]:
    listen = [].append if events is None else events.append
    network: Any = model
    return segment_several(
        tomograms, network, name="net", n_at_once=n_at_once, executor=executor, listen=listen
    )


@pytest.mark.parametrize("n_at_once", [1, 3])
def test_the_first_goes_first_and_results_keep_their_order(
    tomograms: list[Tomogram], ran: list[tuple[str, int]], n_at_once: int
) -> None:
    results = run(tomograms, {}, n_at_once)
    assert sorted(ran) == [(f"ts_{i}", -i) for i in range(4)]
    assert list(results) == [tomo.id for tomo in tomograms]
    assert results["ts_2"] == {
        "made": True,
        "path": "ts_2/probs/net",
        "report": "ts_2/reports/net",
        "run": {"of": "ts_2"},
    }


def test_as_many_as_said_are_under_way(
    tomograms: list[Tomogram], ran: list[tuple[str, int]]
) -> None:
    """Two wait for each other: one at a time would never end."""
    assert len(run(tomograms, {"wait": threading.Barrier(2).wait}, 2)) == 4


@pytest.mark.parametrize("n_at_once", [1, 2])
def test_a_damaged_one_is_left_out(
    tomograms: list[Tomogram], ran: list[tuple[str, int]], n_at_once: int
) -> None:
    events = list[Event]()
    results = run(tomograms, {"damaged": ["ts_1"]}, n_at_once, events)
    assert results["ts_1"] == {"made": False, "error": "a shard is missing"}
    assert [result["made"] for result in results.values()] == [True, False, True, True]
    assert Warned("ts_1 is left out: a shard is missing") in events


@pytest.mark.parametrize("n_at_once", [1, 2])
def test_what_concerns_all_ends_all(
    tomograms: list[Tomogram], ran: list[tuple[str, int]], n_at_once: int
) -> None:
    """What is under way works on until the cluster is closed; what waits is never begun."""
    cluster = Cluster()
    model = {"refused": ["ts_0"], "wait": cluster.closed.wait}
    with pytest.raises(ModelError, match="gives nan"):
        run(tomograms, model, n_at_once, executor=cluster)
    assert ("ts_3", -3) not in ran
    assert cluster.closed.is_set() == (n_at_once > 1)
