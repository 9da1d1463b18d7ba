"""Ledgers that are lost, and clocks that jump: work may be done twice, and none is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from invariants import broken, published
from otzi.ledger.sqlite import ledger_path, open_catalog
from otzi.ledger.stages import read_stages
from otzi_pipelines.run.coordinator import run_collection
from run_stages import Times, pipeline

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from commands import Otzi
    from conftest import World
    from otzi.tomogram import Tomogram

pytestmark = pytest.mark.faults


def _told(path: Path) -> list[Any]:
    return [
        (row.tomogram, row.stage, row.state, row.input_digest, row.output_digest)
        for row in read_stages(path)
    ]


@pytest.mark.parametrize("is_rebuilt", [False, True])
def test_a_lost_ledger_is_made_again_and_nothing_else_is(
    world: World, tmp_path: Path, otzi: Otzi, is_rebuilt: bool
) -> None:
    path = tmp_path / "c"
    assert otzi("run", path, world.pipeline).code == 0
    rows, places = _told(path), sorted(path.glob("tomograms/*/*/*"))
    for file in path.glob(f"{ledger_path(path).name}*"):
        file.unlink()
    if is_rebuilt:
        assert otzi("ledger", "rebuild", path).code == 0
        assert broken(path, is_over=True) == []
    assert otzi("run", path, world.pipeline).code == 0
    assert _told(path) == rows
    assert sorted(path.glob("tomograms/*/*/*")) == places  # generations are numbered
    world.undisturbed.holds(path)


def test_a_clock_that_is_an_hour_ahead_has_work_done_twice_and_committed_once(
    add_tomogram: Callable[..., Tomogram], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else takes the lease for over and works, too; whoever held it commits nothing."""
    monkeypatch.setattr("otzi_pipelines.run.stage_worker._LOOK_AGAIN_SECONDS", 0.05)
    path = add_tomogram(np.arange(120, dtype=np.uint8).reshape(4, 5, 6) % 2).collection.workspace
    second = Times("twice")

    def jump(tomogram: str) -> None:
        if not second.ran:
            with open_catalog(path) as catalog, catalog.transaction():
                catalog.execute("UPDATE stage SET lease_until = lease_until - 3600")
            assert run_collection(path, pipeline(second), force=True).exit_code == 0

    assert run_collection(path, pipeline(Times("twice", during=jump))).exit_code == 0
    assert second.ran == {"ts_001": 1}
    assert [row.state for row in read_stages(path)] == ["committed"]
    with open_catalog(path) as catalog:
        kinds = catalog.execute("SELECT kind FROM event WHERE stage = 'times/twice'").fetchall()
    assert [kind for (kind,) in kinds].count("committed") == 1
    assert set(published(path)) == {"ts_001/raw", "ts_001/labels/twice"}
    assert broken(path, is_over=True) == []
