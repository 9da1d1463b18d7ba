"""Collections: what is published is whole, lazy, in ångström; what fails leaves nothing."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import pytest

from otzi.box import Box
from otzi.collection import Collection, create_collection, open_collection
from otzi.errors import (
    AccessDenied,
    CannotCreate,
    CorruptShard,
    Locked,
    NotACollection,
    NotFoundError,
    OutOfSpace,
    TemporaryFailure,
    UsageError,
    VerificationError,
)
from references import mean_level

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from otzi.tomogram import Tomogram

RNG = np.random.default_rng(0)
VOLUME = RNG.normal(0, 1000, (70, 90, 131)).astype(np.int16)
PROBS = RNG.integers(0, 256, (3, 70, 90, 131)).astype(np.uint8)
RECIPE = {"made": "by a test"}


def _publish_probs(tomo: Tomogram, probs: np.ndarray = PROBS, name: str = "probs/net") -> None:
    names = tomo.classes.names
    with tomo.write(
        name, dtype="uint8", channels=names, chunk_voxels=48, recipe=RECIPE, parents=("raw",)
    ) as writer:
        da.store(da.from_array(probs, chunks=(3, 48, 48, 48)), writer, lock=False)


def _write_and_fail(tomo: Tomogram) -> None:
    with tomo.write("raw", dtype="int16", recipe=RECIPE) as writer:
        writer[0:64, 0:64, 0:64] = VOLUME[:64, :64, :64] * (1 // 0)


def _write_and_interrupt(
    tomo: Tomogram, region: tuple[slice, ...], block: np.ndarray, **options: Any
) -> None:
    def interrupted() -> None:
        with tomo.write("raw", **options) as writer:
            assert not writer.is_done(region)
            writer[region] = block
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()


def test_raw_is_lazy_and_carries_angstrom(add_tomogram: Callable[..., Tomogram]) -> None:
    raw = add_tomogram(VOLUME).raw
    assert isinstance(raw.data, da.Array)
    assert raw.dims == ("z", "y", "x")
    assert raw.dtype == np.int16
    assert float(raw.z[3]) == 60.0
    assert float(raw.x[3]) == 30.0
    assert raw.attrs["spacing_angstrom"] == (20.0, 10.0, 10.0)
    np.testing.assert_array_equal(raw[5, 10:20].compute(), VOLUME[5, 10:20])


def test_levels_lie_on_the_voxel_centres_they_average(
    add_tomogram: Callable[..., Tomogram],
) -> None:
    level1 = add_tomogram(VOLUME).lazy("raw", level=1)
    assert level1.shape == (35, 45, 65)
    assert float(level1.z[0]) == 10.0
    assert float(level1.x[1]) == 25.0


def test_probs_are_floats_that_name_their_classes(add_tomogram: Callable[..., Tomogram]) -> None:
    tomo = add_tomogram(VOLUME)
    _publish_probs(tomo)
    probs = tomo.probs("net")
    assert probs.dtype == np.float32
    assert list(probs.c.values) == ["background", "membrane", "lumen"]
    np.testing.assert_array_equal(
        probs.sel(c="membrane").compute(), PROBS[1].astype(np.float32) / np.float32(255)
    )
    assert tomo.products == ("raw", "probs/net")
    assert tomo.image("probs/net").channels == tomo.classes.names


def test_hard_labels_stay_whole_numbers(add_tomogram: Callable[..., Tomogram]) -> None:
    tomo = add_tomogram(VOLUME)
    labels = (PROBS[0] % 3).astype(np.uint8)
    with tomo.write(
        "labels/hand", dtype="uint8", downsample="mode", recipe=RECIPE, parents=("raw",)
    ) as writer:
        da.store(da.from_array(labels, chunks=64), writer, lock=False)
    np.testing.assert_array_equal(tomo.labels("hand").compute(), labels)
    assert tomo.labels("hand").dtype == np.uint8
    assert tomo.image("labels/hand").is_labels


def test_boxes_are_read_at_any_level(add_tomogram: Callable[..., Tomogram]) -> None:
    tomo = add_tomogram(VOLUME)
    box = Box((3, 60, 100), (66, 90, 131))
    np.testing.assert_array_equal(tomo.read("raw", box), VOLUME[box.slices])
    assert tomo.read("raw", Box((0, 0, 0), (2, 3, 4)), level=1).shape == (2, 3, 4)


def test_quantised_raw_reads_as_its_true_values(collection: Collection) -> None:
    tomo = collection.add("q")
    with tomo.write(
        "raw", dtype="int8", shape=(8, 8, 8), spacing_angstrom=(5, 5, 5), recipe=RECIPE
    ) as writer:
        writer[0:8, 0:8, 0:8] = np.full((8, 8, 8), 4, np.int8)
        writer.attributes["quantisation"] = {"scale": 0.5, "offset": 1.0}
    assert float(tomo.raw[0, 0, 0]) == 3.0


def test_the_same_recipe_and_parents_are_done_already(
    add_tomogram: Callable[..., Tomogram],
) -> None:
    tomo = add_tomogram(VOLUME)
    assert not tomo.is_made("probs/net", RECIPE, ("raw",))
    _publish_probs(tomo)
    assert tomo.is_made("probs/net", RECIPE, ("raw",))
    assert not tomo.is_made("probs/net", {"made": "otherwise"}, ("raw",))
    add_tomogram(VOLUME + 1)
    assert not tomo.is_made("probs/net", RECIPE, ("raw",))


def test_two_runs_give_the_same_bytes(tmp_path: Path) -> None:
    digests = []
    for name in ("a", "b"):
        tomo = create_collection(tmp_path / name).add("ts")
        with tomo.write(
            "raw", dtype="int16", shape=VOLUME.shape, spacing_angstrom=(1, 1, 1), recipe=RECIPE
        ) as writer:
            da.store(da.from_array(VOLUME, chunks=64), writer, lock=False)
        digests.append(tomo.digest("raw"))
    assert digests[0] == digests[1]


def test_a_new_generation_replaces_the_old_one_whole(add_tomogram: Callable[..., Tomogram]) -> None:
    tomo = add_tomogram(VOLUME)
    first = tomo.path("raw")
    add_tomogram(VOLUME + 1)
    assert tomo.path("raw") != first
    assert not first.exists()
    np.testing.assert_array_equal(tomo.raw[0].compute(), VOLUME[0] + 1)


def test_what_fails_leaves_nothing_and_keeps_the_old(add_tomogram: Callable[..., Tomogram]) -> None:
    tomo = add_tomogram(VOLUME)
    before = tomo.digest("raw")
    with pytest.raises(ZeroDivisionError):
        _write_and_fail(tomo)
    with pytest.raises(VerificationError), tomo.write("raw", dtype="int16", recipe=RECIPE):
        pass
    assert tomo.digest("raw") == before
    assert not [p for p in (tomo.collection.path / ".staging").iterdir() if p.is_dir()]


def test_a_full_disk_is_named_and_leaves_nothing(
    add_tomogram: Callable[..., Tomogram], monkeypatch: pytest.MonkeyPatch
) -> None:
    tomo = add_tomogram(VOLUME)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutOfSpace, match="no space left while writing"):
        _publish_probs(tomo)
    monkeypatch.undo()
    assert tomo.products == ("raw",)
    _publish_probs(tomo)
    assert tomo.has("probs/net")


@pytest.mark.faults
@pytest.mark.parametrize("moment", ["staged", "renamed"])
def test_a_killed_writer_leaves_the_old_and_does_not_stand_in_the_way(
    add_tomogram: Callable[..., Tomogram], moment: str
) -> None:
    tomo = add_tomogram(VOLUME)
    script = f"""
import os, signal, numpy as np, dask.array as da
from pathlib import Path
import otzi
from otzi.store import publish
die = lambda *a: os.kill(os.getpid(), signal.SIGKILL)
tomo = otzi.open_collection({str(tomo.collection.path)!r}, mode="r+")["ts_001"]
with tomo.write("raw", dtype="int16", recipe={{}}) as writer:
    da.store(da.zeros(tomo.shape, dtype="int16", chunks=64), writer, lock=False)
    if {moment!r} == "staged":
        die()
    publish.sync_folder = lambda folder: die() if folder.name == "raw" else None
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert run.returncode == -9, run.stderr
    np.testing.assert_array_equal(open_collection(tomo.collection.path)["ts_001"].raw, VOLUME)
    add_tomogram(VOLUME + 1)
    np.testing.assert_array_equal(tomo.raw[0], VOLUME[0] + 1)
    assert len([p for p in (tomo.folder / "raw").iterdir() if p.is_dir()]) == 1


def test_two_writers_of_one_product_do_not_meet(add_tomogram: Callable[..., Tomogram]) -> None:
    tomo = add_tomogram(VOLUME)
    with (
        tomo.stage("strokes", recipe=RECIPE),
        pytest.raises(Locked, match="strokes is being written"),
        tomo.stage("strokes", recipe=RECIPE),
    ):
        pass


def test_a_missing_shard_is_an_error_not_zeros(add_tomogram: Callable[..., Tomogram]) -> None:
    tomo = add_tomogram(VOLUME)
    shard = next(p for p in tomo.path("raw").glob("0/c/**/*") if p.is_file())
    data = shard.read_bytes()
    shard.unlink()
    with pytest.raises(CorruptShard, match="missing"):
        tomo.array("raw")
    shard.write_bytes(data[:-1])
    with pytest.raises(CorruptShard, match="bytes"):
        tomo.array("raw")
    shard.write_bytes(b"\x01" + data[1:])
    with pytest.raises(CorruptShard, match="damaged"):
        tomo.raw.compute()


def test_a_collection_lists_and_names_what_there_is(
    collection: Collection, add_tomogram: Callable[..., Tomogram]
) -> None:
    assert len(collection) == 0
    add_tomogram(VOLUME, "b")
    add_tomogram(VOLUME, "a")
    opened = open_collection(collection.path)
    assert opened.ids == ("a", "b")
    assert [tomo.id for tomo in opened] == ["a", "b"]
    assert "a" in opened
    assert opened.classes.names == ("background", "membrane", "lumen")
    with pytest.raises(NotFoundError, match="there are a, b"):
        opened["c"]
    with pytest.raises(NotFoundError, match="it has raw"):
        opened["a"].path("probs/net")


def test_reading_does_not_write(add_tomogram: Callable[..., Tomogram]) -> None:
    tomo = add_tomogram(VOLUME)
    reader = open_collection(tomo.collection.path)
    with pytest.raises(AccessDenied, match=r"r\+"):
        reader.add("new")
    with pytest.raises(AccessDenied, match=r"r\+"), reader["ts_001"].stage("strokes", recipe={}):
        pass


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "a b", "x" * 200, "a..b"])
def test_names_that_are_paths_are_refused(collection: Collection, name: str) -> None:
    with pytest.raises(UsageError, match="is not a name"):
        collection.add(name)


@pytest.mark.parametrize("product", ["labels", "raw/x", "probs/../raw", "density", "probs/"])
def test_products_that_do_not_exist_are_refused(
    add_tomogram: Callable[..., Tomogram], product: str
) -> None:
    with pytest.raises(UsageError):
        add_tomogram(VOLUME).has(product)


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_where_somebody_was_killed_while_making_one_it_can_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n: int
) -> None:
    """At each sync: what is left is no collection yet, and is taken for none."""
    calls = 0
    real = os.fsync

    def fail(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if calls == n:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(TemporaryFailure):
            create_collection(tmp_path / "c")
    (tmp_path / "c").mkdir(exist_ok=True)
    (tmp_path / "c" / "zarr.json.1-2.partial").write_text("{")
    if (tmp_path / "c" / "zarr.json").exists():
        assert len(open_collection(tmp_path / "c", "r+")) == 0
    else:
        assert len(create_collection(tmp_path / "c")) == 0


def test_a_collection_is_not_made_over_something(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(CannotCreate, match="no collection"):
        create_collection(tmp_path)
    create_collection(tmp_path / "new")
    with pytest.raises(CannotCreate, match="already"):
        create_collection(tmp_path / "new")
    with pytest.raises(NotACollection, match="is no collection"):
        open_collection(tmp_path)
    with pytest.raises(NotFoundError, match="no collection at"):
        open_collection(tmp_path / "nowhere")


def test_an_interrupted_writer_goes_on_and_says_what_is_done(
    add_tomogram: Callable[..., Tomogram],
) -> None:
    """Two shards along z: the first is kept, the second is not asked for twice."""
    volume = np.random.default_rng(5).integers(0, 999, (300, 70, 9)).astype(np.int16)
    tomo = add_tomogram(np.zeros_like(volume))
    upper, lower = np.s_[0:256, 0:70, 0:9], np.s_[256:300, 0:70, 0:9]
    options = {"dtype": "int16", "recipe": RECIPE, "downsample": "mean"}
    _write_and_interrupt(tomo, upper, volume[upper], **options)
    with tomo.write("raw", **options) as writer:
        assert writer.is_done(upper)
        assert not writer.is_done(lower)
        writer[lower] = volume[lower]
    resumed = tomo.digest("raw")
    np.testing.assert_array_equal(tomo.array("raw")[...], volume)
    for level in range(1, tomo.image("raw").n_levels):
        expected = mean_level(tomo.array("raw", level - 1)[...])
        np.testing.assert_array_equal(tomo.array("raw", level)[...], expected)
    with tomo.write("raw", **options) as writer:
        assert not writer.is_done(upper)
        writer[0:300, 0:70, 0:9] = volume
    assert tomo.digest("raw") == resumed


def test_what_another_plan_left_behind_is_not_mixed_in(
    add_tomogram: Callable[..., Tomogram],
) -> None:
    tomo = add_tomogram(VOLUME)
    whole = tuple(slice(n) for n in tomo.shape)
    _write_and_interrupt(tomo, whole, np.zeros_like(VOLUME), dtype="int16", recipe={})
    with tomo.write("raw", dtype="int16", recipe=RECIPE) as writer:
        da.store(da.from_array(VOLUME, chunks=64), writer, lock=False)
    np.testing.assert_array_equal(tomo.raw, VOLUME)
