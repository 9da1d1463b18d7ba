"""The split of a collection: kept, stable, and a wall that no training sees through."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from labelled import add_labels, shells
from otzi.collection import create_collection, open_collection
from otzi.errors import AccessDenied, ConfigurationError, Locked, NotFoundError, UsageError
from otzi.events import Event, Noted, Warned
from otzi.networks.weights import load_card
from otzi.split import PARTS, Part, Split, read_split, write_split
from otzi.store.groups import write_group
from otzi_pipelines.train.data import roles, training_data
from otzi_pipelines.train.settings import TrainSettings
from otzi_pipelines.train.split import split_evenly
from otzi_pipelines.train.split_verb import command
from otzi_pipelines.train.training import train

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from otzi.collection import Collection
    from otzi.tomogram import Tomogram

    Otzi = Callable[..., Any]

SHAPE = (16, 36, 20)
SETTINGS = TrainSettings(
    steps=2,
    batch=2,
    crop_voxels=16,
    grid_voxels=8,
    width=2,
    levels=2,
    validate_every=1,
    validation_crops=4,
)
IDS = tuple(f"ts_{i}" for i in range(5))
SPLIT = Split({"ts_0": "train", "ts_1": "val", "ts_2": "test", "ts_3": "train"})


@pytest.fixture
def tomograms(add_tomogram: Callable[..., Tomogram]) -> Collection:
    for seed, name in enumerate(IDS):
        density, labels = shells(SHAPE, seed)
        add_labels(add_tomogram(density, name), labels)
    return open_collection(add_tomogram(density, "unlabelled").collection.path, "r+")


def run(collection: Collection, *words: object) -> Any:
    app = typer.Typer()
    app.command()(command)
    return CliRunner().invoke(app, [str(collection.path), *map(str, words)])


SHARES = st.sampled_from([(0.8, 0.1, 0.1), (0.5, 0.5, 0.0), (1.0, 0.0, 0.0), (0.3, 0.3, 0.4)])


@given(st.sets(st.integers(0, 60), max_size=40), SHARES, st.integers(0, 3))
def test_every_tomogram_has_one_part_and_parts_their_shares(
    numbers: set[int], shares: tuple[float, float, float], seed: int
) -> None:
    ids = [f"ts_{i:02d}" for i in numbers]
    wanted: dict[Part, float] = dict(zip(PARTS, shares, strict=True))
    split = split_evenly(ids, wanted, seed)
    assert sorted(split.parts) == sorted(ids)
    assert sorted(id_ for part in PARTS for id_ in split.of(part)) == sorted(ids)
    for part, share in wanted.items():
        assert abs(len(split.of(part)) - share * len(ids)) <= 1
    assert split_evenly(reversed(ids), wanted, seed) == split


@given(st.integers(0, 20), st.integers(0, 20), SHARES, SHARES, st.integers(0, 3))
def test_what_has_a_part_keeps_it(
    n_before: int,
    n_more: int,
    shares: tuple[float, float, float],
    later: tuple[float, float, float],
    seed: int,
) -> None:
    ids = [f"ts_{i:02d}" for i in range(n_before + n_more)]
    before = split_evenly(ids[:n_before], dict(zip(PARTS, shares, strict=True)), seed)
    after = split_evenly(ids, dict(zip(PARTS, later, strict=True)), seed + 1, before)
    assert before.parts.items() <= after.parts.items()
    assert sorted(after.parts) == ids


def test_a_seed_decides_who_comes_where() -> None:
    ids = [f"ts_{i}" for i in range(30)]
    shares: dict[Part, float] = {"train": 0.5, "val": 0.25, "test": 0.25}
    assert split_evenly(ids, shares, 0) != split_evenly(ids, shares, 1)


def test_it_is_kept_in_the_collection(collection: Collection) -> None:
    assert read_split(collection) is None
    write_split(collection, SPLIT)
    assert read_split(open_collection(collection.path)) == SPLIT
    with pytest.raises(AccessDenied, match="open for reading"):
        write_split(open_collection(collection.path), SPLIT)
    write_group(collection.path / "split", {"otzi": {"parts": {"ts_0": "practice"}}})
    with pytest.raises(ConfigurationError, match=r"no part 'practice'.*make it with `otzi split`"):
        read_split(collection)


def test_it_is_kept_in_an_object_store_too(monkeypatch: pytest.MonkeyPatch) -> None:
    objects = pytest.importorskip("otzi.store.objects")
    remote = create_collection("memory://split/c")
    write_split(remote, SPLIT)
    moved = SPLIT.moved(["ts_0"], "test")
    write_split(remote, moved)
    assert read_split(open_collection("memory://split/c")) == moved
    # Another one writes between the look at what is there and the writing.
    state = objects.ObjectPath.state

    def late(self: Any) -> Any:
        seen = state(self)
        self.put(b"{}", replacing=seen)
        return seen

    monkeypatch.setattr(objects.ObjectPath, "state", late)
    with pytest.raises(Locked, match=r"split/zarr.json is being changed by somebody else.* retry"):
        write_split(remote, SPLIT)


def test_ls_and_info_show_the_part(tomograms: Collection, otzi: Otzi) -> None:
    assert json.loads(otzi("ls", tomograms.path, "--json").out)["tomograms"][0]["part"] is None
    write_split(tomograms, SPLIT)
    rows = json.loads(otzi("ls", tomograms.path, "--json").out)["tomograms"]
    shown = {row["id"]: row["part"] for row in rows if row["part"]}
    assert shown == SPLIT.parts
    lines = otzi("ls", tomograms.path).out.splitlines()
    assert "ts_2  16 × 36 × 20  10 Å  test  raw, labels/net" in lines
    assert "ts_4  16 × 36 × 20  10 Å  raw, labels/net" in lines
    assert "  part of the split: val\n" in otzi("info", tomograms.path, "ts_1").out
    assert "part of the split" not in otzi("info", tomograms.path, "ts_4").out


def test_parts_by_the_verb(tomograms: Collection) -> None:
    assert "has no split: otzi split" in run(tomograms).stderr
    first = run(tomograms, "--train", 0.5, "--val", 0.25, "--test", 0.25, "--json")
    assert first.exit_code == 0, first.stderr
    document = json.loads(first.stdout)
    assert Counter(len(document[part]) for part in PARTS) == {3: 1, 2: 1, 1: 1}
    assert document["unassigned"] == []
    assert json.loads(run(tomograms, "--json").stdout) == document
    moved = json.loads(run(tomograms, *document["train"], "--into", "test", "--json").stdout)
    assert moved["train"] == []
    assert sorted(moved["test"]) == sorted(document["train"] + document["test"])
    anew = json.loads(run(tomograms, "--train", 1, "--anew", "--json").stdout)
    assert anew["train"] == sorted((*IDS, "unlabelled"))


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (("--train", 0.5), "--train 0.5, --val 0, --test 0: shares must be .* sum to 1"),
        (("ts_0",), "name tomograms and --into"),
        (("--into", "val"), "name tomograms and --into"),
        (("ts_0", "--into", "exam"), "no part 'exam', choose one of train, val, test"),
        (("ts_9", "--into", "val"), "no tomogram 'ts_9'"),
        (("ts_0", "--train", 1), "leave out TOMO"),
    ],
)
def test_wrong_words(tomograms: Collection, words: tuple[object, ...], names: str) -> None:
    refused = run(tomograms, *words)
    assert refused.exit_code == 2
    assert re.search(names, " ".join(refused.stderr.split()))
    assert read_split(tomograms) is None


def test_no_training_sees_what_is_kept_from_it(tomograms: Collection, tmp_path: Path) -> None:
    """Not one byte: what is for testing, or has no part, can be gone altogether."""
    write_split(tomograms, SPLIT)
    chosen = roles(tomograms, "net", lambda event: None)
    data = training_data(chosen, "net", SETTINGS, pytest.fail)
    drawn = {data.source[i].volume.id for i in range(100)}
    assert drawn == {"ts_0", "ts_3"}
    assert {volume.id for volume, _ in data.learnt_from} == {"ts_0", "ts_3"}
    assert {volume.id for volume, _ in data.held_out} == {"ts_1"}
    options: dict[str, Any] = {"labels": "net", "settings": SETTINGS, "device": "cpu", "threads": 1}
    whole = train(tomograms, model=tmp_path / "whole", **options)
    for id_ in ("ts_2", "ts_4"):
        for shard in tomograms[id_].path("raw").glob("*/c"):
            shutil.rmtree(shard)
        for shard in tomograms[id_].path("labels/net").glob("*/c"):
            shutil.rmtree(shard)
    again = train(tomograms, model=tmp_path / "again", **options)
    assert again == whole
    assert [entry["id"] for entry in whole.training["tomograms"]] == ["ts_0", "ts_3", "ts_1"]
    assert whole.training["judged_by"] == ["ts_1"]


@pytest.mark.parametrize(
    ("named", "error", "says"),
    [
        (["ts_0", "ts_2"], UsageError, "ts_2 is kept for the test: leave it out, or otzi split"),
        (["ts_0", "ts_4"], UsageError, "ts_4 has no part in the split: leave it out, or otzi"),
        (["ts_0", "unlabelled"], NotFoundError, "unlabelled has no labels/net: make them with"),
        (["ts_0", "ts_9"], NotFoundError, "no tomogram 'ts_9'"),
        (["ts_1"], NotFoundError, "none of ts_1, which have labels/net, is in part train"),
    ],
)
def test_who_is_named_is_no_way_around_the_split(
    tomograms: Collection, named: list[str], error: type[Exception], says: str
) -> None:
    write_split(tomograms, SPLIT)
    with pytest.raises(error, match=says):
        roles(tomograms, "net", pytest.fail, named)


def test_only_who_is_named_is_learnt_from(
    tomograms: Collection, tmp_path: Path, otzi: Otzi
) -> None:
    write_split(tomograms, SPLIT)
    config = tmp_path / "t.toml"
    config.write_text(
        "steps = 1\nbatch = 1\ncrop_voxels = 16\ngrid_voxels = 8\nvalidation_crops = 1\n"
        "width = 2\nlevels = 2\n"
    )
    train_ = ("train", tomograms.path, "--labels", "net", "--config", config, "--device", "cpu")
    done = otzi(*train_, "--model", tmp_path / "m", "ts_3", "ts_1", "ts_3")
    assert done.code == 0, done.err
    training = load_card(tmp_path / "m").training
    assert [entry["id"] for entry in training["tomograms"]] == ["ts_3", "ts_1"]
    assert training["judged_by"] == ["ts_1"]
    refused = otzi(*train_, "--model", tmp_path / "n", "ts_3", "ts_2")
    assert refused.code == 2
    assert "ts_2 is kept for the test" in refused.err
    assert not (tmp_path / "n").exists()


def test_a_model_to_start_from_that_has_seen_the_test_is_told(
    tomograms: Collection, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"labels": "net", "settings": SETTINGS, "device": "cpu", "threads": 1}
    write_split(tomograms, SPLIT)
    train(tomograms, model=tmp_path / "first", **options)
    messages: list[Event] = []
    write_split(tomograms, SPLIT.moved(["ts_3"], "test"))
    train(
        tomograms,
        model=tmp_path / "second",
        start=tmp_path / "first",
        listen=messages.append,
        **options | {"settings": replace(SETTINGS, width=None, levels=None)},
    )
    told = [e.message for e in messages if isinstance(e, Warned) and "start from" in e.message]
    assert len(told) == 1
    assert "has learnt from ts_3, which is in part test" in told[0]


def test_what_it_is_judged_by_decides_no_weight(tomograms: Collection, tmp_path: Path) -> None:
    write_split(tomograms, SPLIT)
    options: dict[str, Any] = {"labels": "net", "settings": SETTINGS, "device": "cpu", "threads": 1}
    before = train(tomograms, model=tmp_path / "before", **options)
    _, labels = shells(SHAPE, 77)
    add_labels(tomograms["ts_1"], np.where(labels == 2, 0, labels).astype(np.uint8))
    after = train(tomograms, model=tmp_path / "after", **options)
    assert after.sha256 == before.sha256
    assert after.metrics["held_out_loss"] != before.metrics["held_out_loss"]


def test_whole_tomograms_are_learnt_from_and_judged_by(tomograms: Collection) -> None:
    write_split(tomograms, SPLIT)
    chosen = roles(tomograms, "net", lambda event: None)
    settings = replace(SETTINGS, validation_crops=1000, balance=0.0)
    data = training_data(chosen, "net", settings, pytest.fail)
    learnt, judged = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
    for i in range(400):
        crop = data.source[i]
        learnt[crop.box.slices] |= crop.volume.id == "ts_0"
    for _, box in data.held_out:
        judged[box.slices] = True
    assert learnt.all()
    assert judged.all()


def test_who_has_no_part_is_told_and_left_out(tomograms: Collection) -> None:
    write_split(tomograms, SPLIT)
    events = list[Event]()
    chosen = roles(tomograms, "net", events.append)
    (warning,) = events
    assert isinstance(warning, Warned)
    assert "ts_4 has no part in the split and is left out: otzi split" in warning.message
    assert "ts_4" not in {tomo.id for tomo in chosen.tomograms}


def test_without_val_the_ends_are_held_out(tomograms: Collection) -> None:
    write_split(tomograms, Split(dict.fromkeys(IDS, "train")))
    events = list[Event]()
    chosen = roles(tomograms, "net", events.append)
    assert isinstance(events[0], Noted)
    data = training_data(chosen, "net", SETTINGS, pytest.fail)
    assert all(box.start[1] >= 29 for _, box in data.held_out)


def test_something_must_be_left_to_learn_from(tomograms: Collection) -> None:
    write_split(tomograms, Split(dict.fromkeys(IDS, "test")))
    with pytest.raises(NotFoundError, match=r"none of ts_0, .* is in part train of the split"):
        roles(tomograms, "net", pytest.fail)


def test_there_are_three_parts() -> None:
    with pytest.raises(UsageError, match="ts_0: no part 'exam', choose one of train, val, test"):
        Split({"ts_0": "exam"})  # type: ignore[dict-item]
