"""Runs of pipelines: each stage once, in order, and what fails stops nothing else."""

from __future__ import annotations

import shutil
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from otzi.collection import open_collection
from otzi.errors import (
    AccessDenied,
    CorruptShard,
    Locked,
    MemoryBudgetError,
    NotFoundError,
    OutOfSpace,
    TemporaryFailure,
    UsageError,
)
from otzi.events import Event, Warned
from otzi.ledger.sqlite import ledger_path
from otzi.ledger.stages import embedded_stages, read_stages
from otzi_pipelines.run.coordinator import run_collection
from otzi_pipelines.run.progress import Ended, Moved, RunEvent, Standing
from otzi_pipelines.run.volume import Shard
from run_stages import Times, pipeline

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from otzi.ledger.stages import StageRow
    from otzi.tomogram import Tomogram

VOLUME = np.arange(4 * 5 * 6, dtype=np.uint8).reshape(4, 5, 6)
IDS = ("ts_1", "ts_2", "ts_3")


@pytest.fixture
def path(add_tomogram: Callable[..., Tomogram]) -> Path:
    for n, name in enumerate(IDS):
        tomo = add_tomogram(VOLUME + n, name)
    assert not isinstance(tomo.collection.path, str)
    return tomo.collection.workspace


def _states(path: Path) -> dict[tuple[str, str], str]:
    return {(row.tomogram, row.stage): row.state for row in read_stages(path)}


def _row(path: Path, tomogram: str, stage: str) -> StageRow:
    (row,) = [r for r in read_stages(path) if (r.tomogram, r.stage) == (tomogram, stage)]
    return row


def test_every_tomogram_goes_through_every_stage(path: Path) -> None:
    twice, more = Times("twice"), Times("more", of="labels/twice", factor=3)
    outcome = run_collection(path, pipeline(twice, more))
    assert (outcome.exit_code, outcome.n_left, outcome.quarantined) == (0, 0, ())
    assert twice.ran == more.ran == dict.fromkeys(IDS, 1)
    for n, tomo in enumerate(open_collection(path)):
        np.testing.assert_array_equal(tomo.array("labels/more")[:], (VOLUME + n) * 6)
    assert set(_states(path).values()) == {"committed"}


def test_a_second_run_does_nothing(path: Path) -> None:
    twice = Times("twice")
    run_collection(path, pipeline(twice))
    before = ledger_path(path).read_bytes()
    assert run_collection(path, pipeline(twice)).exit_code == 0
    assert twice.ran == dict.fromkeys(IDS, 1)
    assert ledger_path(path).read_bytes() == before


def test_no_executor_is_started_for_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stages = pipeline(Times("twice"))
    run_collection(path, stages)

    def start(*_: Any) -> None:
        pytest.fail("an executor was started")

    monkeypatch.setattr("otzi_pipelines.run.coordinator.started", start)
    assert run_collection(path, stages, executor="tcp://127.0.0.1:1").exit_code == 0


def test_a_changed_parameter_runs_what_it_touches(path: Path) -> None:
    def stages() -> list[Times]:
        return [Times("twice"), Times("more", of="labels/twice"), Times("other", factor=5)]

    run_collection(path, pipeline(*stages()))
    _, more, other = stages()
    changed = Times("twice", factor=4)
    run_collection(path, pipeline(changed, more, other))
    assert changed.ran == more.ran == dict.fromkeys(IDS, 1)
    assert not other.ran
    tomo = open_collection(path)["ts_1"]
    np.testing.assert_array_equal(tomo.array("labels/more")[:], VOLUME * 8)


def test_a_changed_tomogram_runs_anew_and_the_others_do_not(
    path: Path, add_tomogram: Callable[..., Tomogram]
) -> None:
    run_collection(path, pipeline(Times("twice")))
    add_tomogram(VOLUME + 100, "ts_2")
    twice = Times("twice")
    run_collection(path, pipeline(twice))
    assert twice.ran == {"ts_2": 1}


def test_a_product_that_was_removed_is_made_again(path: Path) -> None:
    run_collection(path, pipeline(Times("twice")))
    shutil.rmtree(path / "tomograms" / "ts_2" / "labels" / "twice")
    twice = Times("twice")
    run_collection(path, pipeline(twice))
    assert twice.ran == {"ts_2": 1}
    assert open_collection(path)["ts_2"].has("labels/twice")


def test_what_was_published_but_not_committed_is_adopted(path: Path) -> None:
    run_collection(path, pipeline(Times("twice")))
    before = {tomo.id: tomo.path("labels/twice") for tomo in open_collection(path)}
    rows = {(row.tomogram, row.input_digest, row.output_digest) for row in read_stages(path)}
    ledger_path(path).unlink()
    twice = Times("twice")
    run_collection(path, pipeline(twice))
    assert {tomo.id: tomo.path("labels/twice") for tomo in open_collection(path)} == before
    found = read_stages(path)
    assert {(row.tomogram, row.input_digest, row.output_digest) for row in found} == rows
    assert [row.seconds for row in found] == [None] * 3


def test_what_fails_for_good_is_quarantined_and_the_others_go_on(path: Path) -> None:
    said: list[Event] = []

    def fails(tomogram: str, attempt: int) -> Exception | None:
        return ValueError("no such thing") if tomogram == "ts_2" else None

    stages = pipeline(Times("twice", fails=fails), Times("more", of="labels/twice"), Times("own"))
    outcome = run_collection(path, stages, listen=said.append)
    assert outcome.exit_code == 5
    assert outcome.quarantined == (("ts_2", "times/twice", "ValueError: no such thing"),)
    states = _states(path)
    assert states.pop(("ts_2", "times/twice")) == "quarantined"
    assert ("ts_2", "times/more") not in states
    assert len(states) == 7
    assert set(states.values()) == {"committed"}
    assert Warned("ts_2 times/twice is quarantined: ValueError: no such thing") in said


def test_quarantine_is_left_alone_until_it_is_lifted(path: Path) -> None:
    def fails(tomogram: str, attempt: int) -> Exception | None:
        return UsageError("too thin") if tomogram == "ts_2" else None

    run_collection(path, pipeline(Times("twice", fails=fails)))
    again = Times("twice")
    assert run_collection(path, pipeline(again)).exit_code == 5
    assert not again.ran
    assert run_collection(path, pipeline(again), only=["ts_1"]).exit_code == 0
    assert run_collection(path, pipeline(again), retry=True).exit_code == 0
    assert again.ran == {"ts_2": 1}
    assert _row(path, "ts_2", "times/twice").error is None


@pytest.mark.parametrize("error", [TemporaryFailure("away"), OSError(5, "EIO"), MemoryError()])
def test_what_may_pass_is_tried_again(path: Path, error: Exception) -> None:
    ends: list[RunEvent] = []
    twice = Times("twice", fails=lambda _, attempt: error if attempt < 3 else None)
    more = Times("more", of="labels/twice")
    outcome = run_collection(path, pipeline(twice, more), tell=ends.append)
    assert outcome.exit_code == 0
    assert twice.ran == dict.fromkeys(IDS, 3)
    failed = [e for e in ends if isinstance(e, Ended) and e.state == "failed"]
    assert len(failed) == 6
    waits = [e.retry_seconds for e in failed if e.tomogram == "ts_1"]
    assert 0.005 <= waits[0] <= 0.015
    assert 0.01 <= waits[1] <= 0.03


def test_but_not_for_ever(path: Path) -> None:
    twice = Times("twice", fails=lambda *_: TemporaryFailure("away"))
    assert run_collection(path, pipeline(twice, attempts=3), only=["ts_1"]).exit_code == 5
    assert twice.ran == {"ts_1": 3}
    assert _row(path, "ts_1", "times/twice").error == "away"


@pytest.mark.parametrize("error", [MemoryBudgetError("too large"), CorruptShard("0/c/0/0/0")])
def test_what_will_not_pass_is_not_tried_again(path: Path, error: Exception) -> None:
    """Though these are a MemoryError and an OSError, too."""
    twice = Times("twice", fails=lambda *_: error)
    assert run_collection(path, pipeline(twice), only=["ts_1"]).exit_code == 5
    assert twice.ran == {"ts_1": 1}


@pytest.mark.parametrize("error", [OutOfSpace("disk full"), AccessDenied("not yours")])
def test_what_concerns_the_machine_ends_the_run(path: Path, error: Exception) -> None:
    twice = Times("twice", fails=lambda *_: error)
    with pytest.raises(type(error)):
        run_collection(path, pipeline(twice, volumes=1))
    assert twice.ran == {"ts_1": 1}
    assert _row(path, "ts_1", "times/twice").state == "ready"
    assert _row(path, "ts_1", "times/twice").attempt == 0
    again = Times("twice")
    assert run_collection(path, pipeline(again)).exit_code == 0


def test_what_nobody_makes_is_waited_for_and_no_failure(path: Path) -> None:
    drawn = Times("drawn", of="labels/hand")
    standing = Standing(2)
    assert run_collection(path, pipeline(drawn), tell=standing).exit_code == 0
    assert not drawn.ran
    assert standing.to_json()["times/drawn"]["waiting"] == 3


def test_no_more_volumes_at_a_time_than_allowed(path: Path) -> None:
    now, most, lock = [0], [0], threading.Lock()

    def during(tomogram: str) -> None:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.1)
        with lock:
            now[0] -= 1

    run_collection(path, pipeline(Times("twice", during=during), volumes=2))
    assert most == [2]


def test_tomograms_are_finished_one_after_another(path: Path) -> None:
    order: list[tuple[str, str]] = []

    def log(stage: str) -> Callable[[str], None]:
        return lambda tomogram: order.append((tomogram, stage))

    stages = (Times("a", during=log("a")), Times("b", of="labels/a", during=log("b")))
    run_collection(path, pipeline(*stages, volumes=1))
    assert order == [(tomogram, stage) for tomogram in IDS for stage in "ab"]


def test_only_some_by_id_or_pattern(path: Path) -> None:
    twice = Times("twice")
    run_collection(path, pipeline(twice), only=["ts_[13]"])
    assert set(twice.ran) == {"ts_1", "ts_3"}
    run_collection(path, pipeline(twice), only=["ts_2"])
    assert set(twice.ran) == set(IDS)
    with pytest.raises(NotFoundError, match="ts_9"):
        run_collection(path, pipeline(twice), only=["ts_9"])


def test_shards_share_the_work_and_a_rebuilt_ledger_knows_all(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    twice = Times("twice")
    for n in (1, 2):
        monkeypatch.setenv("OTZI_LEDGER", str(tmp_path / f"node_{n}"))
        (tmp_path / f"node_{n}").mkdir()
        assert run_collection(path, pipeline(twice), shard=Shard(n, 2)).exit_code == 0
        assert {row.tomogram for row in read_stages(path)} == {
            name for name in IDS if Shard(n, 2).has(name)
        }
    assert twice.ran == dict.fromkeys(IDS, 1)
    monkeypatch.delenv("OTZI_LEDGER")
    # The collection's own ledger finds all made, and makes nothing.
    before = {tomo.id: tomo.path("labels/twice") for tomo in open_collection(path)}
    assert run_collection(path, pipeline(twice)).exit_code == 0
    assert {tomo.id: tomo.path("labels/twice") for tomo in open_collection(path)} == before
    assert set(_states(path).values()) == {"committed"}


def test_a_second_coordinator_is_refused_and_one_that_forces_its_way_doubles_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("otzi_pipelines.run.stage_worker._LOOK_AGAIN_SECONDS", 0.05)
    begun, go_on = threading.Event(), threading.Event()

    def during(tomogram: str) -> None:
        begun.set()
        assert go_on.wait(20)

    twice = Times("twice", during=during)
    outcomes = []
    first = threading.Thread(
        target=lambda: outcomes.append(run_collection(path, pipeline(twice, volumes=1)))
    )
    first.start()
    assert begun.wait(20)
    with pytest.raises(Locked, match="--force") as refused:
        run_collection(path, pipeline(Times("twice")))
    assert refused.value.exit_code == 75
    second = threading.Thread(
        target=lambda: outcomes.append(run_collection(path, pipeline(other), force=True))
    )
    other = Times("twice")
    second.start()
    while set(other.ran) != {"ts_2", "ts_3"}:
        time.sleep(0.01)
    go_on.set()
    first.join(20)
    second.join(20)
    assert [outcome.exit_code for outcome in outcomes] == [0, 0]
    assert twice.ran == {"ts_1": 1}
    assert other.ran == {"ts_2": 1, "ts_3": 1}


def test_the_stages_of_a_run_that_was_killed_are_taken_back(path: Path) -> None:
    stages = pipeline(Times("twice"))
    owner = f"{socket.gethostname()}/all"
    ledger = embedded_stages(path)
    ledger.claim("ts_2", "times/twice", "old", None, owner=owner, lease_seconds=999)
    said: list[Event] = []
    assert run_collection(path, stages, listen=said.append).exit_code == 0
    assert _row(path, "ts_2", "times/twice").state == "committed"
    assert any("left by a run that was killed" in getattr(event, "message", "") for event in said)


def test_who_is_taken_for_dead_does_not_commit(path: Path) -> None:
    """The lease goes to somebody else meanwhile: what is made stays, its row is the other's."""
    theirs = embedded_stages(path)

    def steal(tomogram: str) -> None:
        with theirs._transaction() as run:
            run(
                "UPDATE stage SET token = token + 1, owner = 'thief' WHERE tomogram = ?",
                (tomogram,),
            )

    ends: list[RunEvent] = []
    twice = Times("twice", during=steal)
    stop = threading.Event()
    threading.Timer(1.0, stop.set).start()
    outcome = run_collection(path, pipeline(twice), only=["ts_1"], tell=ends.append, stop=stop)
    assert outcome.n_left == 1
    row = _row(path, "ts_1", "times/twice")
    assert (row.state, row.owner, row.output_digest) == ("leased", "thief", None)
    assert [e.state for e in ends if isinstance(e, Ended)] == ["abandoned"]


def test_a_stop_lets_end_what_is_soon_done(path: Path) -> None:
    stop = threading.Event()
    twice = Times("twice", seconds=0.3, during=lambda _: stop.set())
    outcome = run_collection(path, pipeline(twice, volumes=1, finish_seconds=20), stop=stop)
    assert twice.ran == {"ts_1": 1}
    assert list(_states(path).values()) == ["committed", "ready", "ready"]
    assert (outcome.exit_code, outcome.n_left) == (3, 2)


def test_a_stop_abandons_what_is_not_and_it_goes_on_later(path: Path) -> None:
    stop = threading.Event()
    twice = Times("twice", seconds=60, during=lambda _: stop.set())
    began = time.monotonic()
    outcome = run_collection(path, pipeline(twice, finish_seconds=0.2), stop=stop)
    assert time.monotonic() - began < 10
    assert (outcome.exit_code, outcome.n_left, outcome.n_hung) == (3, 3, 0)
    assert set(_states(path).values()) == {"ready"}
    assert run_collection(path, pipeline(Times("twice"))).exit_code == 0


def test_a_stop_when_nothing_is_left_is_no_failure(path: Path) -> None:
    stop = threading.Event()
    twice = Times("twice", during=lambda _: stop.set())
    outcome = run_collection(path, pipeline(twice, finish_seconds=20), only=["ts_1"], stop=stop)
    assert outcome.exit_code == 0


def test_what_hangs_is_noticed_and_its_lease_given_back(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("otzi_pipelines.run.turns._ABANDON_SECONDS", 0.3)
    end = threading.Event()
    twice = Times("twice", during=lambda _: end.wait(30) and None)
    stages = pipeline(twice, stall_seconds=1)
    try:
        outcome = run_collection(path, stages, only=["ts_1"])
    finally:
        end.set()
    assert (outcome.exit_code, outcome.has_stalled, outcome.n_hung) == (75, True, 1)
    row = _row(path, "ts_1", "times/twice")
    assert (row.state, row.error, row.attempt) == ("failed", "it stalled", 1)


def test_progress_is_told_in_units_of_the_stage(path: Path) -> None:
    told: list[RunEvent] = []
    run_collection(path, pipeline(Times("twice", seconds=0.05)), only=["ts_1"], tell=told.append)
    moved = [event for event in told if isinstance(event, Moved)]
    assert moved == [Moved("ts_1", "times/twice", "pieces", 1, 5, "pieces")] * 5


def test_report_needs_dask(path: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--executor processes"):
        run_collection(path, pipeline(Times("twice")), report=tmp_path / "r.html")
