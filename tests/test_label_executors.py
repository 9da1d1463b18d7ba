"""Pseudo-labels on threads, processes and a Dask scheduler: one result, and one that goes on."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from otzi.box import Box
from otzi.collection import create_collection
from otzi.errors import ConfigurationError, VerificationError
from otzi.events import Advanced, Event
from otzi.execute import executor
from otzi.pseudo.bank import FeatureBank
from otzi.pseudo.lazy import block_labeller
from otzi.strokes import Stroke, Strokes, write_strokes
from otzi_pipelines.label.block import LabelTask, label_box
from otzi_pipelines.label.plan import LabelPlan
from otzi_pipelines.label.pseudolabel import pseudolabel
from otzi_pipelines.label.stroke_import import import_strokes
from s3_server import BUCKET, s3_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from commands import Otzi
    from otzi.execute import Executor
    from otzi.tomogram import Tomogram

SHAPE = (20, 30, 300)  # two shards, of four blocks and one
BANK = FeatureBank(scales=(0.7, 1.6))
STROKES = (
    Stroke("background", 2.0, ((10.0, 5.0, 5.0), (10.0, 5.0, 140.0))),
    Stroke("membrane", 2.0, ((10.0, 22.0, 5.0), (10.0, 22.0, 140.0))),
)
VOLUME = np.random.default_rng(0).normal(0, 9, SHAPE).astype(np.int16)
VOLUME[:, 18:] += 25


@pytest.fixture(scope="module")
def processes() -> Iterator[Executor]:
    with executor("processes:2") as there:
        yield there


@pytest.fixture
def address(processes: Executor) -> str:
    return str(processes._cluster.scheduler_address)  # type: ignore[attr-defined]


@pytest.fixture
def tomo(add_tomogram: Callable[..., Tomogram], tmp_path: Path) -> Tomogram:
    return with_strokes(add_tomogram(VOLUME), tmp_path)


def with_strokes(tomo: Tomogram, folder: Path, strokes: tuple[Stroke, ...] = STROKES) -> Tomogram:
    file = folder / f"{tomo.id}.json"
    write_strokes(file, Strokes(tomo.id, tomo.classes.names, strokes))
    import_strokes(tomo, file)
    return tomo


def make(tomo: Tomogram, name: str, **options: Any) -> bool:
    return pseudolabel(tomo, name, **{"bank": BANK, "n_trees": 5, "workers": 1} | options)


def content(tomo: Tomogram, name: str) -> dict[str, Any]:
    """Give size and checksum of every file but the one that holds the name."""
    files = tomo.manifest(f"labels/{name}")
    return {file: record for file, record in files.items() if file != "zarr.json"}


def n_voxels(events: list[Event]) -> int:
    """Give how many voxels were labelled."""
    return sum(e.units for e in events if isinstance(e, Advanced) and e.name == "labels")


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = LabelPlan((64, 64, 64), 2, 0)
    monkeypatch.setattr("otzi_pipelines.label.pseudolabel.plan_labels", lambda *_, **__: plan)


@pytest.mark.parametrize("options", [{}, {"soft": False}, {"early_exit": (2, 0.9)}])
def test_the_bytes_are_those_of_threads(
    tomo: Tomogram, processes: Executor, options: dict[str, Any]
) -> None:
    make(tomo, "threads", **options)
    make(tomo, "processes", executor=processes, **options)
    assert content(tomo, "processes") == content(tomo, "threads")
    assert "forest/forest.npz" in content(tomo, "processes")


def test_a_running_scheduler_gives_the_same_bytes(tomo: Tomogram, address: str) -> None:
    make(tomo, "threads")
    with executor(address) as there:
        make(tomo, "scheduler", executor=there)
    assert content(tomo, "scheduler") == content(tomo, "threads")


def test_an_interrupted_run_goes_on_elsewhere(tomo: Tomogram, processes: Executor) -> None:
    before, after = list[Event](), list[Event]()

    def interrupt(event: Event) -> None:
        before.append(event)
        if n_voxels(before) > 0.7 * np.prod(SHAPE):
            raise KeyboardInterrupt

    make(tomo, "whole")
    with pytest.raises(KeyboardInterrupt):
        make(tomo, "again", executor=processes, listen=interrupt)
    assert not tomo.has("labels/again")
    make(tomo, "again", listen=after.append)
    assert n_voxels(after) < np.prod(SHAPE)
    assert content(tomo, "again") == content(tomo, "whole")


def test_a_collection_in_an_object_store_needs_no_common_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with s3_server() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("OTZI_SCRATCH", str(tmp_path / "here"))
        tomo = create_collection(f"s3://{BUCKET}/labels", ("background", "membrane")).add("ts")
        with tomo.write(
            "raw", dtype="i2", shape=SHAPE, spacing_angstrom=(9.0,) * 3, recipe={}
        ) as writer:
            writer[:, :, :] = VOLUME
        with_strokes(tomo, tmp_path)
        with executor("processes:1") as there:
            make(tomo, "processes", executor=there)
        make(tomo, "threads")
        assert content(tomo, "processes") == content(tomo, "threads")


def test_a_worker_takes_nothing_but_what_is_meant(tomo: Tomogram) -> None:
    make(tomo, "forest")
    folder = tomo.path("labels/forest") / "forest"
    task = LabelTask(
        collection=str(tomo.collection.path),
        tomogram=tomo.id,
        raw_sha256=tomo.digest("raw"),
        forest=folder,  # type: ignore[arg-type]
        forest_sha256=tomo.attributes("labels/forest")["forest"]["sha256"],
        early_exit=None,
        soft=True,
        classes="all",
        device="cpu",
        arithmetic=block_labeller("cpu")[1],
    )
    box = Box((3, 4, 5), (9, 10, 70))
    labels, n_continued = label_box(task, box)
    np.testing.assert_array_equal(labels, tomo.array("labels/forest")[:, 3:9, 4:10, 5:70])
    assert n_continued == box.n_voxels
    with pytest.raises(VerificationError, match="raw of ts_001 has changed"):
        label_box(replace(task, raw_sha256="0" * 64), box)
    with pytest.raises(VerificationError, match=r"forest in .* has changed"):
        label_box(replace(task, forest_sha256="0" * 64), box)
    with pytest.raises(ConfigurationError, match="others by torch 9 on cuda"):
        label_box(replace(task, arithmetic="torch 9 on cuda"), box)


def test_the_verb_takes_an_executor(tomo: Tomogram, address: str, otzi: Otzi) -> None:
    words = ("pseudolabel", tomo.collection.path, "--trees", 5, "--scales", "0.7", "--json")
    assert otzi(*words, "--name", "here").code == 0
    run = otzi(*words, "--name", "there", "--executor", address)
    assert run.code == 0, run.err
    assert json.loads(run.out)["ts_001"]["run"]["n_voxels"] == np.prod(SHAPE)
    assert content(tomo, "there") == content(tomo, "here")
    refused = otzi(*words, "--name", "nowhere", "--executor", "threads")
    assert refused.code == 2
    assert "executor 'threads' is none of local" in refused.err


def test_of_several_tomograms_the_good_ones_are_labelled(
    tomo: Tomogram, add_tomogram: Callable[..., Tomogram], otzi: Otzi, tmp_path: Path
) -> None:
    collection = tomo.collection
    with_strokes(add_tomogram(VOLUME, "one_class"), tmp_path, STROKES[:1])
    add_tomogram(VOLUME, "no_strokes")
    damaged = with_strokes(add_tomogram(VOLUME, "damaged"), tmp_path)
    _damage(damaged)
    with_strokes(add_tomogram(VOLUME, "zebra"), tmp_path)
    ids = ("damaged", "no_strokes", "one_class", "ts_001", "zebra")
    words = ("pseudolabel", collection.path, *ids, "--name", "f", "--trees", 5, "--scales", "0.7")
    run = otzi(*words, "--json")
    assert run.code == 5
    results = json.loads(run.out)
    assert list(results) == list(ids)
    assert [id_ for id_, result in results.items() if result["made"]] == ["ts_001", "zebra"]
    assert "at least 2 classes" in results["one_class"]["error"]
    assert "has no strokes" in results["no_strokes"]["error"]
    assert results["damaged"]["error"] in run.err
    assert "damaged is left out: " in run.err
    assert not damaged.has("labels/f")
    assert (
        otzi("pseudolabel", collection.path, "damaged", "--name", "f", "--scales", "0.7").code == 4
    )


def _damage(tomo: Tomogram) -> None:
    """Flip a byte in the middle of a shard of ``raw``."""
    shards = (p for p in tomo.path("raw").rglob("*") if p.is_file() and "c" in p.parts)
    shard = max(shards, key=lambda path: path.stat().st_size)
    whole = bytearray(shard.read_bytes())
    whole[len(whole) // 3] ^= 255
    shard.write_bytes(whole)
