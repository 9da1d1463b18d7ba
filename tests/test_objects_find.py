"""The product ``objects/NAME``: table, labels, executors, memory, interruption, verification."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import zarr
from scipy import ndimage

from labelled import add_labels
from otzi.collection import create_collection
from otzi.errors import MemoryBudgetError, NotFoundError, UsageError, VerificationError
from otzi.events import Advanced, Event, Noted
from otzi.execute import executor
from otzi.ledger.audit import audit
from otzi_pipelines.objects import find as module
from otzi_pipelines.objects.find import CSV, JSON, find_objects
from otzi_pipelines.objects.plan import ObjectPlan, least_voxels, plan_objects
from otzi_pipelines.ramps.estimate import estimate_ramps
from s3_server import BUCKET, s3_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from otzi.execute import Executor
    from otzi.tomogram import Tomogram

SHAPE = (20, 70, 300)
"""Two shards; five blocks of 64 voxels in two rows."""
SPACING = (20.0, 10.0, 10.0)


def probabilities(seed: int = 0) -> np.ndarray:
    """Give ``(3, z, y, x)`` uint8 that sum to 255, with objects of all sizes."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=SHAPE), 2)
    membrane = np.rint(255 * np.clip(0.4 + 3 * noise, 0, 1)).astype(np.uint8)
    lumen = (255 - membrane) // 2
    return np.stack([255 - membrane - lumen, membrane, lumen])


def add_probs(tomo: Tomogram, values: np.ndarray, name: str = "unet") -> None:
    with tomo.write(
        f"probs/{name}",
        dtype=values.dtype,
        channels=tomo.classes.names,
        chunk_voxels=96,
        recipe={"made": "by a test"},
        parents=("raw",),
    ) as writer:
        da.store(da.from_array(values, chunks=(3, 96, 96, 96)), writer, lock=False)


@pytest.fixture
def tomo(add_tomogram: Callable[..., Tomogram]) -> Tomogram:
    tomo = add_tomogram(np.zeros(SHAPE, np.int8))
    add_probs(tomo, probabilities())
    return tomo


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "plan_objects", lambda *_, **__: ObjectPlan((64, 64, 64), 2, None))


@pytest.fixture(scope="module")
def processes() -> Iterator[Executor]:
    with executor("processes:2") as there:
        yield there


def make(tomo: Tomogram, name: str, **options: Any) -> bool:
    usual = {"of": "probs/unet", "classes": ("membrane",), "threshold": 0.5}
    return find_objects(tomo, name, **usual | options)


def content(tomo: Tomogram, name: str) -> dict[str, Any]:
    """Give size and checksum of every file but the one that holds the name."""
    files = tomo.manifest(f"objects/{name}")
    return {file: record for file, record in files.items() if file != "zarr.json"}


def table(tomo: Tomogram, name: str) -> pd.DataFrame:
    return pd.read_csv(tomo.path(f"objects/{name}") / CSV)


def whole(of: np.ndarray, connectivity: int = 26) -> tuple[np.ndarray, int]:
    rank = {6: 1, 18: 2, 26: 3}[connectivity]
    labels, n = ndimage.label(of, ndimage.generate_binary_structure(3, rank))
    return labels, int(n)


@pytest.mark.parametrize("connectivity", [6, 18, 26])
def test_the_table_says_what_the_whole_volume_shows(tomo: Tomogram, connectivity: int) -> None:
    assert make(tomo, "m", connectivity=connectivity, with_labels=True)
    stored = probabilities()[1]
    labels, n = whole(stored >= 128, connectivity)
    found = table(tomo, "m")
    numbers = tomo.array("objects/m")[:]
    assert len(found) == n > 20
    assert (np.unique(numbers[labels == found["id"][3]]) > 0).all()
    np.testing.assert_array_equal(numbers > 0, labels > 0)
    ids = np.arange(1, n + 1)
    np.testing.assert_array_equal(found["id"], ids)
    np.testing.assert_array_equal(found["voxels"], ndimage.sum_labels(numbers > 0, numbers, ids))
    np.testing.assert_allclose(found["volume_nm3"], found["voxels"] * 2.0)
    np.testing.assert_allclose(
        found["mean_probability"], ndimage.mean(stored / 255, numbers, ids), rtol=1e-8
    )
    centres = np.array(ndimage.center_of_mass(numbers > 0, numbers, ids))
    boxes = ndimage.find_objects(numbers)
    for i, axis in enumerate("zyx"):
        np.testing.assert_allclose(found[f"centroid_{axis}_voxels"], centres[:, i], rtol=1e-8)
        np.testing.assert_allclose(
            found[f"centroid_{axis}_angstrom"], centres[:, i] * SPACING[i], rtol=1e-8
        )
        assert found[f"start_{axis}_voxels"].tolist() == [box[i].start for box in boxes]
        assert found[f"stop_{axis}_voxels"].tolist() == [box[i].stop for box in boxes]
    cut = [any(s.start == 0 or s.stop == n for s, n in zip(b, SHAPE, strict=True)) for b in boxes]
    assert found["touches_border"].tolist() == cut
    assert 0 < sum(cut) < n
    ball = 4 * np.pi * (found["diameter_nm"] / 2) ** 2
    free = ~found["touches_border"] & (found["voxels"] > 100)
    assert (found["surface_nm2"][free] > 0.9 * ball[free]).all()  # no body has less than a ball


def test_csv_and_json_say_the_same(tomo: Tomogram) -> None:
    make(tomo, "m", classes=("membrane", "background"), threshold=None)
    document = json.loads((tomo.path("objects/m") / JSON).read_text())
    assert document["thresholds"] == [0.5, 0.5]
    assert (document["shape"], document["spacing_angstrom"]) == (list(SHAPE), list(SPACING))
    pd.testing.assert_frame_equal(pd.DataFrame(document["objects"]), table(tomo, "m"))
    counts = tomo.attributes("objects/m")["counts"]
    assert document["counts"] == counts
    assert tomo.attributes("objects/m")["n_objects"] == len(document["objects"])
    by_class = table(tomo, "m").groupby("class")["volume_nm3"]
    for name in ("membrane", "background"):
        assert counts[name]["objects"] == by_class.count()[name]
        assert math.isclose(counts[name]["largest_nm3"], by_class.max()[name])


def test_it_is_made_again_only_where_it_would_be_another(tomo: Tomogram) -> None:
    events: list[Event] = []
    assert make(tomo, "m", threshold=None)
    assert not make(tomo, "m", threshold=0.5, listen=events.append)
    assert events == [Noted("ts_001 has these objects/m already")]
    estimate_ramps(tomo, "unet")
    low = tomo.attributes("ramps/unet")["ramps"]["membrane"]["low"]
    assert make(tomo, "m", threshold=None)
    assert tomo.attributes("objects/m")["recipe"]["thresholds"] == [low]
    assert make(tomo, "m", threshold=None, min_volume_nm3=100)
    assert (table(tomo, "m")["volume_nm3"] >= 100).all()
    assert make(tomo, "m", threshold=None, min_volume_nm3=100, with_labels=True)
    add_probs(tomo, probabilities(1))
    assert make(tomo, "m", threshold=None, min_volume_nm3=100, with_labels=True)


def test_the_files_are_those_of_threads(tomo: Tomogram, processes: Executor) -> None:
    for options in ({}, {"min_volume_nm3": 50.0}):
        make(tomo, "threads", with_labels=True, **options)
        make(tomo, "processes", with_labels=True, executor=processes, **options)
        assert content(tomo, "processes") == content(tomo, "threads")


def test_blocks_and_memory_change_nothing(tomo: Tomogram, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tomo, "small", with_labels=True)
    monkeypatch.setattr(module, "plan_objects", plan_objects)
    make(tomo, "large", with_labels=True)
    make(tomo, "tight", with_labels=True, memory_bytes=450 * 10**6)
    assert content(tomo, "small") == content(tomo, "large") == content(tomo, "tight")


def test_floats_and_hard_labels(tomo: Tomogram) -> None:
    add_probs(tomo, (probabilities() / 255).astype(np.float16), "half")
    make(tomo, "bytes", threshold=0.5019)
    make(tomo, "half", of="probs/half", threshold=0.5019)
    same = ["voxels", "surface_nm2", "centroid_x_angstrom", "touches_border"]
    pd.testing.assert_frame_equal(table(tomo, "half")[same], table(tomo, "bytes")[same])
    np.testing.assert_allclose(
        table(tomo, "half")["mean_probability"], table(tomo, "bytes")["mean_probability"], atol=3e-4
    )
    add_labels(tomo, (probabilities()[1] >= 128).astype(np.uint8), "hard")
    make(tomo, "hard", of="labels/hard", threshold=None)
    pd.testing.assert_frame_equal(table(tomo, "hard")[same], table(tomo, "bytes")[same])
    assert "mean_probability" not in table(tomo, "hard")


def test_no_objects_are_an_empty_table(tomo: Tomogram) -> None:
    assert make(tomo, "none", min_volume_nm3=1e9, with_labels=True)
    assert len(table(tomo, "none")) == 0
    assert not tomo.array("objects/none")[:].any()
    assert tomo.attributes("objects/none")["counts"]["membrane"]["objects"] == 0


def test_the_labels_are_an_image_that_others_open_and_verify_checks(tomo: Tomogram) -> None:
    make(tomo, "m", with_labels=True)
    group = zarr.open_group(tomo.path("objects/m"), mode="r")
    assert "image-label" in group.attrs["ome"]
    level = group["0"]
    assert isinstance(level, zarr.Array)
    assert (level.dtype, level.shape) == (np.uint32, SHAPE)
    assert set(np.unique(group["1"][:])) <= set(np.unique(level[:]))  # type: ignore[index,arg-type]
    folder = tomo.collection.workspace
    assert not audit(folder).findings
    with tomo.write(
        "objects/m",
        dtype="u4",
        downsample="mode",
        recipe={},
        parents=("raw",),
    ) as writer:
        writer[:, :, :] = np.full(SHAPE, 7, np.uint32)
        writer.attributes["n_objects"] = 6
    (finding,) = audit(folder).findings
    assert "label 7" in str(finding)


def test_an_interrupted_run_goes_on_with_what_is_not_written(
    tomo: Tomogram, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, written = module.block_numbers, []

    def interrupted(task: Any, item: Any) -> Any:
        if item[0].start == (0, 64, 256):
            raise KeyboardInterrupt
        return original(task, item)

    make(tomo, "whole", with_labels=True)
    monkeypatch.setattr(module, "block_numbers", interrupted)
    monkeypatch.setattr(module, "plan_objects", lambda *_, **__: ObjectPlan((64, 64, 64), 1, None))
    with pytest.raises(KeyboardInterrupt):
        make(tomo, "again", with_labels=True)
    assert not tomo.has("objects/again")

    def counted(task: Any, item: Any) -> Any:
        written.append(item[0].start)
        return original(task, item)

    monkeypatch.setattr(module, "block_numbers", counted)
    make(tomo, "again", with_labels=True)
    assert sorted(written) == [(0, 0, 256), (0, 64, 256)]
    assert content(tomo, "again") == content(tomo, "whole")


def test_progress_is_told_in_voxels(tomo: Tomogram) -> None:
    events: list[Event] = []
    make(tomo, "m", with_labels=True, listen=events.append)
    told = {"blocks": 0, "labels": 0}
    for event in events:
        if isinstance(event, Advanced):
            told[event.name] += event.units
    assert told == dict.fromkeys(told, math.prod(SHAPE))


def test_what_changed_meanwhile_is_not_taken(
    tomo: Tomogram, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = module.block_parts

    def changing(task: Any, box: Any) -> Any:
        if box.start == (0, 0, 0):
            add_probs(tomo, probabilities(3))
            monkeypatch.setattr(module, "block_parts", original)
            from otzi_pipelines.objects import block

            block._array.cache_clear()
        return original(task, box)

    monkeypatch.setattr(module, "block_parts", changing)
    with pytest.raises(VerificationError, match="probs/unet of ts_001 has changed meanwhile"):
        make(tomo, "m")
    assert not tomo.has("objects/m")
    with pytest.raises(NotFoundError, match="no probs/other"):
        make(tomo, "m", of="probs/other")


def test_counts_of_what_was_replaced_are_not_published(
    tomo: Tomogram, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = module.object_columns

    def replacing(*arguments: Any) -> Any:
        add_probs(tomo, probabilities(3))
        return original(*arguments)

    monkeypatch.setattr(module, "object_columns", replacing)
    for with_labels in (False, True):
        add_probs(tomo, probabilities())
        with pytest.raises(VerificationError, match="probs/unet of ts_001 has changed meanwhile"):
            make(tomo, "m", with_labels=with_labels)
        assert not tomo.has("objects/m")


def test_a_collection_in_an_object_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with s3_server() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("OTZI_SCRATCH", str(tmp_path / "here"))
        tomo = create_collection(f"s3://{BUCKET}/objects").add("ts")
        with tomo.write(
            "raw", dtype="i1", shape=SHAPE, spacing_angstrom=(9.0,) * 3, recipe={}
        ) as writer:
            writer[:, :, :] = np.zeros(SHAPE, np.int8)
        add_labels(tomo, (probabilities()[1] >= 128).astype(np.uint8), "hard")
        make(tomo, "m", of="labels/hard", threshold=None, with_labels=True)
        _, n = whole(probabilities()[1] >= 128)
        assert int(tomo.array("objects/m")[:].max()) == n
        assert len((tomo.path("objects/m") / CSV).read_bytes().splitlines()) == n + 1


def test_volumes_are_rounded_up_to_whole_voxels() -> None:
    assert least_voxels(0, (10.0, 10.0, 10.0)) == 1
    assert least_voxels(100, (10.0, 10.0, 10.0)) == 100
    assert least_voxels(100.1, (10.0, 10.0, 10.0)) == 101
    assert least_voxels(0.3, (7.0, 7.0, 7.0)) == 1
    assert least_voxels(1000 * 13.48**3 / 1000, (13.48,) * 3) == 1000
    for wrong in (-1.0, float("nan"), float("inf")):
        with pytest.raises(UsageError, match="give 0 or more"):
            least_voxels(wrong, (10.0, 10.0, 10.0))


def test_a_plan_fits_into_the_memory_or_says_what_would() -> None:
    shape = (500, 1440, 1024)
    last = None
    for memory in (4_000_000_000, 1_500_000_000, 700_000_000, 450_000_000):
        plan = plan_objects(shape, 1, workers=4, memory_bytes=memory)
        here = (math.prod(plan.block) * plan.workers, plan.workers)
        assert last is None or here <= last
        assert plan.most_parts is not None
        last = here
    with pytest.raises(MemoryBudgetError, match=r"need 3\d\d\.\d MB .*is 300\.0 MB: allow more$"):
        plan_objects(shape, 1, workers=4, memory_bytes=300_000_000)
    with pytest.raises(MemoryBudgetError, match=r"4 more.*run fewer processes"):
        plan_objects(shape, 1, workers=2, memory_bytes=1_000_000_000, processes=4)
    assert plan_objects((3, 4, 5), 4, workers=3, memory_bytes=None).workers == 3
