"""Pipeline files: what they say, what they cannot mean, and their stages on small tomograms."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import pytest

from mrc_files import mrc_bytes
from otzi.collection import open_collection
from otzi.errors import ConfigurationError, NotFoundError, OtziError, TemporaryFailure
from otzi.ledger.stages import read_stages
from otzi.strokes import Stroke, Strokes, write_strokes
from otzi_pipelines.label.stroke_import import import_strokes
from otzi_pipelines.run.coordinator import run_collection, run_pipeline
from otzi_pipelines.run.in_order import InOrder
from otzi_pipelines.run.ingest_stage import IngestStage
from otzi_pipelines.run.pipeline import KINDS, Pipeline, load_pipeline, read_pipeline
from otzi_pipelines.run.product_stages import RampsStage, SegmentStage, ViewStage
from otzi_pipelines.run.stages import Work, input_digest
from otzi_pipelines.run.verb_stages import RenderStage, VerbStage
from otzi_pipelines.run.volume import Volume
from run_stages import Times, pipeline
from s3_server import BUCKET, s3_server
from test_segment import make_model

if TYPE_CHECKING:
    from collections.abc import Callable

    from otzi.tomogram import Tomogram

ROOT = Path(__file__).resolve().parents[1]
CLASSES = ("background", "membrane", "lumen")
SEGMENT = {"stage": "segment", "model": "m", "name": "unet"}
RAMPS = {"stage": "ramps", "probs": "unet"}
INGEST = {"stage": "ingest", "sources": ["incoming"]}
VERB = {"stage": "verb", "verb": "export", "arguments": [], "needs": []}
RENDER = {"stage": "render", "probs": "unet", "output": "{tomogram}.png"}


def _read(*stages: dict[str, Any], folder: Path = Path("/data"), **run: Any) -> Pipeline:
    return read_pipeline({"stage": list(stages), "run": run}, folder / "p.toml")


def test_the_worked_example_has_every_stage() -> None:
    pipeline = load_pipeline(ROOT / "deploy" / "pipeline.toml")
    kinds = {type(stage) for stage in pipeline.stages}
    assert kinds == set(KINDS.values()) - {VerbStage}
    assert pipeline.settings.stall_seconds == 300
    assert (ROOT / "deploy" / "models" / "unet") in [
        stage.model for stage in pipeline.stages if isinstance(stage, SegmentStage)
    ]


def test_paths_are_relative_to_the_file() -> None:
    pipeline = _read({"stage": "ingest", "sources": ["a", "/b"]}, SEGMENT)
    assert pipeline.ingest is not None
    assert pipeline.ingest.sources == (Path("/data/a"), Path("/b"))
    assert pipeline.stages[1] == SegmentStage(Path("/data/m"), "unet")


@pytest.mark.parametrize(
    ("stages", "said"),
    [
        ([], "name one at least"),
        ([{"stage": "sgment"}], "choose from ingest, pseudolabel"),
        ([{"stage": "segment", "modle": "m", "name": "u"}], "did you mean model"),
        ([SEGMENT | {"tile": "big"}], "tile = 'big'"),
        ([SEGMENT | {"name": "a/b"}], "is not a name"),
        ([SEGMENT, SEGMENT], "segment/unet is made by two stages"),
        ([SEGMENT, {"stage": "ingest", "sources": ["a"]}], "ingest comes first"),
        ([RAMPS, SEGMENT], "move segment/unet before it"),
        ([RENDER | {"output": "all.png"}], "one file for all tomograms"),
        ([RENDER | {"size": "big"}], "as 1280x960"),
        ([RENDER | {"turntable": 24}], "name a .mp4"),
        ([RENDER | {"turntable": 0, "output": "{tomogram}.mp4"}], "at least 1 frame"),
        ([{"stage": "pseudolabel", "name": "f", "scales": [0.4]}], "choose from"),
        ([{"stage": "ingest", "sources": ["a"], "preset": "tiny"}], "tiny"),
        ([VERB | {"output": "{tomogram}"}], "name no {output}"),
    ],
)
def test_what_cannot_be_meant_is_refused(stages: list[dict[str, Any]], said: str) -> None:
    with pytest.raises(OtziError) as refused:
        _read(*stages)
    assert said in str(refused.value)
    assert refused.value.exit_code in (2, 78)


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="volumes = 0: at least 1"):
        _read(SEGMENT, volumes=0)
    with pytest.raises(ConfigurationError, match="backoff_seconds"):
        _read(SEGMENT, backoff_seconds=-1)
    with pytest.raises(ConfigurationError, match=r"\[run\].*'volume'.*volumes"):
        _read(SEGMENT, volume=2)
    with pytest.raises(ConfigurationError, match="'stages'"):
        read_pipeline({"stages": []}, Path("p.toml"))


def test_files_that_are_no_pipelines(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="not there"):
        load_pipeline(tmp_path / "p.toml")
    (tmp_path / "p.toml").write_text("[[stage")
    with pytest.raises(ConfigurationError, match="not TOML"):
        load_pipeline(tmp_path / "p.toml")


def test_of_two_files_with_a_stem_each_is_known(tmp_path: Path) -> None:
    for name in ("a/x.mrc", "b/x.mrc", "b/y.mrc"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    files = IngestStage((tmp_path,)).files()
    assert {id_: path.relative_to(tmp_path).as_posix() for id_, path in files.items()} == {
        "x": "a/x.mrc", "x~2": "b/x.mrc", "y": "b/y.mrc",
    }  # fmt: skip


def test_the_digest_knows_all_that_decides_the_output(tmp_path: Path) -> None:
    make_model(tmp_path / "m", seed=1)
    make_model(tmp_path / "copy", seed=1)
    make_model(tmp_path / "other", seed=2)
    volume = Volume("ts_1", None, digests={"raw": "r1"})

    def digest(volume: Volume = volume, model: str = "m", **changes: Any) -> str:
        return input_digest(SegmentStage(tmp_path / model, **{"name": "u"} | changes), volume)

    assert digest() == digest(model="copy") == digest(device="cpu")
    assert digest(Volume("ts_2", None, digests={"raw": "r1", "view": "v"})) == digest()
    changed = [
        digest(model="other"),
        digest(tile=96),
        digest(name="v"),
        digest(Volume("ts_1", None, digests={"raw": "r2"})),
    ]
    assert len({digest(), *changed}) == 5


def test_a_view_is_made_again_for_ramps_that_are_new() -> None:
    there = Volume("a", None, digests={"raw": "r", "probs/u": "p", "ramps/u": "1"})
    without = Volume("a", None, digests={"raw": "r", "probs/u": "p"})
    assert input_digest(ViewStage("u"), there) != input_digest(ViewStage("u"), without)
    assert input_digest(RampsStage("u"), there) == input_digest(RampsStage("u"), without)


def _source(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(exist_ok=True)
    volume = np.random.default_rng(seed).normal(0, 9, (20, 40, 36))
    volume[:, 18:23] -= 60
    path.write_bytes(mrc_bytes(volume.astype(np.int16)))
    return path


PIPELINE = """
[run]
volumes = 2
[[stage]]
stage = "ingest"
sources = ["incoming"]
classes = ["background", "membrane", "lumen"]
[[stage]]
stage = "pseudolabel"
name = "forest"
scales = [0.7]
trees = 5
[[stage]]
stage = "segment"
model = "model"
name = "unet"
tile = 16
overlap = 4
[[stage]]
stage = "ramps"
probs = "unet"
[[stage]]
stage = "view"
probs = "unet"
"""


def test_files_go_all_the_way(tmp_path: Path) -> None:
    make_model(tmp_path / "model", classes=CLASSES)
    for n in range(2):
        _source(tmp_path / "incoming" / f"ts_{n}.mrc", n)
    (tmp_path / "incoming" / "bad.mrc").write_bytes(b"no tomogram" * 30)
    (tmp_path / "p.toml").write_text(PIPELINE)
    path = tmp_path / "c"
    assert run_pipeline(path, tmp_path / "p.toml") == 5
    col = open_collection(path, mode="r+")
    made = {"raw", "view", "probs/unet", "ramps/unet"}
    assert all(made <= set(tomo.products) for tomo in col)
    assert col.ids == ("ts_0", "ts_1")
    assert col["ts_0"].attributes("view")["ramps"]
    states = {(row.tomogram, row.stage): row.state for row in read_stages(path)}
    assert states.pop(("bad", "ingest")) == "quarantined"
    assert set(states.values()) == {"committed"}
    assert len(states) == 8
    stroke = [((10.0, y, 3.0), (10.0, y, 30.0)) for y in (5.0, 20.0)]
    strokes = (Stroke("background", 2.0, stroke[0]), Stroke("membrane", 1.0, stroke[1]))
    write_strokes(tmp_path / "s.json", Strokes("ts_1", CLASSES, strokes))
    import_strokes(col["ts_1"], tmp_path / "s.json")
    before = {tomo.id: tomo.digest("probs/unet") for tomo in col}
    assert run_pipeline(path, tmp_path / "p.toml", only=["ts_*"]) == 0
    assert col["ts_1"].has("labels/forest")
    assert not col["ts_0"].has("labels/forest")
    assert {tomo.id: tomo.digest("probs/unet") for tomo in col} == before


def test_a_replaced_file_is_a_new_revision_all_the_way(tmp_path: Path) -> None:
    source = _source(tmp_path / "incoming" / "ts_0.mrc")
    stages = _read(INGEST, {"stage": "view"}, folder=tmp_path)
    run_collection(tmp_path / "c", stages)
    tomo = open_collection(tmp_path / "c")["ts_0"]
    first = [tomo.digest("raw"), tomo.digest("view")]
    _source(source, seed=7)
    assert run_collection(tmp_path / "c", stages).exit_code == 0
    tomo = open_collection(tmp_path / "c")["ts_0"]
    assert tomo.digest("raw") != first[0]
    assert tomo.attributes("view")["parents"] == {"raw": tomo.digest("raw")}


def test_the_same_bytes_under_another_name_are_no_other_tomogram(tmp_path: Path) -> None:
    for name in ("a", "b"):
        _source(tmp_path / "incoming" / f"{name}.mrc")
    stages = _read(INGEST, {"stage": "view"}, folder=tmp_path)
    assert run_collection(tmp_path / "c", stages).exit_code == 0
    assert open_collection(tmp_path / "c").ids == ("a",)
    before = (tmp_path / "c" / "catalog.sqlite").read_bytes()
    assert run_collection(tmp_path / "c", stages).exit_code == 0
    assert (tmp_path / "c" / "catalog.sqlite").read_bytes() == before


def test_files_are_ingested_in_order_however_quickly_they_are_read() -> None:
    order, gate = list[int](), InOrder()

    def pass_through(number: int) -> None:
        time.sleep(0.02 * (5 - number))
        with gate.turn(number, lambda: False):
            order.append(number)

    for number in range(5):
        gate.announce(number)
    with ThreadPoolExecutor(5) as pool:
        list(pool.map(pass_through, reversed(range(5))))
    assert order == [0, 1, 2, 3, 4]


def test_nobody_waits_at_a_gate_that_is_over() -> None:
    gate = InOrder()
    gate.announce(0)
    gate.announce(1)
    with gate.turn(1, lambda: True):
        pass
    with gate.turn(0, lambda: False):
        pass


@pytest.fixture
def work() -> Work:
    return Work(None, 1, 0, None, lambda event: None, lambda: None)


def test_a_verb_writes_its_file(
    add_tomogram: Callable[..., Tomogram], tmp_path: Path, work: Work
) -> None:
    tomo = add_tomogram(np.zeros((4, 5, 6), np.int8))
    volume = Volume(tomo.id, tomo.collection)
    words = ("{collection}", "{tomogram}", "raw", "{output}")
    stage = VerbStage("export", words, ("raw",), tmp_path / "out" / "{tomogram}.mrc")
    assert stage.made_digest(volume) is None
    assert stage.run(volume, work)
    assert stage.made_digest(volume) is not None
    assert (tmp_path / "out" / "ts_001.mrc").stat().st_size == 1024 + 120
    (tmp_path / "out" / "ts_001.mrc").write_bytes(b"of an earlier run")
    assert stage.run(volume, work)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["ts_001.mrc"]
    assert (tmp_path / "out" / "ts_001.mrc").stat().st_size == 1024 + 120


def test_a_verb_that_fails_says_why(
    add_tomogram: Callable[..., Tomogram], tmp_path: Path, work: Work
) -> None:
    tomo = add_tomogram(np.zeros((4, 5, 6), np.int8))
    volume = Volume(tomo.id, tomo.collection)
    stage = RenderStage("unet", tmp_path / "{tomogram}.png", size="64x48")
    with pytest.raises(OtziError, match=r"otzi render of ts_001 ended with 2: .*probs/unet"):
        stage.run(volume, work)


def test_a_verb_is_ended_when_it_is_abandoned(
    add_tomogram: Callable[..., Tomogram], tmp_path: Path
) -> None:
    tomo = add_tomogram(np.zeros((4, 5, 6), np.int8))
    volume = Volume(tomo.id, tomo.collection)

    def check() -> None:
        raise InterruptedError

    stage = VerbStage("doctor", ("{output}",), (), tmp_path / "{tomogram}")
    with pytest.raises(InterruptedError):
        stage.run(volume, Work(None, 1, 0, None, lambda event: None, check))


def test_a_verb_that_is_killed_or_takes_too_long_may_go_well_another_time(
    add_tomogram: Callable[..., Tomogram], tmp_path: Path, work: Work
) -> None:
    tomo = add_tomogram(np.zeros((4, 5, 6), np.int8))
    volume = Volume(tomo.id, tomo.collection)
    words = ("{collection}", "{tomogram}", "raw", "{output}")
    slow = VerbStage("export", words, (), tmp_path / "{tomogram}.mrc", timeout_seconds=0.1)
    with pytest.raises(TemporaryFailure, match="raise its timeout"):
        slow.run(volume, work)
    stage = VerbStage("export", words, (), tmp_path / "{tomogram}.mrc")

    def kill() -> None:
        for child in psutil.Process().children():
            if "export" in child.cmdline():
                child.kill()

    with pytest.raises(TemporaryFailure, match="killed by signal 9"):
        stage.run(volume, replace(work, check=kill))
    assert list(tmp_path.glob("*.mrc")) == []


def test_local_threads_are_shared_out(add_tomogram: Callable[..., Tomogram]) -> None:
    tomo = add_tomogram(np.zeros((4, 5, 6), np.uint8))
    seen: list[Work] = []

    class Looks(Times):
        def run(self, volume: Volume, work: Work) -> bool:
            seen.append(work)
            return super().run(volume, work)

    stages = pipeline(Looks("twice"), workers=6, volumes=3, memory="3GB")
    run_collection(tomo.collection.path, stages)
    assert [(w.executor, w.workers, w.memory_bytes) for w in seen] == [(None, 2, 10**9)]


def test_a_collection_in_an_object_store_goes_the_same_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its ledger lies where its products are made, on this machine."""
    monkeypatch.setenv("OTZI_SCRATCH", str(tmp_path / "scratch"))
    _source(tmp_path / "incoming" / "ts_0.mrc")
    stages = _read(INGEST, {"stage": "view"}, folder=tmp_path)
    with s3_server() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        url = f"s3://{BUCKET}/run"
        assert run_collection(url, stages).exit_code == 0
        col = open_collection(url)
        assert set(col["ts_0"].products) == {"raw", "view"}
        rows = read_stages(col.workspace)
        assert {row.stage: row.output_digest for row in rows} == {
            "ingest": col["ts_0"].digest("raw"),
            "view": col["ts_0"].digest("view"),
        }
        assert run_collection(url, stages).exit_code == 0
        assert read_stages(col.workspace) == rows


def test_a_picture_is_drawn_where_the_run_computes(
    add_tomogram: Callable[..., Tomogram], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tomo = add_tomogram(np.zeros((4, 5, 6), np.uint8))
    with tomo.write("probs/u", dtype="u1", channels=tomo.classes.names, recipe={}) as writer:
        writer[:, :, :, :] = np.zeros((3, 4, 5, 6), np.uint8)
    said: list[list[str]] = []

    def draw(verb: str, words: list[str], volume: Volume, output: Path, *_: Any) -> None:
        said.append(words)
        output.write_text(verb)

    monkeypatch.setattr("otzi_pipelines.run.verb_stages._run", draw)
    movie = RenderStage("u", tmp_path / "{tomogram}.mp4", name="movie", turntable=24)
    path = tomo.collection.path
    assert run_collection(path, pipeline(movie)).exit_code == 0
    still = RenderStage("u", tmp_path / "{tomogram}.png")
    assert run_collection(path, pipeline(movie, still), executor="processes:1").exit_code == 0
    here, there = said
    assert here[here.index("--turntable") + 1] == "24"
    assert "--executor" not in here
    assert there[there.index("--executor") + 1].startswith("tcp://127.0.0.1:")
    assert "--turntable" not in there
    assert (tmp_path / "ts_001.mp4").read_text() == "render"
