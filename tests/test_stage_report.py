"""How far stages are: counts, times left, metrics, and `otzi status`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from otzi.ledger.stage_report import prometheus_text, stage_counts, whole_seconds_left
from otzi.ledger.stages import Lease, StageRow, embedded_stages
from otzi_pipelines.run.coordinator import run_collection
from run_stages import Times, pipeline

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from commands import Otzi
    from otzi.tomogram import Tomogram


def _row(tomogram: str, stage: str, state: str, seconds: float | None = None) -> StageRow:
    return StageRow(tomogram, stage, "in", state, 1, 0, 1, None, None, seconds, None, None)  # type: ignore[arg-type]


def test_counts_and_times_left() -> None:
    rows = [
        _row("a", "view", "committed", 10.0),
        _row("b", "view", "committed", 30.0),
        _row("c", "view", "committed", None),
        _row("d", "view", "leased"),
        _row("e", "view", "leased"),
        _row("f", "view", "failed", 14.0),
        _row("g", "view", "quarantined"),
        _row("a", "ingest", "committed", 1.0),
    ]
    ingest, view = stage_counts(rows)
    assert (ingest.stage, ingest.n_left, ingest.seconds_left) == ("ingest", 0, 0.0)
    assert view.states == {
        "ready": 0, "leased": 2, "committed": 3, "failed": 1, "quarantined": 1,
    }  # fmt: skip
    assert (view.usual_seconds, view.n_left, view.seconds_left) == (14.0, 3, 42.0)
    assert whole_seconds_left([ingest, view]) == 21.0
    assert whole_seconds_left(stage_counts([_row("a", "view", "ready")])) is None
    assert whole_seconds_left([]) == 0.0


def test_metrics_are_in_the_format_of_prometheus() -> None:
    counts = stage_counts([_row("a", "segment/unet", "committed", 2.5)])
    text = prometheus_text(counts, {"raw": 5_000_000_001}, 3)
    lines = text.splitlines()
    assert "otzi_tomograms 3" in lines
    assert 'otzi_product_bytes{product="raw"} 5000000001' in lines
    assert 'otzi_stage_tomograms{stage="segment/unet",state="committed"} 1' in lines
    assert 'otzi_stage_tomograms{stage="segment/unet",state="leased"} 0' in lines
    assert 'otzi_stage_usual_seconds{stage="segment/unet"} 2.5' in lines
    for name in {line.split("{")[0].split(" ")[0] for line in lines if line[0] != "#"}:
        assert f"# TYPE {name} gauge" in lines
    assert text.endswith("\n")


@pytest.fixture
def path(add_tomogram: Callable[..., Tomogram]) -> Path:
    for name in ("ts_1", "ts_2"):
        tomo = add_tomogram(np.zeros((4, 5, 6), np.uint8), name)
    return tomo.collection.workspace


def test_status_shows_the_stages(path: Path, otzi: Otzi) -> None:
    def fails(tomogram: str, attempt: int) -> Exception | None:
        return ValueError("odd") if tomogram == "ts_2" else None

    run_collection(path, pipeline(Times("twice", fails=fails), Times("more", of="labels/twice")))
    lease = embedded_stages(path).claim("ts_1", "view", "in", None, owner="me", lease_seconds=60)
    assert isinstance(lease, Lease)
    run = otzi("status", path)
    assert run.code == 0
    assert "quarantined  ts_2 times/twice: ValueError: odd" in run.out
    assert "stage        times/twice: 1 done, 1 quarantined" in run.out
    assert "stage        times/more: 1 done" in run.out
    assert "stage        view: 1 running" in run.out
    assert "time left    not known yet" in run.out
    document = json.loads(otzi("status", path, "--json").out)
    assert document["stages"]["times/more"]["committed"] == 1
    assert document["seconds_left"] is None


def test_what_a_run_has_not_come_to_is_to_do(path: Path, otzi: Otzi) -> None:
    seen: list[str] = []

    def during(tomogram: str) -> None:
        seen.append(otzi("status", path).out)

    run_collection(path, pipeline(Times("twice", during=during), Times("own"), volumes=1))
    assert "stage        times/twice: 1 to do, 1 running" in seen[0]
    assert "stage        times/own: 2 to do" in seen[0]
    assert "stage        times/own: 1 to do, 1 done" in seen[1]
    assert "time left" not in otzi("status", path).out


def test_metrics_are_written_whole(path: Path, tmp_path: Path, otzi: Otzi) -> None:
    run_collection(path, pipeline(Times("twice")))
    assert otzi("status", path, "--prometheus", tmp_path / "otzi.prom").code == 0
    text = (tmp_path / "otzi.prom").read_text()
    assert 'otzi_stage_tomograms{stage="times/twice",state="committed"} 2' in text
    assert [file.name for file in tmp_path.glob("otzi.prom*")] == ["otzi.prom"]
    assert otzi("status", path, "--prometheus", tmp_path / "none" / "otzi.prom").code == 2
