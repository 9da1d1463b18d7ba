"""What a run takes: networks, unfinished cells, and what every process has besides."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from otzi.errors import MemoryBudgetError
from otzi.tiles.blocks import BlockPlan
from otzi.tiles.plan import TilePlan
from otzi_pipelines.ramps.histograms import SliceHistograms
from otzi_pipelines.segment import budget
from otzi_pipelines.segment.budget import Budget, left_bytes, workers_that_fit

if TYPE_CHECKING:
    from otzi.box import Zyx
    from otzi.tiles.blend import ProbabilityType

PLAN = TilePlan((40, 40, 80), 16, 4)
MB = 10**6
# 10 MB for each tile, whatever its size.
MODEL: Any = SimpleNamespace(
    classes=("a", "b", "c"), n_measures=1, memory_bytes=lambda tile: 10 * MB
)
COUNTS_BYTES = SliceHistograms(3, 40, "uint8").counts.nbytes


@pytest.fixture(autouse=True)
def _small_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "resident_memory_bytes", lambda: 200 * MB)


def made(
    tiles_per_block: Zyx = (1, 1, 1),
    *,
    in_processes: bool = False,
    dtype: ProbabilityType = "uint8",
) -> Budget:
    return Budget(BlockPlan(PLAN, tiles_per_block), MODEL, in_processes, dtype)


def test_threads_share_a_process() -> None:
    waiting = [BlockPlan(PLAN).frontier_bytes(2 * n, 4) for n in (1, 2)]
    assert made().needed_bytes(1) == (200 + 100 + 10) * MB + COUNTS_BYTES + waiting[0]
    assert made().needed_bytes(2) == (200 + 100 + 20) * MB + COUNTS_BYTES + waiting[1]


def test_probabilities_as_floats_have_more_codes_to_count() -> None:
    more = made(dtype="float32").needed_bytes(1) - made().needed_bytes(1)
    assert more == SliceHistograms(3, 40, "float32").counts.nbytes - COUNTS_BYTES


def test_a_worker_process_takes_what_it_imports() -> None:
    for n in (1, 3):
        assert made(in_processes=True).needed_bytes(n) == made().needed_bytes(n) + n * 500 * MB


def test_a_block_of_tiles_takes_its_density_and_its_sums() -> None:
    blocks = BlockPlan(PLAN, (2, 2, 2))
    n_voxels = blocks.reach((0, 0, 0)).n_voxels
    for n in (1, 2):
        waiting = blocks.frontier_bytes(n + 1, 4)
        expected = (200 + 100 + 10 * n) * MB + COUNTS_BYTES + waiting + n * n_voxels * 5 * 4
        assert made((2, 2, 2)).needed_bytes(n) == expected


def test_as_many_workers_as_fit_and_what_they_leave() -> None:
    needed = [made().needed_bytes(n) for n in (1, 2, 3)]
    assert workers_that_fit(made(), 3, needed[1]) == 2
    assert left_bytes(made(), 2, needed[1] + 7) == 7
    assert left_bytes(made(in_processes=True), 2, made(in_processes=True).needed_bytes(2) + 9) == 4
    assert left_bytes(made(), 3, needed[2] - 1) == 0


def test_workers_that_are_there_already_must_all_fit() -> None:
    allowed = made(in_processes=True).needed_bytes(2) - 1
    assert workers_that_fit(made(in_processes=True), 2, allowed) == 1
    with pytest.raises(MemoryBudgetError, match=r"2 tiles of 16 voxels .* --memory is 1\.3 GB"):
        workers_that_fit(made(in_processes=True), 2, allowed, fewest=2)
