"""Kills of an ingest: what is published is whole, what was written is not written again."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness import reported
from mrc_files import mrc_bytes
from otzi.collection import open_collection
from otzi.store.crashpoints import CRASH_POINTS
from otzi.store.grid import level_grids
from otzi_pipelines.ingest.batch import ingest

pytestmark = pytest.mark.faults

HARNESS = Path(__file__).with_name("ingest_harness.py")
SHAPE = (300, 280, 270)
N_SHARDS = sum(len(list(grid.shards())) for grid in level_grids(SHAPE, n_channels=None))
ONCE = {"staged", "metadata-written", "manifest-written", "generation-renamed", "pointer-written"}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("source") / "ts_001.mrc"
    volume = np.random.default_rng(0).integers(-90, 90, SHAPE).astype(np.int8)
    path.write_bytes(mrc_bytes(volume))
    return path


@pytest.fixture(scope="module")
def digest(source: Path) -> str:
    ingest(source.parent / "unbroken", [source])
    return open_collection(source.parent / "unbroken")["ts_001"].digest("raw")


def test_a_kill_at_every_named_point_loses_nothing(
    source: Path, digest: str, tmp_path: Path
) -> None:
    points = []
    for point in CRASH_POINTS:
        counts = (1,) if point in ONCE else (1, N_SHARDS // 2, N_SHARDS)
        points += [f"{point}:{count}" for count in counts]
    rows = reported(HARNESS, source, tmp_path, "points", *points)
    assert [row["point"] for row in rows] == points
    for row in rows:
        assert row["killed"] == -signal.SIGKILL, row
        is_published = row["point"] == "pointer-written:1"
        assert row["seen"] == ({"ts_001": digest} if is_published else {}), row
        assert row["code"] == 0, row
        assert row["digests"] == {"ts_001": digest}, row
        assert row["wrong"] == [], row
        assert row["written"] == (0 if is_published else N_SHARDS - row["recorded"]), row
    recorded = [row["recorded"] for row in rows if row["point"].startswith("shard-recorded")]
    assert recorded == [1, N_SHARDS // 2, N_SHARDS]


def _assert_harmless(rows: list[dict[str, Any]], digest: str, n_kills: int) -> None:
    assert sum(row["kills"] for row in rows) >= n_kills
    assert sum(row["staged"] for row in rows) >= n_kills // 10
    for row in rows:
        assert all(seen in ([], [digest]) for seen in row["seen"]), row
        assert row["digests"] == {"ts_001": digest}, row
        assert row["wrong"] == [], row


def test_thirty_random_kills_end_in_the_same_bytes(
    source: Path, digest: str, tmp_path: Path
) -> None:
    _assert_harmless(reported(HARNESS, source, tmp_path, "kills", 30, 1), digest, 30)


@pytest.mark.slow
def test_two_hundred_random_kills_end_in_the_same_bytes(
    source: Path, digest: str, tmp_path: Path
) -> None:
    _assert_harmless(reported(HARNESS, source, tmp_path, "kills", 200, 2), digest, 200)
