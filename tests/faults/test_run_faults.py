"""Kills of a coordinator: no part of a product is ever seen, nothing is lost, all ends the same."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness import reported
from invariants import content
from mrc_files import mrc_bytes
from otzi.store.crashpoints import CRASH_POINTS, RUN_POINTS

pytestmark = pytest.mark.faults

HARNESS = Path(__file__).with_name("run_harness.py")
N_VOLUMES = 3
N_PRODUCTS = 2 * N_VOLUMES
SHAPE = (20, 40, 36)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sources")
    for n in range(N_VOLUMES):
        volume = np.random.default_rng(n).integers(-90, 90, SHAPE).astype(np.int8)
        (folder / f"ts_{n}.mrc").write_bytes(mrc_bytes(volume))
    (folder / "bad.mrc").write_bytes(b"no tomogram" * 50)
    return folder


@pytest.fixture(scope="module")
def unbroken(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Give what an undisturbed run ends in; the point is never reached."""
    (row,) = _harness(sources, tmp_path_factory.mktemp("unbroken"), "points", "nowhere:1")
    assert row["killed"] == row["code"] == 5
    assert len(row["digests"]) == N_PRODUCTS
    return row


def _harness(sources: Path, folder: Path, *words: object) -> list[dict[str, Any]]:
    before = content(sources)
    rows = reported(HARNESS, sources, folder, *words)
    assert content(sources) == before
    return rows


def _assert_whole(row: dict[str, Any], unbroken: dict[str, Any]) -> None:
    """All ends as if nothing had been, whatever was killed on the way."""
    assert row["code"] == 5, row  # the bad file
    assert row["wrong"] == [], row
    assert row["digests"] == unbroken["digests"], row
    assert row["rows"] == unbroken["rows"], row


def _kill_at(sources: Path, folder: Path, unbroken: dict[str, Any], points: list[str]) -> None:
    rows = _harness(sources, folder, "points", *points)
    assert [row["point"] for row in rows] == points
    for row in rows:
        assert row["killed"] == -signal.SIGKILL, row
        assert row["seen"]["wrong"] == [], row
        assert row["seen"]["digests"].items() <= unbroken["digests"].items(), row
        _assert_whole(row, unbroken)


def test_a_kill_at_every_boundary_of_a_stage_loses_nothing(
    sources: Path, unbroken: dict[str, Any], tmp_path: Path
) -> None:
    """At the first, a middle and the last; the bad file is claimed and never committed."""
    last = {"stage-claimed": N_PRODUCTS + 1}
    points = [
        f"{point}:{n}" for point in RUN_POINTS for n in (1, N_VOLUMES, last.get(point, N_PRODUCTS))
    ]
    _kill_at(sources, tmp_path, unbroken, points)


def test_a_kill_at_every_boundary_of_a_publish_loses_nothing(
    sources: Path, unbroken: dict[str, Any], tmp_path: Path
) -> None:
    _kill_at(sources, tmp_path, unbroken, [f"{point}:{N_VOLUMES}" for point in CRASH_POINTS])


@pytest.mark.slow
@pytest.mark.parametrize("n", [1, N_PRODUCTS])
def test_a_kill_at_every_boundary_of_the_first_and_the_last_publish(
    sources: Path, unbroken: dict[str, Any], tmp_path: Path, n: int
) -> None:
    _kill_at(sources, tmp_path, unbroken, [f"{point}:{n}" for point in CRASH_POINTS])


def _kill_at_random(
    sources: Path, folder: Path, unbroken: dict[str, Any], n_kills: int, seed: int
) -> None:
    rows = _harness(sources, folder, "kills", n_kills, seed)
    assert sum(row["kills"] for row in rows) >= n_kills
    assert sum(row["staged"] for row in rows) >= n_kills // 10
    for row in rows:
        assert row["seen"] == sorted(row["seen"]), row
        _assert_whole(row, unbroken)


def test_thirty_random_kills_end_in_the_same_bytes(
    sources: Path, unbroken: dict[str, Any], tmp_path: Path
) -> None:
    _kill_at_random(sources, tmp_path, unbroken, 30, 1)


@pytest.mark.slow
def test_two_hundred_random_kills_end_in_the_same_bytes(
    sources: Path, unbroken: dict[str, Any], tmp_path: Path
) -> None:
    _kill_at_random(sources, tmp_path, unbroken, 200, 2)
