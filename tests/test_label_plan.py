"""Blocks and workers: as many as the memory holds, and a number where nothing fits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otzi.errors import MemoryBudgetError
from otzi.pseudo.bank import FeatureBank
from otzi_pipelines.label.plan import LabelPlan, plan_labels

BANK = FeatureBank()
SHAPE = (300, 1440, 1024)


def test_without_a_bound_blocks_are_large() -> None:
    plan = plan_labels(BANK, SHAPE, 4, 10_000, workers=3, memory_bytes=None)
    assert (plan.block, plan.workers) == ((128, 128, 128), 3)


@given(st.integers(6 * 10**8, 4 * 10**9), st.integers(1, 6))
def test_what_is_planned_fits(memory_bytes: int, workers: int) -> None:
    plan = plan_labels(BANK, SHAPE, 4, 10_000, workers=workers, memory_bytes=memory_bytes)
    assert plan.memory_bytes <= memory_bytes
    assert 1 <= plan.workers <= workers
    assert all(side % 64 == 0 for side in plan.block)
    more = plan_labels(BANK, SHAPE, 4, 10_000, workers=workers, memory_bytes=2 * memory_bytes)
    assert more.workers >= plan.workers


def test_too_little_memory_is_refused_by_number() -> None:
    with pytest.raises(
        MemoryBudgetError,
        match=r"10000 stroke voxels .* need \d+\.?\d* [MG]B, --memory is 100.0 MB: ",
    ):
        plan_labels(BANK, SHAPE, 4, 10_000, workers=2, memory_bytes=10**8)


def planned(processes: int, memory_bytes: int | None) -> LabelPlan:
    return plan_labels(
        BANK, SHAPE, 4, 10_000, workers=2, memory_bytes=memory_bytes, processes=processes
    )


@given(st.integers(25 * 10**8, 8 * 10**9), st.integers(1, 3))
def test_processes_count_and_get_smaller_blocks(memory_bytes: int, processes: int) -> None:
    free, plan = planned(processes, None), planned(processes, memory_bytes)
    assert (free.block, free.workers) == ((128, 128, 128), 2)
    assert planned(processes + 1, None).memory_bytes > free.memory_bytes
    assert plan.memory_bytes <= memory_bytes
    assert plan.block <= free.block


def test_too_many_processes_are_refused_by_number() -> None:
    with pytest.raises(
        MemoryBudgetError,
        match=r"in this process and 9 more, --memory is 2.0 GB: .* run fewer processes",
    ):
        planned(9, 2 * 10**9)
