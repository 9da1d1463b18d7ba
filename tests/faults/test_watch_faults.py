"""Faults of watching: kills, two at once, spoiled bytes, writers that never rest; none is lost."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import reported
from mrc_files import mrc_bytes
from otzi.collection import create_collection, open_collection
from otzi.ledger.audit import audit
from otzi.ledger.sources import read_source_rows
from otzi.store.crashpoints import CRASH_POINTS
from otzi_pipelines.watch.poll import Poll
from otzi_pipelines.watch.rules import WatchRules
from watching import FakeClock, volume_bytes

pytestmark = pytest.mark.faults

HARNESS = Path(__file__).with_name("watch_harness.py")
COMMAND = [sys.executable, "-m", "otzi", "watch"]
ENDED = {"sealed", "duplicate", "quarantined"}


# Rows 1 and 5: kills


@pytest.fixture
def incoming(tmp_path: Path) -> Path:
    """Nine files: six volumes, a duplicate, two bad ones."""
    folder = tmp_path / "in"
    folder.mkdir()
    for i in range(5):
        (folder / f"ts_{i}.mrc").write_bytes(volume_bytes(i))
    (folder / "warm.mrc").write_bytes(volume_bytes(5))
    (folder / "z_twin.mrc").write_bytes(volume_bytes(0))
    os.utime(folder / "ts_0.mrc", ns=(10**18, 10**18))
    (folder / "cut.mrc").write_bytes(volume_bytes(6)[:-3])
    (folder / "image.mrc").write_bytes(mrc_bytes(np.ones((1, 5, 5), np.int16)))
    return folder


def _expected(incoming: Path, tmp_path: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Digests of the products and states of the files after an undisturbed run."""
    col = create_collection(tmp_path / "undisturbed")
    poll = Poll(col, incoming, WatchRules(settle_seconds=0, stall_seconds=0))
    while poll().waiting:
        pass
    states = {row.path.name: row.state for row in read_source_rows(col.workspace)}
    assert sorted(states.values()) == ["duplicate", "quarantined", "quarantined", *["sealed"] * 6]
    return {tomo.id: tomo.digest("raw") for tomo in col}, states


def test_a_kill_at_every_named_point_of_any_volume_loses_nothing(
    incoming: Path, tmp_path: Path
) -> None:
    digests, states = _expected(incoming, tmp_path)
    points = [f"{point}:{volume}" for point in CRASH_POINTS for volume in (1, 3, 6)]
    for row in reported(HARNESS, tmp_path, "points", *points):
        assert (row["killed"], row["code"]) == (-signal.SIGKILL, 0), row
        assert row["seen"]["digests"].items() <= digests.items(), row
        assert set(row["seen"]["sealed"]) <= row["seen"]["digests"].keys(), row
        assert (row["digests"], row["states"]) == (digests, states), row
        assert row["wrong"] == [], row


def _assert_harmless(rows: list[dict[str, Any]], expected: tuple[Any, Any]) -> None:
    digests, states = expected
    for row in rows:
        for seen in row["seen"]:
            assert seen["digests"].items() <= digests.items(), row
            assert set(seen["sealed"]) <= seen["digests"].keys(), row
        assert (row["digests"], row["states"], row["wrong"]) == (digests, states, []), row


def test_random_kills_end_in_the_same_bytes(incoming: Path, tmp_path: Path) -> None:
    rows = reported(HARNESS, tmp_path, "kills", 12, 1)
    assert sum(row["kills"] for row in rows) >= 12
    _assert_harmless(rows, _expected(incoming, tmp_path))


@pytest.mark.slow
def test_two_hundred_random_kills_end_in_the_same_bytes(incoming: Path, tmp_path: Path) -> None:
    rows = reported(HARNESS, tmp_path, "kills", 200, 2)
    _assert_harmless(rows, _expected(incoming, tmp_path))


# Row 8: spoiled files


def _spoiled(rng: random.Random, number: int) -> bytes:
    data = bytearray(volume_bytes(number))
    for _ in range(rng.randint(1, 6)):
        data[rng.randrange(256 if rng.random() < 0.8 else len(data))] = rng.randrange(256)
    way = rng.random()
    if way < 0.15:
        return bytes(data[: rng.randrange(len(data))])
    return bytes(data) + bytes(rng.randint(1, 99)) if way < 0.3 else bytes(data)


def _assert_every_file_ends(tmp_path: Path, n_files: int, seed: int) -> None:
    rng = random.Random(seed)
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(n_files):
        (folder / f"ts_{number:04}.mrc").write_bytes(_spoiled(rng, number))
    for number in range(3):
        (folder / f"good_{number}.mrc").write_bytes(volume_bytes(10_000 + number))
    clock = FakeClock()
    poll = Poll(create_collection(tmp_path / "c"), folder, WatchRules(), clock=clock)
    for seconds in (0, 31, 600, 31, 600):
        clock.advance(seconds)
        poll()
    rows = read_source_rows(tmp_path / "c")
    assert len(rows) == n_files + 3
    assert {row.state for row in rows} <= ENDED
    assert all(row.reason for row in rows if row.state == "quarantined")
    good = [row.state for row in rows if row.path.name.startswith("good")]
    assert good == ["sealed"] * 3
    assert any(row.state == "quarantined" for row in rows)
    assert audit(tmp_path / "c").findings == []


def test_every_spoiled_file_ends_with_a_reason(tmp_path: Path) -> None:
    _assert_every_file_ends(tmp_path, 60, 1)


@pytest.mark.slow
def test_a_thousand_spoiled_files_end_with_a_reason(tmp_path: Path) -> None:
    _assert_every_file_ends(tmp_path, 1000, 2)


# Row 9: writers that do not rest

PIECES = 4
DEEDS = ("write", "reserve", "replace", "cut", "look")


@settings(max_examples=25, deadline=None)
@given(
    steps=st.lists(st.tuples(st.sampled_from(DEEDS), st.integers(1, 40)), min_size=3, max_size=14)
)
def test_only_bytes_that_rested_are_published(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]]
) -> None:
    """Whoever writes and whenever somebody looks: what is published lay there for 30 s."""
    root = tmp_path_factory.mktemp("writers")
    (root / "in").mkdir()
    path, clock = root / "in" / "a.mrc", FakeClock()
    poll = Poll(create_collection(root / "c"), root / "in", WatchRules(), clock=clock)
    rested: set[str] = set()
    content, since, version, n_written = b"", clock.seconds, 0, 0
    for what, seconds in [*steps, ("look", 31), ("look", 31), ("look", 600)]:
        clock.advance(seconds)
        if content and clock.seconds - since >= 30:
            rested.add(hashlib.sha256(content).hexdigest())
        data = volume_bytes(version)
        if what == "write":
            n_written = min(PIECES, n_written + 1)
            n_bytes = len(data) * n_written // PIECES
            new = data[:n_bytes] + (bytes(len(data) - n_bytes) if len(content) > n_bytes else b"")
        elif what == "reserve":
            new, n_written = bytes(len(data)), 0
        elif what == "replace":
            version += 1
            new, n_written = volume_bytes(version), PIECES
        elif what == "cut":
            new = content[: len(content) // 2]
        if what != "look" and new != content:
            path.write_bytes(new)
            content, since = new, clock.seconds
        if what == "look":
            poll()
        for tomo in open_collection(root / "c"):
            assert tomo.attributes("raw")["source"]["sha256"] in rested
    if content:
        states = [row.state for row in read_source_rows(root / "c")]
        assert set(states) <= ENDED | {"superseded"}
        assert states.count("sealed") <= 1


# Rows 10 and 14: two at once


def _run(*words: object) -> subprocess.Popen[str]:
    command = [*COMMAND, *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_watchers_at_the_same_time_make_each_tomogram_once(incoming: Path, tmp_path: Path) -> None:
    digests, _ = _expected(incoming, tmp_path)
    create_collection(tmp_path / "c")
    words = (tmp_path / "c", incoming, "--once", "--settle", "0", "--stall", "0", "--json")
    sealed: list[str] = []
    for _ in range(2):
        watchers = [_run(*words) for _ in range(3)]
        for watcher in watchers:
            out, err = watcher.communicate()
            assert watcher.returncode in (0, 3, 5, 75), err
            assert (watcher.returncode == 75) == ("watched by somebody else" in err), err
            if watcher.returncode != 75:
                sealed += [row["tomogram"] for row in json.loads(out)["sealed"]]
    _run(*words).communicate()
    states = [row.state for row in read_source_rows(tmp_path / "c")]
    assert sorted(states) == ["duplicate", "quarantined", "quarantined", *["sealed"] * 6]
    assert len(sealed) == len(set(sealed))
    assert {tomo.id: tomo.digest("raw") for tomo in open_collection(tmp_path / "c")} == digests


# Row 13: asked to end


@pytest.fixture
def large(tmp_path: Path) -> Path:
    folder = tmp_path / "large"
    folder.mkdir()
    volume = np.random.default_rng(0).integers(1, 99, (512, 256, 256)).astype(np.int16)
    (folder / "a.mrc").write_bytes(mrc_bytes(volume))
    return folder


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_it_ends_amid_a_volume_and_the_next_one_goes_on(
    large: Path, tmp_path: Path, number: signal.Signals
) -> None:
    path = create_collection(tmp_path / "c").path
    assert isinstance(path, Path)
    watcher = _run(path, large, "--every", "0.1s", "--settle", "0.1s")
    until = time.monotonic() + 60
    while not list((path / ".staging").glob("*.journal")) and time.monotonic() < until:
        time.sleep(0.005)
    watcher.send_signal(number)
    begun = time.monotonic()
    watcher.communicate()
    assert time.monotonic() - begun < 30
    # It may have been done with it when the signal came.
    is_done = "a" in open_collection(path)
    assert watcher.returncode == (130 if number == signal.SIGINT else 0 if is_done else 3)
    assert [row.state for row in read_source_rows(path)] == ["sealed" if is_done else "settling"]
    clock = FakeClock()
    poll = Poll(open_collection(path, "r+"), large, WatchRules(settle_seconds=0), clock=clock)
    poll()
    poll()
    undisturbed = create_collection(tmp_path / "undisturbed")
    poll = Poll(undisturbed, large, WatchRules(settle_seconds=0), clock=clock)
    poll()
    poll()
    assert open_collection(path)["a"].digest("raw") == undisturbed["a"].digest("raw")
    assert not [p for p in (path / ".staging").iterdir() if p.suffix != ".lock"]
