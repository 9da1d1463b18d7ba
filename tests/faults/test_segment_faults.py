"""Kills of a segmentation: what is published is whole, and little of the work is done again."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import pytest

from fake_models import PlaceModel, Slices
from harness import reported
from labelled import shells
from mrc_files import mrc_bytes
from otzi.collection import create_collection, open_collection
from otzi.errors import OutOfSpace
from otzi.execute import executor
from otzi.networks.weights import load_model
from otzi.store.crashpoints import CRASH_POINTS
from otzi.store.grid import level_grids
from otzi.tiles.batch import store_tiles, window
from otzi.tiles.blocks import BlockPlan
from otzi.tiles.plan import TilePlan
from otzi_pipelines.ingest.batch import ingest
from otzi_pipelines.segment.segmentation import segment
from references import blended, blended_uint8
from test_segment import CLASSES, make_model

if TYPE_CHECKING:
    from collections.abc import Iterator

    from commands import Otzi
    from otzi.box import Box

pytestmark = pytest.mark.faults

HARNESS = Path(__file__).with_name("segment_harness.py")
SHAPE = (4, 60, 700)
PLAN = TilePlan(SHAPE, 88, 16)
GRIDS = level_grids(SHAPE, n_channels=3, chunk_voxels=72, most_shard_voxels=128)
N_SHARDS = sum(len(list(grid.shards())) for grid in GRIDS)
ONCE = {"staged", "metadata-written", "manifest-written", "generation-renamed", "pointer-written"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("segment")


@pytest.fixture(scope="module")
def model(folder: Path) -> Path:
    return make_model(folder / "model")


@pytest.fixture(scope="module")
def source(folder: Path) -> Path:
    """A collection with a tomogram."""
    path = folder / "ts_001.mrc"
    path.write_bytes(mrc_bytes(shells(SHAPE)[0]))
    create_collection(folder / "source", CLASSES)
    ingest(folder / "source", [path])
    return folder / "source"


@pytest.fixture(scope="module")
def unbroken(folder: Path, source: Path, model: Path) -> dict[str, str]:
    """The digests of an undisturbed run."""
    path = shutil.copytree(source, folder / "whole")
    tomo = open_collection(path, "r+")["ts_001"]
    network = load_model(model, device="cpu", threads=1)
    segment(tomo, network, name="net", tile=88, overlap=16)
    return {product: tomo.digest(product) for product in ("probs/net", "ramps/net")}


def _needed_tiles(recorded: list[str]) -> int:
    """Give how many tiles reach into a cell that was not whole."""
    done = {tuple(map(int, key.split("/c/")[1].split("/"))) for key in recorded if key[0] == "0"}
    needed = set()
    for cell in PLAN.tiles:
        box = PLAN.cell(cell)
        start, stop = (0, *box.start), (3, *box.stop)
        shards = {GRIDS[0].shard_of(chunk) for chunk in GRIDS[0].chunk_indices(start, stop)}
        if not shards <= done:
            needed |= set(PLAN.contributors(cell))
    return len(needed)


def test_a_kill_at_every_named_point_loses_nothing(
    source: Path, model: Path, unbroken: dict[str, str], tmp_path: Path
) -> None:
    points = []
    for point in CRASH_POINTS:
        counts = (1,) if point in ONCE else (1, N_SHARDS // 2)
        points += [f"{point}:{count}" for count in counts]
    rows = reported(HARNESS, source, model, tmp_path, "points", *points)
    assert [row["point"] for row in rows] == points
    for row in rows:
        assert row["killed"] == -signal.SIGKILL, row
        is_published = row["point"] == "pointer-written:1"
        seen = {"probs/net": unbroken["probs/net"]} if is_published else {}
        assert row["seen"] == seen, row
        assert row["code"] == 0, row
        assert row["digests"] == unbroken, row
        assert row["wrong"] == [], row
        assert row["tiles"] == (0 if is_published else _needed_tiles(row["recorded"])), row
    halfway = next(row for row in rows if row["point"] == f"shard-recorded:{N_SHARDS // 2}")
    assert 0 < halfway["tiles"] < PLAN.n_tiles


def _assert_harmless(rows: list[dict[str, Any]], unbroken: dict[str, str], n_kills: int) -> None:
    assert sum(row["kills"] for row in rows) >= n_kills
    assert sum(row["staged"] for row in rows) >= n_kills // 12
    for row in rows:
        for seen in row["seen"]:
            assert seen.items() <= unbroken.items(), row
        assert row["digests"] == unbroken, row
        assert row["wrong"] == [], row


def test_random_kills_end_in_the_same_bytes(
    source: Path, model: Path, unbroken: dict[str, str], tmp_path: Path
) -> None:
    _assert_harmless(reported(HARNESS, source, model, tmp_path, "kills", 12, 1), unbroken, 12)


@pytest.mark.slow
def test_two_hundred_random_kills_end_in_the_same_bytes(
    source: Path, model: Path, unbroken: dict[str, str], tmp_path: Path
) -> None:
    _assert_harmless(reported(HARNESS, source, model, tmp_path, "kills", 200, 2), unbroken, 200)


# Processes


def _begin(collection: Path, model: Path) -> subprocess.Popen[str]:
    words = ["segment", collection, "--model", model, "--name", "net", "--device", "cpu"]
    words += ["--tile", "88", "--overlap", "16", "--executor", "processes:2"]
    command = [sys.executable, "-m", "otzi", *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _workers(coordinator: subprocess.Popen[str]) -> list[psutil.Process]:
    """Give the worker processes: those that have the most memory of all descendants."""
    below = psutil.Process(coordinator.pid).children(recursive=True)
    return sorted(below, key=lambda process: -process.memory_info().rss)[:2]


def _wait_for_shards(run: subprocess.Popen[str], collection: Path, n_shards: int) -> None:
    journal = collection / ".staging" / "tomograms.ts_001.probs.net.journal"
    while not journal.exists() or len(journal.read_text().splitlines()) <= n_shards:
        assert run.poll() is None, run.communicate()
        time.sleep(0.005)


def test_a_worker_that_is_killed_is_made_up_for(
    source: Path, model: Path, unbroken: dict[str, str], tmp_path: Path
) -> None:
    path = shutil.copytree(source, tmp_path / "c")
    run = _begin(path, model)
    _wait_for_shards(run, path, 1)
    _workers(run)[0].kill()
    _, err = run.communicate(timeout=100)
    assert run.returncode == 0, err
    tomo = open_collection(path)["ts_001"]
    assert {product: tomo.digest(product) for product in unbroken} == unbroken


def test_a_lost_worker_s_tiles_are_few(tmp_path: Path) -> None:
    """Beside what it was at, a worker has the parts of the last tiles for cells to come."""
    plan = TilePlan((8, 8, 400), 16, 8)
    model = PlaceModel(count=tmp_path / "count", seconds=0.02)
    volume = np.random.default_rng(0).normal(0, 1, plan.shape).astype(np.float32)
    found = np.zeros((3, *plan.shape), np.uint8)
    n_taken = 0
    mine = psutil.Process()
    others = set(mine.children(recursive=True))
    with executor("processes:2") as running:

        def take(cell: Box, stored: np.ndarray) -> None:
            nonlocal n_taken
            n_taken += 1
            found[(slice(None), *cell.slices)] = stored
            if n_taken == 20:
                below = set(mine.children(recursive=True)) - others
                max(below, key=lambda process: process.memory_info().rss).kill()

        store_tiles(Slices(volume), model, BlockPlan(plan), take, running)
    np.testing.assert_array_equal(found, blended_uint8(blended(volume, PlaceModel(), 16, 8)))
    assert n_taken == plan.n_tiles == 49
    n_inferred = (tmp_path / "count").stat().st_size
    assert plan.n_tiles <= n_inferred <= plan.n_tiles + 2 * window(BlockPlan(plan), 2)


def test_a_coordinator_that_is_killed_takes_its_workers_along_and_is_gone_on_with(
    source: Path, model: Path, unbroken: dict[str, str], tmp_path: Path, otzi: Otzi
) -> None:
    path = shutil.copytree(source, tmp_path / "c")
    run = _begin(path, model)
    _wait_for_shards(run, path, 2)
    below = psutil.Process(run.pid).children(recursive=True)
    run.kill()
    run.communicate()
    assert not psutil.wait_procs(below, timeout=20)[1]
    words = ("--name", "net", "--tile", 88, "--overlap", 16, "--device", "cpu", "--workers", 2)
    assert otzi("segment", path, "--model", model, *words).code == 0
    tomo = open_collection(path)["ts_001"]
    assert {product: tomo.digest(product) for product in unbroken} == unbroken


# Disks


@pytest.mark.parametrize("share", [0.05, 0.6])
def test_a_disk_that_fills_up_leaves_nothing_half_made(
    disk: Path, source: Path, model: Path, unbroken: dict[str, str], share: float, otzi: Otzi
) -> None:
    """`share` of what the product takes is free."""
    path = shutil.copytree(source, disk / "c")
    whole = open_collection(source.parent / "whole")["ts_001"]
    needed_bytes = sum(n_bytes for n_bytes, _ in whole.manifest("probs/net").values())
    (disk / "ballast").write_bytes(bytes(shutil.disk_usage(disk).free - int(share * needed_bytes)))
    words = ("--name", "net", "--tile", 88, "--overlap", 16, "--device", "cpu")
    full = otzi("segment", path, "--model", model, *words)
    assert full.code == OutOfSpace.exit_code, full.err
    assert "no space left" in full.err
    assert not open_collection(path)["ts_001"].has("probs/net")
    (disk / "ballast").unlink()
    assert otzi("segment", path, "--model", model, *words).code == 0
    tomo = open_collection(path)["ts_001"]
    assert {product: tomo.digest(product) for product in unbroken} == unbroken


# Work done again, on the plan


def _redone_after_kill(blocks: BlockPlan, n_workers: int) -> Iterator[float]:
    """Yield, for a kill after each cell, the share of tiles that were inferred and are again."""
    sweep, n_tiles = blocks.sweep, blocks.plan.n_tiles
    ahead = window(blocks, n_workers)
    needs = {b: {n for cell in blocks.members(b) for n in blocks.contributors(cell)} for b in sweep}
    for n_whole in range(len(sweep)):
        inferred = set(sweep[: n_whole + ahead])
        again = set().union(*(needs[block] for block in sweep[n_whole:])) & inferred
        yield sum(len(blocks.members(block)) for block in again) / n_tiles


def test_at_the_reference_size_little_is_done_again() -> None:
    """As many tiles as the window allows are lost, and the face towards unfinished cells."""
    shares = list(_redone_after_kill(BlockPlan(TilePlan((500, 1440, 1024))), 2))
    assert len(shares) == 825
    assert max(shares) <= 0.08
    assert np.mean(shares) <= 0.075
