"""`otzi watch`: one look or many, one watcher at a time, told in JSON, ended by a signal."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from otzi.collection import Collection, create_collection, open_collection
from otzi.errors import ConfigurationError, DeviceUnavailable, TemporaryFailure, UsageError
from otzi.events import Event, Warned, ignore
from otzi.ledger.sources import read_source_rows
from otzi.ledger.sqlite import ledger_path, open_catalog
from otzi.ledger.stages import embedded_stages
from otzi.stopping import Stop
from otzi.store.locks import locked
from otzi_pipelines.watch.loop import Watch
from otzi_pipelines.watch.notify import Notifier
from otzi_pipelines.watch.pipeline import FollowUp
from otzi_pipelines.watch.poll import Poll
from otzi_pipelines.watch.rules import WatchRules
from watching import FakeClock, volume_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

    from commands import Otzi
    from otzi_pipelines.watch.report import PollReport

VIEW = '[[stage]]\nstage = "view"\n'
KEEP = "import sys, json; open(sys.argv[1], 'a').write(json.dumps(json.load(sys.stdin)) + '\\n')"


@pytest.fixture
def incoming(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    return folder


def _notes(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_looks_by_a_timer(tmp_path: Path, incoming: Path, otzi: Otzi) -> None:
    """Each in its own run: what a run has seen, the next one knows."""
    (incoming / "a.mrc").write_bytes(volume_bytes(1))
    (incoming / "bad.mrc").write_bytes(b"nothing " * 999)
    notes = tmp_path / "notes"
    words = ("watch", tmp_path / "c", incoming, "--once", "--settle", "0.01s", "--json")
    words += ("--notify", f'{sys.executable} -c "{KEEP}" {notes}')
    first = otzi(*words)
    assert first.code == 3
    assert [row["state"] for row in json.loads(first.out)["waiting"]] == ["seen", "seen"]
    time.sleep(0.02)
    second = otzi(*words)
    document = json.loads(second.out)
    assert second.code == 5
    assert [row["tomogram"] for row in document["sealed"]] == ["a"]
    assert "bad.mrc" in document["quarantined"][0]["reason"]
    assert document["pipeline_exit_code"] is None
    bad, completed = _notes(notes)
    assert (bad["occasion"], completed["occasion"]) == ("quarantined", "completed")
    assert bad["items"] == document["quarantined"]
    assert completed["counts"] == document["counts"] == {"sealed": 1, "quarantined": 1}
    third = otzi(*words)
    assert (third.code, json.loads(third.out)["sealed"]) == (0, [])
    assert len(_notes(notes)) == 2


def test_status_and_quarantine(tmp_path: Path, incoming: Path, otzi: Otzi) -> None:
    (incoming / "a.mrc").write_bytes(volume_bytes(1))
    (incoming / "long.mrc").write_bytes(volume_bytes(2) + b"+")
    (incoming / "slow.mrc").write_bytes(volume_bytes(3)[:-1])
    words = ("watch", tmp_path / "c", incoming, "--once", "--settle", "0")
    otzi(*words)
    otzi(*words)
    status = json.loads(otzi("status", tmp_path / "c", "--json").out)
    assert status["sources"]["counts"] == {"sealed": 1, "quarantined": 1, "settling": 1}
    (waiting,) = status["sources"]["waiting"]
    assert "of the" in waiting["reason"]
    text = otzi("status", tmp_path / "c").out
    assert f"settling     {incoming}/slow.mrc" in text
    listed = otzi("quarantine", "list", tmp_path / "c")
    assert (listed.code, "long" in listed.out, "slow" in listed.out) == (0, True, False)
    assert otzi("quarantine", "retry", tmp_path / "c", "a").code == 2
    assert otzi("quarantine", "retry", tmp_path / "c").code == 2
    for name in ("long", "long.mrc", str(incoming / "long.mrc"), "--all"):
        run = otzi("quarantine", "retry", tmp_path / "c", name, "--json")
        assert [entry["id"] for entry in json.loads(run.out)["retried"]] == ["long"]
        assert json.loads(otzi("quarantine", "list", tmp_path / "c", "--json").out) == {
            "quarantined": []
        }
        assert otzi(*words).code == 5


def test_what_was_ingested_by_hand_is_tried_again_by_hand(
    tmp_path: Path, incoming: Path, otzi: Otzi
) -> None:
    source = incoming / "bad.mrc"
    source.write_bytes(b"nothing " * 999)
    assert otzi("ingest", tmp_path / "c", source).code == 5
    run = otzi("quarantine", "retry", tmp_path / "c", "bad")
    assert run.code == 5
    assert f"otzi ingest {tmp_path / 'c'} {source}" in run.err
    assert "bad" in otzi("quarantine", "list", tmp_path / "c").out


def test_what_a_pipeline_left_out_is_tried_again_by_its_next_run(
    tmp_path: Path, incoming: Path, otzi: Otzi
) -> None:
    (incoming / "bad.mrc").write_bytes(b"nothing " * 999)
    (tmp_path / "p.toml").write_text(f'[[stage]]\nstage = "ingest"\nsources = ["{incoming}"]\n')
    assert otzi("run", tmp_path / "c", tmp_path / "p.toml").code == 5
    run = otzi("quarantine", "retry", tmp_path / "c", "bad.mrc")
    assert (run.code, run.err) == (0, "")
    assert "bad ingest" in run.out
    (incoming / "bad.mrc").write_bytes(volume_bytes(1))
    assert otzi("run", tmp_path / "c", tmp_path / "p.toml").code == 0
    assert json.loads(otzi("quarantine", "list", tmp_path / "c", "--json").out) == {
        "quarantined": []
    }


def test_a_stage_is_tried_again_and_the_pipeline_is_run_for_it(
    tmp_path: Path, incoming: Path, otzi: Otzi
) -> None:
    (incoming / "a.mrc").write_bytes(volume_bytes(1))
    pipeline = tmp_path / "view.toml"
    pipeline.write_text(VIEW)
    words = ("watch", tmp_path / "c", incoming, "--once", "--settle", "0", "--run", pipeline)
    otzi(*words)
    assert otzi(*words).code == 0
    stages = embedded_stages(tmp_path / "c")
    assert [(row.stage, row.state) for row in stages.rows()] == [("view", "committed")]
    with open_catalog(tmp_path / "c") as catalog, catalog.transaction():
        catalog.execute("UPDATE stage SET state = 'quarantined', error = 'no luck'")
    listed = json.loads(otzi("quarantine", "list", tmp_path / "c", "--json").out)
    assert listed["quarantined"] == [{"id": "a", "stage": "view", "reason": "no luck"}]
    assert otzi(*words).code == 0
    assert otzi("quarantine", "retry", tmp_path / "c", "a").code == 0
    assert [row.pipeline for row in read_source_rows(tmp_path / "c")] == [None]
    assert otzi(*words).code == 0
    assert [row.state for row in stages.rows()] == ["committed"]


def test_a_second_watcher_is_refused(tmp_path: Path, incoming: Path, otzi: Otzi) -> None:
    col = create_collection(tmp_path / "c")
    with locked(Path(f"{ledger_path(col.workspace)}.watch.lock")):
        run = otzi("watch", tmp_path / "c", incoming, "--once")
    assert run.code == 75
    assert "is watched by somebody else already" in run.err
    assert otzi("watch", tmp_path / "c", incoming, "--once").code == 0


def test_a_folder_that_is_not_mounted(tmp_path: Path, incoming: Path, otzi: Otzi) -> None:
    notes = tmp_path / "notes"
    words = ("watch", tmp_path / "c", incoming, "--once", "--settle", "0")
    words += ("--notify", f'{sys.executable} -c "{KEEP}" {notes}')
    assert otzi("watch", tmp_path / "c", tmp_path / "nowhere", "--once").code == 2
    (incoming / "a.mrc").write_bytes(volume_bytes(1))
    otzi(*words)
    incoming.rename(tmp_path / "away")
    assert otzi(*words).code == 75
    incoming.mkdir()
    run = otzi(*words)
    assert (run.code, "--may-be-empty" in run.err) == (75, True)
    assert [note["occasion"] for note in _notes(notes)] == ["unavailable"] * 2
    assert otzi(*words, "--may-be-empty").code == 0


def test_a_full_disk_is_tried_again(
    tmp_path: Path, incoming: Path, monkeypatch: pytest.MonkeyPatch, otzi: Otzi
) -> None:
    (incoming / "a.mrc").write_bytes(volume_bytes(1))
    words = ("watch", tmp_path / "c", incoming, "--once", "--settle", "0")
    otzi(*words)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda folder: type("usage", (), {"free": 1000}))
        run = otzi(*words)
    assert (run.code, "1000 bytes free" in run.err) == (75, True)
    assert [row.state for row in read_source_rows(tmp_path / "c")] == ["settling"]
    assert otzi(*words).code == 0
    assert open_collection(tmp_path / "c").ids == ("a",)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "--once or --every"),
        (("--once", "--every", "3s"), "--once or --every"),
        (("--every", "soon"), "no duration"),
        (("--once", "--settle", "1h", "--stall", "1s"), "larger"),
        (("--once", "--notify", "ftp://x"), "--notify"),
        (("--once", "--run", "nowhere.toml"), "nowhere.toml is not there"),
        (("--once", "--rules", "nowhere.toml"), "nowhere.toml is not there"),
    ],
)
def test_words_that_cannot_be_meant(
    tmp_path: Path, incoming: Path, words: tuple[str, ...], says: str, otzi: Otzi
) -> None:
    run = otzi("watch", tmp_path / "c", incoming, *words)
    assert run.code in (2, 78)
    assert says in run.err
    assert not (tmp_path / "c").exists()


def _ends(pid: int, condition: Callable[[], bool], number: signal.Signals) -> threading.Thread:
    """Send this process a signal once a condition holds."""

    def wait() -> None:
        until = time.monotonic() + 60
        while not condition() and time.monotonic() < until:
            time.sleep(0.02)
        os.kill(pid, number)

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_goes_on_until_it_is_told_to_end(
    tmp_path: Path, incoming: Path, number: signal.Signals, otzi: Otzi
) -> None:
    (incoming / "a.mrc").write_bytes(volume_bytes(1))
    pipeline = tmp_path / "view.toml"
    pipeline.write_text(VIEW)
    create_collection(tmp_path / "c")

    def is_done() -> bool:
        rows = read_source_rows(tmp_path / "c")
        return any(row.pipeline for row in rows)

    thread = _ends(os.getpid(), is_done, number)
    words = ("--every", "0.2s", "--settle", "0.1s", "--run", pipeline, "--json")
    run = otzi("watch", tmp_path / "c", incoming, *words)
    thread.join()
    assert run.code == (130 if number == signal.SIGINT else 0), run.err
    documents = [json.loads(line) for line in run.out.splitlines()]
    assert [row["tomogram"] for row in documents[0]["sealed"]] == ["a"]
    assert open_collection(tmp_path / "c")["a"].products == ("raw", "view")


def test_work_that_remains_is_told_by_the_exit_code(
    tmp_path: Path, incoming: Path, otzi: Otzi
) -> None:
    (incoming / "a.mrc").write_bytes(volume_bytes(1))
    create_collection(tmp_path / "c")
    thread = _ends(os.getpid(), lambda: bool(read_source_rows(tmp_path / "c")), signal.SIGTERM)
    begun = time.monotonic()
    assert otzi("watch", tmp_path / "c", incoming, "--every", "1h").code == 3
    assert time.monotonic() - begun < 30
    thread.join()


@pytest.fixture
def col(tmp_path: Path) -> Collection:
    return create_collection(tmp_path / "c")


def _watch(col: Collection, incoming: Path, clock: FakeClock, **rules: Any) -> Poll:
    return Poll(col, incoming, WatchRules(settle_seconds=30, **rules), clock=clock)


def test_the_pipeline_runs_for_what_is_new_and_once(
    col: Collection, incoming: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []
    codes = [75, 0, 5, 0]

    def run_pipeline(*args: Any, only: list[str], **options: Any) -> int:
        asked.append(only)
        return codes[len(asked) - 1]

    monkeypatch.setattr("otzi_pipelines.run.coordinator.run_pipeline", run_pipeline)
    pipeline = tmp_path / "pipeline.toml"
    pipeline.write_text(VIEW)
    follow_up = FollowUp(col, incoming, pipeline)
    clock, stop = FakeClock(), Stop()
    watch = Watch(_watch(col, incoming, clock), Notifier(None, "c", "in"), follow_up)

    def look() -> PollReport:
        clock.advance(31)
        return watch.once(stop, ignore)

    (incoming / "a.mrc").write_bytes(volume_bytes(1))
    assert look().pipeline_code is None
    assert look().pipeline_code == 75
    assert look().pipeline_code == 0
    assert look().pipeline_code is None
    (incoming / "b.mrc").write_bytes(volume_bytes(2))
    assert [look().pipeline_code, look().pipeline_code, look().pipeline_code] == [None, 5, None]
    pipeline.write_text(VIEW + "# another\n")
    assert look().pipeline_code == 0
    assert asked == [["a"], ["a"], ["b"], ["a", "b"]]


def test_polls_go_on_while_the_pipeline_runs(
    col: Collection, incoming: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And it ends with them, whichever way they end."""
    ended: list[list[str]] = []

    def run_pipeline(*args: Any, only: list[str], stop: threading.Event, **options: Any) -> int:
        assert stop.wait(30)
        ended.append(only)
        return 3

    monkeypatch.setattr("otzi_pipelines.run.coordinator.run_pipeline", run_pipeline)
    pipeline = tmp_path / "pipeline.toml"
    pipeline.write_text(VIEW)
    rules = WatchRules(settle_seconds=0, stall_seconds=1)
    poll = Poll(col, incoming, rules)
    watch = Watch(poll, Notifier(None, "c", "in"), FollowUp(col, incoming, pipeline))
    stop, sealed = Stop(), []
    (incoming / "a.mrc").write_bytes(volume_bytes(1))
    reports = []
    for report in watch.forever(0.01, stop, ignore):
        reports.append(report)
        sealed += [row.tomogram for row in report.sealed]
        if report.sealed and sealed == ["a"]:
            (incoming / "b.mrc").write_bytes(volume_bytes(2))
        if sealed == ["a", "b"]:
            stop.asked.set()
    assert ended == [["a"]]
    assert (reports[-1].pipeline_code, reports[-1].was_stopped) == (3, True)


def test_a_pipeline_that_fails_ends_no_polls(
    col: Collection, incoming: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is spoiled while nobody looks is told; at the beginning it is refused."""
    pipeline = tmp_path / "pipeline.toml"
    rules = WatchRules(settle_seconds=0, stall_seconds=1)
    poll = Poll(col, incoming, rules)
    notes = tmp_path / "notes"
    notifier = Notifier(f'{sys.executable} -c "{KEEP}" {notes}', "c", "in")
    watch = Watch(poll, notifier, FollowUp(col, incoming, pipeline))
    pipeline.write_text("nothing")
    with pytest.raises(ConfigurationError, match="is not TOML"):
        next(watch.forever(0.01, Stop(), ignore))
    pipeline.write_text(VIEW)
    no_such = Watch(poll, watch.notify, FollowUp(col, incoming, pipeline, "nowhere"))
    with pytest.raises(UsageError, match="nowhere"):
        next(no_such.forever(0.01, Stop(), ignore))
    n_runs = 0

    def run_pipeline(*args: Any, **options: Any) -> int:
        nonlocal n_runs
        n_runs += 1
        if n_runs != 3:
            raise ConfigurationError("it was spoiled meanwhile")
        return 0

    monkeypatch.setattr("otzi_pipelines.run.coordinator.run_pipeline", run_pipeline)
    heard, stop = list[Event](), Stop()
    (incoming / "a.mrc").write_bytes(volume_bytes(1))
    codes, sealed = [], []
    for report in watch.forever(0.01, stop, heard.append):
        sealed += [row.tomogram for row in report.sealed]
        codes.append(report.pipeline_code)
        if codes[-1] == 0:
            (incoming / "b.mrc").write_bytes(volume_bytes(2))
        if report.sealed and len(col) == 2:
            stop.asked.set()
    told = Warned("the pipeline ended: it was spoiled meanwhile")
    assert [event for event in heard if event == told] == [told] * 2
    assert [code for code in codes if code is not None] == [78, 78, 0, 78]
    assert (sealed, n_runs, report.was_stopped) == (["a", "b"], 4, True)
    failed, completed = _notes(notes)
    assert failed["reason"] == "the pipeline ended with exit code 78"
    assert (completed["occasion"], completed["counts"]) == ("completed", {"sealed": 1})


@pytest.mark.parametrize("error", [TemporaryFailure("no space"), DeviceUnavailable("no cluster")])
def test_what_may_pass_is_told_once_and_tried_again(
    col: Collection, incoming: Path, tmp_path: Path, error: Exception
) -> None:
    notes, heard = tmp_path / "notes", list[Event]()
    clock, stop = FakeClock(), Stop()
    n_polls = 0

    def poll(listen: Any) -> PollReport:
        nonlocal n_polls
        n_polls += 1
        if n_polls in (2, 3, 4, 6):
            raise error
        return real(listen)

    real = _watch(col, incoming, clock)
    target = f'{sys.executable} -c "{KEEP}" {notes}'
    poll.folder = incoming  # type: ignore[attr-defined]
    watch = Watch(poll, Notifier(target, "c", "in"))  # type: ignore[arg-type]
    for _ in watch.forever(0, stop, heard.append):
        if n_polls == 7:
            stop.asked.set()
    assert heard == [Warned(str(error))] * 2
    assert [(note["occasion"], note["reason"]) for note in _notes(notes)] == [
        ("unavailable", str(error))
    ] * 2


def test_a_change_wakes_it(
    tmp_path: Path, incoming: Path, require: Callable[[str, str], None], otzi: Otzi
) -> None:
    try:
        import watchfiles  # noqa: F401
    except ModuleNotFoundError:
        require("watchfiles", "watchfiles is not installed")
    create_collection(tmp_path / "c")

    def is_sealed() -> bool:
        if not (incoming / "a.mrc").exists():
            time.sleep(1.5)  # the first look is over, and it waits for a change
            (incoming / "a.mrc").write_bytes(volume_bytes(1))
        return any(row.state == "sealed" for row in read_source_rows(tmp_path / "c"))

    thread = _ends(os.getpid(), is_sealed, signal.SIGTERM)
    words = ("--every", "1h", "--settle", "0.1s", "--wake")
    assert otzi("watch", tmp_path / "c", incoming, *words).code == 0
    thread.join()
    assert open_collection(tmp_path / "c").ids == ("a",)
