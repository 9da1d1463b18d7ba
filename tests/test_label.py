"""Verb pseudolabel: the stored labels are the lazy ones, in any memory, by any workers."""

from __future__ import annotations

import json
from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import otzi as platform
from otzi.box import Box
from otzi.errors import MemoryBudgetError, NotFoundError, StrokesError, UsageError
from otzi.events import Advanced, Event, Noted
from otzi.pseudo.bank import FeatureBank
from otzi.pseudo.forest_file import load_forest
from otzi.strokes import Stroke, Strokes, write_strokes
from otzi_pipelines.label import block as block_module
from otzi_pipelines.label import pseudolabel as module
from otzi_pipelines.label.block import stored_labels
from otzi_pipelines.label.plan import LabelPlan
from otzi_pipelines.label.pseudolabel import pseudolabel
from otzi_pipelines.label.stroke_import import import_strokes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from commands import Otzi
    from otzi.tomogram import Tomogram

SHAPE = (20, 70, 75)
BANK = FeatureBank(scales=(0.7, 1.6))
STROKES = (
    Stroke("background", 2.0, ((10.0, 5.0, 5.0), (10.0, 5.0, 70.0))),
    Stroke("membrane", 1.0, ((10.0, 35.0, 5.0), (10.0, 35.0, 70.0))),
    Stroke("lumen", 2.0, ((8.0, 60.0, 5.0), (14.0, 60.0, 70.0))),
)
TREES = 7


@pytest.fixture
def tomo(add_tomogram: Callable[..., Tomogram], tmp_path: Path) -> Tomogram:
    """Give a tomogram with a dark plate between noise and brighter noise, and strokes on it."""
    volume = np.random.default_rng(0).normal(0, 9, SHAPE)
    volume[:, 33:38] -= 60
    volume[:, 38:] += 30
    tomo = add_tomogram(volume.astype(np.int16))
    write_strokes(tmp_path / "s.json", Strokes("ts_001", tomo.classes.names, STROKES))
    import_strokes(tomo, tmp_path / "s.json")
    return tomo


def make(tomo: Tomogram, name: str = "forest", **options: Any) -> bool:
    return pseudolabel(tomo, name, **{"bank": BANK, "n_trees": TREES, "workers": 1} | options)


def lazy(tomo: Tomogram, name: str = "forest", **options: Any) -> np.ndarray:
    forest = load_forest(tomo.path(f"labels/{name}") / "forest")
    return np.asarray(platform.pseudo_labels(tomo.raw, BANK, forest, **options).values)


def test_soft_labels_are_the_lazy_ones_and_sum_to_255(tomo: Tomogram) -> None:
    assert make(tomo)
    stored = tomo.array("labels/forest")[...]
    assert (stored.sum(axis=0, dtype=int) == 255).all()
    exact = lazy(tomo)
    np.testing.assert_array_equal(stored, stored_labels(exact, soft=True, classes="all"))
    assert abs(stored / 255 - exact).max() <= 1 / 255
    assert tomo.image("labels/forest").channels == ("background", "membrane", "lumen")
    truth = stored[:, 3:17].argmax(axis=0)
    assert (truth[:, 34:37] == 1).mean() > 0.95
    assert (truth[:, 42:66] == 2).mean() > 0.95
    assert (truth[:, 4:28] == 0).mean() > 0.95


@pytest.mark.parametrize("soft", [True, False])
@pytest.mark.parametrize("classes", ["all", "2"])
def test_hard_and_merged_labels_follow_from_the_probabilities(
    tomo: Tomogram, soft: bool, classes: Any
) -> None:
    assert make(tomo, soft=soft, classes=classes)
    probabilities = lazy(tomo)
    if classes == "2":
        probabilities = np.stack([probabilities[0], probabilities[1] + probabilities[2]])
    names = ("background", "foreground") if classes == "2" else tomo.classes.names
    stored, image = tomo.array("labels/forest")[...], tomo.image("labels/forest")
    assert tomo.attributes("labels/forest")["classes"] == list(names)
    if soft:
        assert abs(stored / 255 - probabilities).max() <= 1 / 255
        assert image.channels == names
        assert image.downsample == "mean"
    else:
        np.testing.assert_array_equal(stored, probabilities.argmax(axis=0))
        assert image.is_labels
        assert image.downsample == "mode"


@pytest.mark.parametrize(
    ("block", "workers"), [((64, 64, 64), 3), ((64, 64, 128), 1), ((64, 128, 64), 2)]
)
def test_blocks_and_workers_do_not_show(
    tomo: Tomogram, monkeypatch: pytest.MonkeyPatch, block: Any, workers: int
) -> None:
    make(tomo, "one")
    plan = LabelPlan(block, workers, 0)
    monkeypatch.setattr(module, "plan_labels", lambda *_, **__: plan)
    make(tomo, "other")
    digests = [
        {
            name: record
            for name, record in tomo.manifest(f"labels/{name_}").items()
            if name != "zarr.json"
        }
        for name_ in ("one", "other")
    ]
    assert digests[0] == digests[1]
    assert "forest/forest.npz" in digests[0]


def test_a_second_run_does_nothing_until_something_changes(tomo: Tomogram, tmp_path: Path) -> None:
    events: list[Event] = []
    assert make(tomo, listen=events.append)
    assert sum(e.units for e in events if isinstance(e, Advanced) and e.name == "labels") == prod(
        SHAPE
    )
    assert not make(tomo, workers=2, memory_bytes=10**10, listen=events.append)
    assert events[-1] == Noted("ts_001 has this labels/forest already")
    assert make(tomo, seed=1)
    assert make(tomo, bank=FeatureBank(scales=(0.7,)))
    write_strokes(tmp_path / "t.json", Strokes("ts_001", tomo.classes.names, STROKES[:2]))
    import_strokes(tomo, tmp_path / "t.json")
    assert make(tomo, bank=FeatureBank(scales=(0.7,)))
    assert (tomo.array("labels/forest")[2] == 0).all()


def test_an_interrupted_run_goes_on_to_the_same_bytes(
    tomo: Tomogram, monkeypatch: pytest.MonkeyPatch
) -> None:
    tall = tomo.collection.add("tall")
    volume = np.random.default_rng(0).normal(0, 9, (20, 20, 300)).astype(np.float32)
    with tall.write(
        "raw", dtype="f4", shape=(20, 20, 300), spacing_angstrom=(9.0,) * 3, recipe={}
    ) as w:
        w[:, :, :] = volume
    path = tomo.collection.path / "tall.json"
    strokes = [Stroke(c, 2.0, ((9.0, 9.0, x),)) for c, x in (("membrane", 9.0), ("lumen", 290.0))]
    write_strokes(path, Strokes("tall", tomo.classes.names, tuple(strokes)))
    import_strokes(tall, path)
    make(tall, "whole")
    original, arithmetic = block_module.block_labeller("cpu")
    computed: list[Any] = []

    def first_half(volume: Any, held: Any, inner: Any, *rest: Any) -> Any:
        if inner.stop[2] == 300:
            raise KeyboardInterrupt
        return original(volume, held, inner, *rest)

    monkeypatch.setattr(block_module, "block_labeller", lambda device: (first_half, arithmetic))
    with pytest.raises(KeyboardInterrupt):
        make(tall, "again")
    assert not tall.has("labels/again")

    def counted(*arguments: Any) -> Any:
        computed.append(arguments[2])
        return original(*arguments)

    monkeypatch.setattr(block_module, "block_labeller", lambda device: (counted, arithmetic))
    make(tall, "again")
    assert [box.stop[2] for box in computed] == [300]
    assert tall.manifest("labels/again").items() >= {
        (k, v) for k, v in tall.manifest("labels/whole").items() if k != "zarr.json"
    }


def test_early_exit_is_reported(tomo: Tomogram) -> None:
    events: list[Event] = []
    early_exit = (2, 0.9)
    assert make(tomo, early_exit=early_exit, listen=events.append)
    notes = [e.message for e in events if isinstance(e, Noted)]
    assert len(notes) == 1
    share = float(notes[0].partition("%")[0])
    assert 0 < share < 100
    assert notes[0].endswith("of the voxels saw more than 2 trees")
    expected = stored_labels(lazy(tomo, early_exit=early_exit), soft=True, classes="all")
    np.testing.assert_array_equal(tomo.array("labels/forest")[...], expected)


def test_the_forest_says_what_it_is(tomo: Tomogram) -> None:
    make(tomo)
    said = tomo.attributes("labels/forest")["forest"]
    forest = load_forest(tomo.path("labels/forest") / "forest")
    assert said["sha256"] == forest.sha256
    assert said["n_voxels"] == tomo.attributes("strokes")["n_voxels"]
    assert said["oob_accuracy"] > 0.9
    assert list(said["importance"]) == list(BANK.names)


def test_what_does_not_fit_is_refused_before_any_work(
    tomo: Tomogram, add_tomogram: Callable[..., Tomogram], tmp_path: Path
) -> None:
    other = add_tomogram(np.zeros(SHAPE, np.float32), "ts_002")
    with pytest.raises(
        NotFoundError, match=r"ts_002 has no strokes: .* `otzi strokes .* ts_002 FILE`"
    ):
        make(other)
    with pytest.raises(UsageError, match="scale 10 needs 36 voxels"):
        make(tomo, bank=FeatureBank())
    with pytest.raises(MemoryBudgetError, match=r"--memory is 50\.0 MB"):
        make(tomo, memory_bytes=50 * 10**6)
    write_strokes(tmp_path / "t.json", Strokes("ts_001", tomo.classes.names, STROKES[:1]))
    import_strokes(tomo, tmp_path / "t.json")
    with pytest.raises(StrokesError, match="at least 2 classes"):
        make(tomo)
    assert not tomo.has("labels/forest")


@given(st.integers(0, 2**32), st.integers(2, 5))
def test_steps_sum_to_255_and_are_near(seed: int, n_classes: int) -> None:
    rng = np.random.default_rng(seed)
    votes = rng.multinomial(100, rng.dirichlet(np.full(n_classes, 0.5)), (2, 3, 4))
    probabilities = np.moveaxis(votes / 100, -1, 0).astype(np.float32)
    soft = stored_labels(probabilities, soft=True, classes="all")
    assert (soft.sum(axis=0, dtype=int) == 255).all()
    assert abs(soft / 255 - probabilities).max() <= 1 / 255 + 1e-6
    two = stored_labels(probabilities, soft=True, classes="2")
    assert (two.sum(axis=0, dtype=int) == 255).all()
    np.testing.assert_array_equal(two[0], soft[0])


def test_voxels_of_no_class_become_background() -> None:
    nothing = np.zeros((3, 1, 1, 2), np.float32)
    nothing[2, ..., 1] = 1
    soft = stored_labels(nothing, soft=True, classes="all")
    assert soft[:, 0, 0].T.tolist() == [[255, 0, 0], [0, 0, 255]]
    assert stored_labels(nothing, soft=False, classes="2").ravel().tolist() == [0, 1]
    assert nothing[0].sum() == 0


def finer(stroke: Stroke) -> Stroke:
    """Give the same stroke in a volume whose voxels have half the side."""
    points = tuple((2 * z + 0.5, 2 * y + 0.5, 2 * x + 0.5) for z, y, x in stroke.points)
    return replace(stroke, radius_voxels=2 * stroke.radius_voxels, points=points)


def test_the_same_strokes_at_half_the_voxel_size_give_the_same_labels(
    tomo: Tomogram, add_tomogram: Callable[..., Tomogram], tmp_path: Path
) -> None:
    coarse = tomo.array("raw")[...]
    rng = np.random.default_rng(1)
    fine = coarse.repeat(2, 0).repeat(2, 1).repeat(2, 2) + rng.normal(0, 5, np.multiply(SHAPE, 2))
    other = add_tomogram(fine.astype(np.int16), "fine")
    drawn = Strokes("fine", tomo.classes.names, tuple(map(finer, STROKES)))
    write_strokes(tmp_path / "fine.json", drawn)
    import_strokes(other, tmp_path / "fine.json")
    make(tomo, bank=FeatureBank(scales=(0.7, 1.6)), n_trees=30)
    make(other, bank=FeatureBank(scales=(1.6, 3.5)), n_trees=30)
    labels = tomo.array("labels/forest")[...], other.array("labels/forest", level=1)[...]
    found, expected = (each[:, 3:-3, 3:-3, 3:-3].argmax(axis=0) for each in labels)
    assert (found == expected).mean() > 0.97


def test_strokes_of_another_voxel_size_are_refused(
    tomo: Tomogram, add_tomogram: Callable[..., Tomogram], tmp_path: Path, otzi: Otzi
) -> None:
    write_strokes(
        tmp_path / "fine.json", Strokes("ts_001", tomo.classes.names, tuple(map(finer, STROKES)))
    )
    refused = otzi("strokes", tomo.collection.path, "ts_001", tmp_path / "fine.json")
    assert refused.code == 2
    assert (
        "outside the volume, which ends at (19, 69, 74): were the strokes drawn on another"
        in refused.err
    )
    add_tomogram(np.zeros((10, 35, 38), np.int16))
    again = otzi("pseudolabel", tomo.collection.path, "ts_001", "--name", "f")
    assert again.code == 2
    assert "drawn on 20 × 70 × 75 voxels, its raw has 10 × 35 × 38 now" in again.err


def test_a_voxel_that_is_not_a_number_is_background_as_far_as_it_is_seen(
    tomo: Tomogram, add_tomogram: Callable[..., Tomogram], tmp_path: Path
) -> None:
    volume = tomo.array("raw")[...].astype(np.float32)
    stored = []
    for name, value in (("whole", volume[10, 50, 40]), ("torn", np.nan)):
        volume[10, 50, 40] = value
        other = tomo.collection.add(name)
        with other.write(
            "raw", dtype="f4", shape=SHAPE, spacing_angstrom=(9.0,) * 3, recipe={}
        ) as w:
            w[:, :, :] = volume
        write_strokes(tmp_path / "s.json", Strokes(name, tomo.classes.names, STROKES))
        import_strokes(other, tmp_path / "s.json")
        make(other)
        stored.append(other.array("labels/forest")[...])
    whole, torn = stored
    assert torn[:, 10, 50, 40].tolist() == [255, 0, 0]
    near = np.zeros(SHAPE, bool)
    near[Box((10, 50, 40), (11, 51, 41)).grow(BANK.halo_voxels).clip(SHAPE).slices] = True
    np.testing.assert_array_equal(torn[:, ~near], whole[:, ~near])
    assert (whole[2, near] > 128).mean() > 0.9


# The verb


def test_the_verb_takes_all_that_have_strokes(
    tomo: Tomogram, add_tomogram: Callable[..., Tomogram], otzi: Otzi
) -> None:
    add_tomogram(np.zeros(SHAPE, np.float32), "ts_002")
    words = ("pseudolabel", tomo.collection.path, "--name", "f", "--trees", TREES)
    words += ("--scales", "0.7,1.6", "--features", "gaussian_smoothing,laplacian_of_gaussian")
    run = otzi(*words, "--hard", "--classes", "2", "--early-exit", "3,0.9", "--memory", "4GB")
    assert run.code == 0, run.err
    assert run.out.split() == ["ts_001:", str(tomo.path("labels/f"))]
    recipe = tomo.attributes("labels/f")["recipe"]
    assert recipe["early_exit"] == [3, 0.9]
    assert recipe["bank"]["features"] == ["gaussian_smoothing", "laplacian_of_gaussian"]
    again = otzi(*words, "--json")
    document = json.loads(again.out)
    assert document["ts_001"]["made"]
    assert document["ts_001"]["forest"]["n_trees"] == TREES
    assert document["ts_001"]["run"]["n_voxels"] == prod(SHAPE)
    assert document["ts_001"]["run"]["mvoxel_per_second"] > 0
    assert "importance by feature" in again.err
    assert "run" not in json.loads(otzi(*words, "--json").out)["ts_001"]
    named = otzi(*words, "ts_002")
    assert named.code == 2
    assert "ts_002 has no strokes" in named.err


def test_the_verb_adds_uncertainty_and_a_picture(
    tomo: Tomogram, otzi: Otzi, tmp_path: Path
) -> None:
    words = ("pseudolabel", tomo.collection.path, "--name", "f", "--trees", TREES)
    words += ("--scales", "0.7", "--uncertainty", "--json")
    run = otzi(*words, "--picture", tmp_path / "of_{tomogram}.png")
    assert run.code == 0, run.err
    result = json.loads(run.out)["ts_001"]
    assert result["uncertainty"] == str(tomo.path("labels/f_uncertainty"))
    assert result["picture"] == str(tmp_path / "of_ts_001.png")
    assert (tmp_path / "of_ts_001.png").read_bytes().startswith(b"\x89PNG")
    again = otzi(*words)
    assert again.code == 0
    assert not json.loads(again.out)["ts_001"]["made"]


def test_several_tomograms_need_several_pictures(
    tomo: Tomogram, add_tomogram: Callable[..., Tomogram], otzi: Otzi, tmp_path: Path
) -> None:
    other = add_tomogram(np.zeros(SHAPE, np.float32), "ts_002")
    write_strokes(tmp_path / "t.json", Strokes("ts_002", other.classes.names, STROKES))
    import_strokes(other, tmp_path / "t.json")
    words = ("pseudolabel", tomo.collection.path, "--name", "f", "--picture")
    run = otzi(*words, tmp_path / "one.png")
    assert run.code == 2
    assert "for 2 tomograms: write {tomogram} where the id goes" in run.err
    assert otzi(*words, tmp_path / "{tomogram}.txt").code == 73
    assert not tomo.has("labels/f")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--early-exit", "fast"), "--early-exit fast: write trees and votes, as 20,0.95"),
        (("--early-exit", "20"), "--early-exit 20: write trees"),
        (("--early-exit", "20,0.2"), "votes above 0.5"),
        (("--scales", "one"), "--scales one: write all, or some of 0.3,0.7"),
        (("--features", "texture"), "texture"),
        (("--memory", "lots"), "no size"),
        (("--uncertainty", "--hard"), "--uncertainty with --hard: only soft labels"),
    ],
)
def test_options_are_checked(
    tomo: Tomogram, otzi: Otzi, words: tuple[str, str], message: str
) -> None:
    run = otzi("pseudolabel", tomo.collection.path, "--name", "f", *words)
    assert run.code == 2
    assert message in run.err


def test_a_collection_without_strokes_is_told_so(
    add_tomogram: Callable[..., Tomogram], otzi: Otzi
) -> None:
    tomo = add_tomogram(np.zeros(SHAPE, np.float32))
    run = otzi("pseudolabel", tomo.collection.path, "--name", "f")
    assert run.code == 2
    assert "no tomogram of" in run.err
    assert "otzi strokes" in run.err
