"""Polls: what is complete becomes a tomogram once, whatever way it came and whatever follows."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import sqlite3
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from mrc_files import mrc_bytes
from otzi.collection import Collection, create_collection
from otzi.errors import NotFoundError, OutOfSpace, Stopped, TemporaryFailure
from otzi.events import Event, Started, Warned
from otzi.ledger.quarantine import read_reports
from otzi.ledger.sources import SourceRow, read_source_rows
from otzi.ledger.sqlite import ledger_path
from otzi.memory import usable_cores
from otzi.store.locks import lock_file, locked
from otzi.store.publish import staging_folder
from otzi_pipelines.ingest.batch import ingest
from otzi_pipelines.ingest.source_files import reading_source
from otzi_pipelines.watch import examine, poll
from otzi_pipelines.watch.poll import Poll
from otzi_pipelines.watch.rules import FolderRule, WatchRules
from watching import ARRIVALS, FakeClock, volume_bytes

if TYPE_CHECKING:
    from pathlib import Path

    from otzi_pipelines.watch.report import PollReport

RULES = WatchRules(settle_seconds=30, stall_seconds=600)


class Watched:
    """A folder that is polled, with a clock."""

    def __init__(self, root: Path, rules: WatchRules = RULES) -> None:
        self.folder = root / "in"
        self.folder.mkdir()
        self.collection: Collection = create_collection(root / "c")
        self.clock = FakeClock()
        self.poll = Poll(self.collection, self.folder, rules, clock=self.clock)
        self.events: list[Event] = []

    def put(self, name: str, data: bytes) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    def look(self, seconds: float = 0) -> PollReport:
        self.clock.advance(seconds)
        return self.poll(self.events.append)

    def settle(self) -> PollReport:
        """Look until what is there now has been quiet for long enough."""
        self.look()
        return self.look(31)

    def rows(self) -> dict[str, list[SourceRow]]:
        found: dict[str, list[SourceRow]] = {}
        for row in read_source_rows(self.collection.workspace):
            found.setdefault(row.path.relative_to(self.folder).as_posix(), []).append(row)
        return found

    def states(self) -> dict[str, str]:
        return {name: rows[-1].state for name, rows in self.rows().items()}

    def log(self, *kinds: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(ledger_path(self.collection.workspace))) as connection:
            rows = connection.execute("SELECT kind, tomogram FROM event ORDER BY n").fetchall()
        return [row for row in rows if not kinds or row[0] in kinds]

    def sha256(self, id_: str) -> str:
        return str(self.collection[id_].attributes("raw")["source"]["sha256"])

    def warnings(self) -> list[str]:
        return [event.message for event in self.events if isinstance(event, Warned)]


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    return Watched(tmp_path)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_a_file_is_taken_once_it_was_quiet_over_two_looks(watched: Watched) -> None:
    data = volume_bytes(1)
    path = watched.put("ts_001.mrc", data)
    first = watched.look()
    assert [row.path for row in first.waiting] == [path]
    assert (first.due_seconds, first.exit_code) == (30, 3)
    assert watched.look(29).sealed == []
    report = watched.look(2)
    assert [(row.tomogram, row.sha256) for row in report.sealed] == [("ts_001", _sha256(data))]
    assert (report.waiting, report.due_seconds, report.exit_code) == ([], None, 0)
    assert watched.sha256("ts_001") == _sha256(data)
    assert watched.log() == [("sealed", "ts_001")]
    (row,) = watched.rows()["ts_001.mrc"]
    assert (row.evidence, row.revision, row.attempts) == ("quiet", 1, 0)


def test_another_look_at_what_is_done_does_nothing(watched: Watched) -> None:
    for i in range(3):
        watched.put(f"sub/ts_{i}.mrc", volume_bytes(i))
    watched.settle()
    before = ledger_path(watched.collection.workspace).read_bytes()
    watched.events.clear()
    report = watched.look(1000)
    assert not report.did_something
    assert watched.events == []
    assert ledger_path(watched.collection.workspace).read_bytes() == before


@pytest.mark.parametrize("way", ARRIVALS)
def test_only_whole_bytes_are_published_however_they_come(watched: Watched, way: str) -> None:
    """A look after each step, with as long a pause as is less than what is waited for."""
    data = volume_bytes(2, (6, 30, 30))
    for _ in ARRIVALS[way](watched.folder / "ts_001.mrc", data):
        assert watched.look(20).quarantined == []
        for tomo in watched.collection:
            assert watched.sha256(tomo.id) == _sha256(data)
    watched.look(20)
    watched.look(40)
    assert watched.sha256("ts_001") == _sha256(data)
    assert watched.log() == [("sealed", "ts_001")]
    assert watched.states() == {"ts_001.mrc": "sealed"}


@pytest.mark.parametrize("way", ["renamed", "part_renamed"])
def test_a_rename_into_place_is_taken_at_once(watched: Watched, way: str) -> None:
    for _ in ARRIVALS[way](watched.folder / "ts_001.mrc", volume_bytes(3)):
        report = watched.look(1)
    assert [row.evidence for row in report.sealed] == ["renamed"]


def test_a_reserved_file_that_rests_is_taken_wrong_and_healed_by_a_revision(
    watched: Watched,
) -> None:
    """Nobody can tell it from one that ends in zeros: it is warned of, and revised."""
    data = volume_bytes(4)
    path = watched.put("ts_001.mrc", data[:1500] + bytes(len(data) - 1500))
    watched.settle()
    assert any("last section is all 0" in message for message in watched.warnings())
    assert "last section" in watched.rows()["ts_001.mrc"][0].detail["warnings"][0]
    path.write_bytes(data)
    assert watched.look(5).sealed == []
    assert watched.sha256("ts_001") != _sha256(data)
    (row,) = watched.look(31).sealed
    assert (row.revision, watched.sha256("ts_001")) == (2, _sha256(data))


def test_done_and_digest_are_taken_at_their_word_once_the_size_is_right(watched: Watched) -> None:
    data = volume_bytes(5)
    watched.put("a.mrc", data[:-1])
    watched.put("a.mrc.done", b"")
    assert watched.look().sealed == []
    watched.put("a.mrc", data)
    watched.put("a.mrc.done", b"")
    assert [row.evidence for row in watched.look(1).sealed] == ["done"]
    other = volume_bytes(6)
    watched.put("b.mrc", other)
    watched.put("b.mrc.sha256", _sha256(other).encode())
    assert [row.evidence for row in watched.look(1).sealed] == ["sha256"]


def test_a_digest_that_does_not_fit_is_doubted_first_and_refused_at_last(watched: Watched) -> None:
    data = volume_bytes(7)
    watched.put("a.mrc", data[:-100] + bytes(100))
    watched.put("a.mrc.sha256", f"{_sha256(data)}  a.mrc\n".encode())
    assert watched.look().quarantined == []
    assert watched.collection.ids == ()
    watched.put("a.mrc", data)
    assert len(watched.look(1).sealed) == 1
    watched.put("b.mrc", volume_bytes(8))
    watched.put("b.mrc.sha256", b"0" * 64)
    watched.look()
    watched.look(1)
    (row,) = watched.look(31).quarantined
    assert "the side-car says 0000" in (row.reason or "")
    assert watched.collection.ids == ("a",)


def test_a_replaced_file_is_a_new_revision_and_the_old_one_stays_until_then(
    watched: Watched,
) -> None:
    old, new = volume_bytes(1), volume_bytes(2)
    watched.put("a.mrc", old)
    watched.settle()
    first = watched.collection["a"].path("raw")
    watched.put("a.mrc", new)
    watched.look(5)
    assert watched.collection["a"].path("raw") == first
    assert watched.sha256("a") == _sha256(old)
    (row,) = watched.look(31).sealed
    assert (row.tomogram, row.revision, watched.sha256("a")) == ("a", 2, _sha256(new))
    assert [r.state for r in watched.rows()["a.mrc"]] == ["superseded", "sealed"]
    assert watched.log() == [("sealed", "a"), ("superseded", "a"), ("sealed", "a")]
    assert watched.collection.ids == ("a",)


def test_a_touched_file_is_read_again_and_is_no_revision(watched: Watched) -> None:
    path = watched.put("a.mrc", volume_bytes(1))
    watched.settle()
    os.utime(path, ns=(1, 1))
    assert not watched.settle().did_something
    (row,) = watched.rows()["a.mrc"]
    assert (row.state, row.revision, row.file.mtime_ns) == ("sealed", 1, 1)
    assert watched.log() == [("sealed", "a")]


def test_a_revision_that_is_bad_leaves_the_old_one(watched: Watched) -> None:
    data = volume_bytes(1)
    watched.put("a.mrc", data)
    watched.settle()
    watched.put("a.mrc", b"spoiled " * 999)
    (row,) = watched.settle().quarantined
    assert row.revision == 2
    assert watched.sha256("a") == _sha256(data)
    assert [r.state for r in watched.rows()["a.mrc"]] == ["sealed", "quarantined"]
    watched.put("a.mrc", volume_bytes(2))
    assert [row.revision for row in watched.settle().sealed] == [2]
    assert read_reports(watched.collection.workspace) == []


def test_the_same_bytes_are_one_tomogram(watched: Watched) -> None:
    data = volume_bytes(1)
    watched.put("ts_1.mrc", data)
    watched.settle()
    for name in ("copy.mrc", "TS_1.mrc", "sub/ts_1.mrc"):
        watched.put(name, data)
    report = watched.settle()
    assert {row.reason for row in report.duplicates} == {"duplicate of ts_1"}
    assert len(report.duplicates) == 3
    assert watched.collection.ids == ("ts_1",)
    assert watched.log("sealed") == [("sealed", "ts_1")]


def test_of_twins_that_come_together_the_older_is_the_original(watched: Watched) -> None:
    data = volume_bytes(1)
    for name, mtime_ns in (("b.mrc", 10**18), ("a.mrc", 2 * 10**18)):
        os.utime(watched.put(name, data), ns=(mtime_ns, mtime_ns))
    watched.settle()
    assert watched.states() == {"a.mrc": "duplicate", "b.mrc": "sealed"}


def test_a_duplicate_that_changes_becomes_a_tomogram_of_its_own(watched: Watched) -> None:
    watched.put("a.mrc", volume_bytes(1))
    watched.settle()
    watched.put("b.mrc", volume_bytes(1))
    watched.settle()
    watched.put("b.mrc", volume_bytes(2))
    (row,) = watched.settle().sealed
    assert (row.tomogram, row.revision) == ("b", 2)
    assert watched.collection.ids == ("a", "b")
    assert watched.sha256("a") == _sha256(volume_bytes(1))


def test_another_file_of_the_same_stem_does_not_replace_the_first(watched: Watched) -> None:
    watched.put("x/a.mrc", volume_bytes(1))
    watched.settle()
    watched.put("y/a.mrc", volume_bytes(2))
    (row,) = watched.settle().quarantined
    assert "there is a tomogram 'a' already" in (row.reason or "")
    assert watched.sha256("a") == _sha256(volume_bytes(1))


def test_ids_by_folder_keep_them_apart(tmp_path: Path) -> None:
    watched = Watched(tmp_path, WatchRules(folder=(FolderRule(id="{folder}_{stem}"),)))
    watched.put("x/a.mrc", volume_bytes(1))
    watched.put("y/a.mrc", volume_bytes(2))
    watched.settle()
    assert watched.collection.ids == ("x_a", "y_a")


def test_bad_files_are_quarantined_until_they_change(watched: Watched) -> None:
    good = volume_bytes(1)
    watched.put("long.mrc", good + b"more")
    watched.put("cut.mrc", good[:-3])
    watched.put("empty.mrc", b"")
    watched.put("image.mrc", mrc_bytes(np.ones((1, 5, 5), np.int16)))
    watched.put("good.mrc", good)
    report = watched.settle()
    assert {row.path.name for row in report.quarantined} == {"long.mrc", "image.mrc"}
    assert {row.path.name for row in report.waiting} == {"cut.mrc", "empty.mrc"}
    assert (report.stalled, report.exit_code) == ([], 5)
    report = watched.look(600)
    assert {row.path.name for row in report.stalled} == {"cut.mrc", "empty.mrc"}
    assert report.stalled == report.quarantined
    reports = read_reports(watched.collection.workspace)
    assert [entry["id"] for entry in reports] == ["cut", "empty", "image", "long"]
    assert all(entry["reason"] in " ".join(watched.warnings()) for entry in reports)
    assert not watched.look(600).did_something
    watched.put("cut.mrc", good[:1024] + volume_bytes(2)[1024:])
    assert [row.tomogram for row in watched.settle().sealed] == ["cut"]
    assert [entry["id"] for entry in read_reports(watched.collection.workspace)] == [
        "empty", "image", "long",
    ]  # fmt: skip


def test_an_mdoc_holds_a_file_back_and_lends_its_voxel_size(watched: Watched) -> None:
    volume = np.random.default_rng(0).integers(1, 99, (3, 6, 7)).astype(np.int16)
    watched.put("a.mrc", mrc_bytes(volume, spacing=0))
    text = "PixelSpacing = 7.5\nImageSize = 7 6\n" + "[ZValue = 0]\n" * 4
    mdoc = watched.put("a.mrc.mdoc", text.encode())
    watched.settle()
    (row,) = watched.look(60).waiting
    assert row.reason == f"{watched.folder}/a.mrc has 3 sections, its mdoc names 4"
    mdoc.write_text(text.replace("[ZValue = 0]\n" * 4, "[ZValue = 0]\n" * 3))
    (row,) = watched.look(1).sealed
    assert row.detail["mdoc"]["n_sections"] == 3
    assert row.detail["voxel_size_from"] == "mdoc"
    assert watched.collection["a"].spacing_angstrom == (7.5, 7.5, 7.5)


def test_a_file_that_is_written_while_it_is_read_goes_back_to_settling(watched: Watched) -> None:
    data, later = volume_bytes(1), volume_bytes(2)
    path = watched.put("a.mrc", data)
    watched.look()

    def meddle(event: Event) -> None:
        if isinstance(event, Started):
            path.write_bytes(later[:-7])

    watched.clock.advance(31)
    report = watched.poll(meddle)
    assert ([row.state for row in report.waiting], report.quarantined) == (["seen"], [])
    assert watched.collection.ids == ()
    assert not [p for p in (watched.collection.workspace / ".staging").iterdir() if p.is_dir()]
    path.write_bytes(later)
    watched.settle()
    assert watched.sha256("a") == _sha256(later)
    assert read_reports(watched.collection.workspace) == []


def test_a_file_that_is_locked_is_tried_again_but_not_forever(watched: Watched) -> None:
    watched.put("a.mrc", volume_bytes(1))
    workspace = watched.collection.workspace
    staging = staging_folder(workspace, workspace / "tomograms" / "a" / "raw")
    with locked(lock_file(staging)):
        for attempt in range(1, 10):
            (row,) = watched.settle().waiting
            assert row.attempts == attempt
        (row,) = watched.settle().quarantined
    assert "after 10 attempts" in (row.reason or "")
    assert watched.collection.ids == ()


def test_a_file_that_cannot_be_read_now_is_not_given_up_at_once(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path) -> None:
        with reading_source(path):
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(path))

    watched.put("a.mrc", volume_bytes(1))
    with monkeypatch.context() as patch:
        patch.setattr(examine, "packing_of", fail)
        for attempt in range(1, 6):
            (row,) = watched.look(31).waiting
            assert (row.attempts, "Stale" in (row.reason or "")) == (attempt, True)
    assert [row.attempts for row in watched.settle().sealed] == [0]


def test_a_folder_that_is_not_there_is_no_empty_folder(watched: Watched) -> None:
    away = watched.folder.with_name("away")
    watched.folder.rename(away)
    with pytest.raises(NotFoundError):
        watched.look()
    away.rename(watched.folder)
    path = watched.put("a.mrc", volume_bytes(1))
    watched.put("b.mrc", volume_bytes(2)[:-1])
    watched.settle()
    before = watched.rows()
    watched.folder.rename(away)
    with pytest.raises(TemporaryFailure, match="is not there, 2 files were: mount it again"):
        watched.look()
    watched.folder.mkdir()
    with pytest.raises(TemporaryFailure, match=r"is empty, 2 files were .* --may-be-empty"):
        watched.look()
    assert watched.rows() == before
    watched.folder.rmdir()
    away.rename(watched.folder)
    assert not watched.look().did_something
    path.unlink()
    (watched.folder / "b.mrc").unlink()
    rules = WatchRules(may_be_empty=True)
    cleared = Poll(watched.collection, watched.folder, rules, clock=watched.clock)
    assert cleared().waiting == []
    assert watched.states() == {"a.mrc": "sealed"}


def test_a_lost_ledger_costs_reading_and_no_second_tomogram(watched: Watched) -> None:
    watched.put("a.mrc", volume_bytes(1))
    watched.settle()
    watched.put("copy.mrc", volume_bytes(1))
    watched.put("b.mrc", volume_bytes(2))
    watched.settle()
    digests = {tomo.id: tomo.digest("raw") for tomo in watched.collection}
    states = watched.states()
    ledger_path(watched.collection.workspace).unlink()
    watched.settle()
    assert watched.states() == states
    assert {tomo.id: tomo.digest("raw") for tomo in watched.collection} == digests


def test_what_was_ingested_by_hand_is_known(watched: Watched) -> None:
    path = watched.put("a.mrc", volume_bytes(1))
    ingest(watched.collection, [path])
    digest = watched.collection["a"].digest("raw")
    assert [row.tomogram for row in watched.settle().sealed] == ["a"]
    assert watched.collection["a"].digest("raw") == digest


def test_names_that_are_no_sources_are_left_alone(watched: Watched) -> None:
    data = volume_bytes(1)
    for name in ("._a.mrc", ".hidden/a.mrc", "a.mrc.tmp", "~a.mrc", "a.txt", "a.mrcs"):
        watched.put(name, data)
    os.mkfifo(watched.folder / "pipe.mrc")
    (watched.folder / "dir.mrc").mkdir()
    (watched.folder / "nowhere.mrc").symlink_to(watched.folder / "nothing")
    report = watched.settle()
    assert (report.waiting, report.did_something) == ([], False)


def test_links_to_files_are_followed(watched: Watched, tmp_path: Path) -> None:
    (tmp_path / "data.mrc").write_bytes(volume_bytes(1))
    (watched.folder / "a.mrc").symlink_to(tmp_path / "data.mrc")
    assert [row.tomogram for row in watched.settle().sealed] == ["a"]


def test_a_name_that_no_text_can_hold_is_quarantined(watched: Watched) -> None:
    path = watched.folder / os.fsdecode(b"ts_\xff.mrc")
    try:
        path.write_bytes(volume_bytes(1))
    except OSError:
        pytest.skip("this file system refuses such names")
    watched.put("good.mrc", volume_bytes(2))
    report = watched.settle()
    assert [row.tomogram for row in report.sealed] == ["good"]
    (row,) = report.quarantined
    assert "rename it" in (row.reason or "")
    json.dumps(report.to_json()).encode()


def test_what_is_too_large_for_the_memory_stops_no_other(watched: Watched) -> None:
    watched.put("big.mrc", volume_bytes(1, (64, 300, 300)))
    watched.put("small.mrc", volume_bytes(2))
    watched.look()
    watched.clock.advance(31)
    enough_for_small = (210 + 40 * min(4, usable_cores())) * 10**6
    look = Poll(
        watched.collection,
        watched.folder,
        RULES,
        memory_bytes=enough_for_small,
        clock=watched.clock,
    )
    report = look()
    assert [row.tomogram for row in report.sealed] == ["small"]
    assert "--memory" in (report.quarantined[0].reason or "")


def test_of_what_does_not_fit_some_is_taken(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(poll, "_AT_ONCE", 2)
    for i in range(5):
        watched.put(f"ts_{i}.mrc", volume_bytes(i))
    watched.look()
    usage = shutil.disk_usage

    def full_after_four(folder: Any) -> Any:
        return type("usage", (), {"free": 10}) if len(watched.collection) >= 4 else usage(folder)

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", full_after_four)
        with pytest.raises(OutOfSpace):
            watched.look(31)
    assert list(watched.states().values()).count("sealed") == 4
    assert [row.tomogram for row in watched.look().sealed] == ["ts_4"]


def test_an_end_that_is_asked_for_keeps_what_is_done(watched: Watched) -> None:
    for i in range(4):
        watched.put(f"ts_{i}.mrc", volume_bytes(i))
    watched.look()
    n_begun = 0

    def stop_at_the_third(event: Event) -> None:
        nonlocal n_begun
        n_begun += isinstance(event, Started)
        if n_begun == 3:
            raise Stopped("enough")

    watched.clock.advance(31)
    report = watched.poll(stop_at_the_third)
    assert report.was_stopped
    assert (len(report.sealed), len(report.waiting), report.exit_code) == (2, 2, 3)
    assert len(watched.look().sealed) == 2


@pytest.mark.parametrize("boot", ["boot", "another"])
def test_a_clock_that_is_set_back_or_begins_anew_takes_nothing_early(
    watched: Watched, boot: str
) -> None:
    watched.put("a.mrc", volume_bytes(1))
    watched.look()
    watched.clock.boot, watched.clock.seconds = boot, 500.0
    assert watched.look().sealed == []
    assert watched.look(29).sealed == []
    assert len(watched.look(2).sealed) == 1


@pytest.mark.parametrize("mtime_seconds", [0, -86400 * 365 * 20, 4_000_000_000])
def test_times_of_files_are_only_compared_with_themselves(
    watched: Watched, mtime_seconds: int
) -> None:
    path = watched.put("a.mrc", volume_bytes(1))
    os.utime(path, (mtime_seconds, mtime_seconds))
    watched.look()
    assert watched.look(29).sealed == []
    assert len(watched.look(2).sealed) == 1


def test_a_wall_clock_that_jumps_changes_nothing(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched.put("a.mrc", volume_bytes(1))
    real = time.time
    watched.look()
    for offset in (3600, -3600):
        monkeypatch.setattr(time, "time", lambda offset=offset: real() + offset)
        assert watched.look(10).sealed == []
    assert len(watched.look(11).sealed) == 1


def test_a_subfolder_that_cannot_be_read_forgets_nothing(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched.put("sub/a.mrc", volume_bytes(1))
    watched.put("b.mrc", volume_bytes(2))
    watched.look()
    real = os.scandir

    def scandir(path: Any) -> Any:
        if str(path).endswith("sub"):
            raise PermissionError(13, "no", str(path))
        return real(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", scandir)
        watched.look(10)
    assert any("sub" in message for message in watched.warnings())
    assert {row.tomogram for row in watched.look(21).sealed} == {"a", "b"}


def test_the_source_is_only_read(watched: Watched) -> None:
    watched.put("a.mrc", volume_bytes(1))
    watched.put("sub/b.mrc", volume_bytes(2)[:-1])

    def state() -> list[tuple[str, int, int, int]]:
        found = []
        for path in sorted(watched.folder.rglob("*")):
            status = path.stat()
            found.append((str(path), status.st_mtime_ns, status.st_ctime_ns, status.st_size))
        return [*found, ("", watched.folder.stat().st_mtime_ns, 0, 0)]

    before = state()
    watched.settle()
    watched.look(601)
    assert state() == before
