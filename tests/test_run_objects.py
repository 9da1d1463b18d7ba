"""The stage objects: like the others it is planned, done once, and again where it has to be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from labelled import add_labels
from otzi.collection import open_collection
from otzi.errors import OtziError
from otzi.ledger.stages import read_stages
from otzi_pipelines.run.coordinator import run_collection
from otzi_pipelines.run.objects_stage import ObjectsStage
from otzi_pipelines.run.pipeline import read_pipeline
from otzi_pipelines.run.stages import input_digest
from otzi_pipelines.run.volume import Volume
from run_stages import Times, pipeline

if TYPE_CHECKING:
    from collections.abc import Callable

    from commands import Otzi
    from otzi.tomogram import Tomogram

SHAPE = (8, 20, 24)
HARD = {"of": "labels/hard", "classes": ["membrane"], "name": "m"}
TOML = """
[[stage]]
stage = "objects"
of = "labels/hard"
classes = ["membrane"]
name = "m"
labels = true
[[stage]]
stage = "objects"
of = "labels/soft"
classes = ["membrane", "lumen"]
name = "both"
threshold = 0.4
min_volume_nm3 = 20
"""


@pytest.fixture
def path(add_tomogram: Callable[..., Tomogram]) -> Path:
    for n in range(2):
        tomo = add_tomogram(np.zeros(SHAPE, np.int8), f"ts_{n}")
        add_labels(tomo, np.random.default_rng(n).integers(0, 3, SHAPE).astype(np.uint8), "hard")
    return tomo.collection.workspace


def counts(path: Path, name: str = "m") -> list[int]:
    return [tomo.attributes(f"objects/{name}")["n_objects"] for tomo in open_collection(path)]


def test_it_is_planned_done_and_not_done_again(path: Path, tmp_path: Path, otzi: Otzi) -> None:
    file = tmp_path / "p.toml"
    file.write_text(TOML)
    run = otzi("run", path, file, "--dry-run", "--json")
    assert run.code == 0, run.err
    items = {(i["tomogram"], i["stage"]): i for i in json.loads(run.out)["items"]}
    assert items["ts_0", "objects/m"]["state"] == "to do"
    assert items["ts_0", "objects/m"]["bytes"] == 4 * np.prod(SHAPE) * 8 // 7
    assert items["ts_1", "objects/both"]["why"] == "for labels/soft"
    assert otzi("run", path, file, "--only", "ts_1").code == 0
    assert not open_collection(path)["ts_0"].has("objects/m")
    assert otzi("run", path, file).code == 0
    rows = read_stages(path)
    assert {row.stage: row.state for row in rows} == {"objects/m": "committed"}
    assert {row.output_digest for row in rows} == {
        tomo.digest("objects/m") for tomo in open_collection(path)
    }
    assert all(count > 0 for count in counts(path))
    assert otzi("run", path, file).code == 0
    assert read_stages(path) == rows
    status = otzi("status", path)
    assert "objects/m" in status.out
    assert otzi("verify", path).code == 0


def test_a_changed_parameter_runs_what_it_touches(path: Path) -> None:
    def stages(**changes: Any) -> tuple[ObjectsStage, ObjectsStage]:
        usual = {"of": "labels/hard", "classes": ("membrane",), "name": "m"}
        return (
            ObjectsStage(**usual | changes),  # type: ignore[arg-type]
            ObjectsStage("labels/hard", ("lumen",), "lumen"),
        )

    run_collection(path, pipeline(*stages()))
    many, before = counts(path), {row.stage: row for row in read_stages(path)}
    other = [tomo.digest("objects/lumen") for tomo in open_collection(path)]
    run_collection(path, pipeline(*stages(min_volume_nm3=30.0)))
    assert all(few < n for few, n in zip(counts(path), many, strict=True))
    assert [tomo.digest("objects/lumen") for tomo in open_collection(path)] == other
    after = {row.stage: row for row in read_stages(path)}
    assert after["objects/lumen"] == before["objects/lumen"]
    assert after["objects/m"].token > before["objects/m"].token


def test_new_labels_mean_new_objects(path: Path) -> None:
    again = Times("hard", factor=1)  # labels/hard from raw: nothing but background
    run_collection(path, pipeline(ObjectsStage("labels/hard", ("membrane",), "m")))
    assert min(counts(path)) > 0
    run_collection(path, pipeline(again, ObjectsStage("labels/hard", ("membrane",), "m")))
    assert counts(path) == [0, 0]


def test_the_executor_and_the_memory_are_those_of_the_run(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, Any]] = []

    def find(*_: Any, **how: Any) -> bool:
        seen.append(how)
        return False

    monkeypatch.setattr("otzi_pipelines.objects.find.find_objects", find)
    stages = pipeline(
        ObjectsStage("labels/hard", ("membrane",), "m"), workers=4, volumes=2, memory="4GB"
    )
    run_collection(path, stages, only=["ts_0"])
    assert (seen[0]["workers"], seen[0]["memory_bytes"]) == (2, 2 * 10**9)
    run_collection(path, stages, only=["ts_1"], executor="processes:1")
    assert not seen[1]["executor"].is_local


def test_ramps_decide_only_where_no_threshold_is_given() -> None:
    with_ramps = Volume("a", None, digests={"probs/u": "p", "ramps/u": "1"})
    others = Volume("a", None, digests={"probs/u": "p", "ramps/u": "2"})
    by_ramps = ObjectsStage("probs/u", ("lumen",), "l")
    by_number = ObjectsStage("probs/u", ("lumen",), "l", threshold=0.5)
    assert input_digest(by_ramps, with_ramps) != input_digest(by_ramps, others)
    assert input_digest(by_number, with_ramps) == input_digest(by_number, others)
    assert ObjectsStage("labels/u", ("lumen",), "l").may_use == ()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"of": "raw"}, "give probs/NAME or labels/NAME"),
        ({"of": "probs/"}, "give probs/NAME or labels/NAME"),
        ({"classes": []}, "name each once"),
        ({"threshold": 1.5}, "a probability above 0"),
        ({"connectivity": 8}, "connectivity = 8"),
        ({"min_volume_nm3": -1.0}, "give 0 or more"),
        ({"name": "a/b"}, "is not a name"),
        ({"label": True}, "did you mean labels"),
    ],
)
def test_what_cannot_be_meant_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(OtziError) as refused:
        read_pipeline({"stage": [{"stage": "objects", **HARD, **changes}]}, Path("p.toml"))
    assert said in str(refused.value)
