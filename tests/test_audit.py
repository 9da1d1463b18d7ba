"""The audit: what is sound is not blamed, what is not is named; repair gives the same bytes."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import pytest

from mrc_files import mrc_bytes
from otzi.collection import open_collection
from otzi.errors import NotFoundError, VerificationError
from otzi.events import Advanced, Finished, Started
from otzi.ledger import audit as audit_module
from otzi.ledger.audit import audit
from otzi.ledger.content import check_classes, check_sums
from otzi.ledger.repair import derive_levels
from otzi.ledger.sqlite import ledger_path
from otzi.store.manifest import MANIFEST, manifest_text, parse_manifest
from otzi.store.reader import LevelArray
from otzi_pipelines.ingest.batch import ingest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from commands import Otzi
    from otzi.ledger.audit import Finding
    from otzi.tomogram import Tomogram

RNG = np.random.default_rng(17)
VOLUME = RNG.normal(0, 900, (70, 90, 131)).astype(np.int16)


@pytest.fixture
def tomo(add_tomogram: Callable[..., Tomogram], monkeypatch: pytest.MonkeyPatch) -> Tomogram:
    monkeypatch.setattr(audit_module, "_ROW_SECONDS", 0)
    return add_tomogram(VOLUME)


def _publish(tomo: Tomogram, product: str, voxels: np.ndarray, **options: Any) -> None:
    with tomo.write(product, dtype=voxels.dtype, recipe={}, parents=("raw",), **options) as writer:
        chunks = (*voxels.shape[:-3], 64, 64, 64)
        da.store(da.from_array(voxels, chunks=chunks), writer, lock=False)


def _sums_to(total: int, shape: tuple[int, ...] = VOLUME.shape) -> np.ndarray:
    first = RNG.integers(0, 200, shape).astype(np.uint8)
    return np.stack([first, total - first, np.zeros_like(first)])


def _problems(tomo: Tomogram, **options: Any) -> list[str]:
    found: list[Finding] = audit(tomo.collection.path, **options).findings
    return [f"{finding.path}: {finding.problem}" for finding in found]


def test_what_is_sound_is_not_blamed(tomo: Tomogram) -> None:
    _publish(tomo, "labels/hard", (VOLUME > 0).astype(np.uint8), downsample="mode")
    _publish(tomo, "probs/net", _sums_to(255), channels=tomo.classes.names)
    with tomo.stage("ramps/net", recipe={}, parents=("probs/net",)) as staging:
        (staging.path / "curve.json").write_text("{}")
    events = []
    result = audit(tomo.collection.path, listen=events.append)
    assert result.findings == []
    manifests = [tomo.manifest(product) for product in tomo.products]
    assert result.n_products == len(tomo.products) == 4
    assert result.n_files == sum(map(len, manifests))
    assert result.n_bytes == sum(n_bytes for m in manifests for n_bytes, _ in m.values())
    assert [type(event) for event in events] == [Started, *[Advanced] * events[0].total, Finished]
    assert audit(tomo.collection.path, is_fast=True).findings == []
    ledger_path(tomo.collection.path).unlink()
    assert audit(tomo.collection.path, ["ts_001"]).findings == []


def test_an_empty_collection_is_sound(tomo: Tomogram) -> None:
    shutil.rmtree(tomo.folder)
    open_collection(tomo.collection.path, mode="r+")
    assert _problems(tomo) == []
    with pytest.raises(NotFoundError, match="no tomogram 'ts_001'"):
        audit(tomo.collection.path, ["ts_001"])


def test_files_that_are_too_many_too_few_or_too_short_are_named(tomo: Tomogram) -> None:
    folder = tomo.path("raw")
    (folder / "0" / "notes.txt").write_text("mine")
    (folder / "1" / "zarr.json").unlink()
    shard = folder / "0" / "c" / "0" / "0" / "0"
    shard.write_bytes(shard.read_bytes()[:-1])
    inside = "tomograms/ts_001/raw/1"
    n_bytes = shard.stat().st_size
    assert _problems(tomo, is_fast=True) == [
        f"{inside}/0/notes.txt: is not in the manifest",
        f"{inside}/0/c/0/0/0: has {n_bytes} bytes, {n_bytes + 1} were written",
        f"{inside}/1/zarr.json: is missing",
    ]


def _rewrite_manifest(tomo: Tomogram, product: str, *without: str) -> None:
    """Make the manifest agree with a folder from which files are gone, as a writer with a bug."""
    folder = tomo.path(product)
    files = parse_manifest((folder / MANIFEST).read_bytes())
    for name in without:
        (folder / name).unlink()
        del files[name]
    (folder / MANIFEST).write_text(manifest_text(files))
    open_collection(tomo.collection.path, mode="r+")


def test_a_shard_that_was_never_written_is_named(tomo: Tomogram) -> None:
    _rewrite_manifest(tomo, "raw", "1/c/0/0/0")
    assert _problems(tomo) == ["tomograms/ts_001/raw/1/1/c/0/0/0: was never written"]


@pytest.mark.parametrize(("total", "is_right"), [(253, False), (254, True), (255, True)])
def test_probabilities_sum_to_one_within_a_step(tomo: Tomogram, total: int, is_right: bool) -> None:
    probs = _sums_to(255)
    probs[:, 69, 89, 130] = (0, 0, total)
    _publish(tomo, "probs/net", probs, channels=tomo.classes.names)
    where = "tomograms/ts_001/probs/net/1/0"
    expected = f"{where}: the classes sum to {total / 255:.4g} at z, y, x = 69, 89, 130"
    assert [p.split(", it must")[0] for p in _problems(tomo)] == ([] if is_right else [expected])
    assert _problems(tomo, is_fast=True) == []


def test_sums_of_floats_and_of_the_unknown(tomo: Tomogram) -> None:
    probs = np.full((3, 8, 8, 8), 1 / 3, np.float32)
    _publish(tomo, "probs/f16", probs.astype(np.float16), shape=(8, 8, 8), channels="abc")
    check_sums(LevelArray(tomo.path("probs/f16"), 0), may_be_unknown=False)
    probs[:, 0, 0, 0] = 0
    _publish(tomo, "labels/f32", probs, shape=(8, 8, 8), channels="abc")
    check_sums(LevelArray(tomo.path("labels/f32"), 0), may_be_unknown=True)
    with pytest.raises(VerificationError, match="sum to 0 at z, y, x = 0, 0, 0"):
        check_sums(LevelArray(tomo.path("labels/f32"), 0), may_be_unknown=False)
    probs[0, 1, 2, 3] = np.nan
    _publish(tomo, "labels/nan", probs, shape=(8, 8, 8), channels="abc")
    with pytest.raises(VerificationError, match="sum to nan at z, y, x = 1, 2, 3"):
        check_sums(LevelArray(tomo.path("labels/nan"), 0), may_be_unknown=True)


def test_labels_are_classes_or_unknown(tomo: Tomogram) -> None:
    labels = RNG.integers(0, 3, VOLUME.shape).astype(np.uint8)
    labels[3] = 255
    _publish(tomo, "labels/hand", labels, downsample="mode")
    assert _problems(tomo) == []
    labels[69, 1, 2] = 3
    _publish(tomo, "labels/hand", labels, downsample="mode")
    assert _problems(tomo) == [
        "tomograms/ts_001/labels/hand/2/0: label 3 at z, y, x = 69, 1, 2, there are 0 to 2, "
        "and 255 for unknown"
    ]
    array = LevelArray(tomo.path("labels/hand"), 0)
    check_classes(array, 3)


def test_strokes_are_numbered_from_one(tomo: Tomogram) -> None:
    _publish(tomo, "strokes", np.full(VOLUME.shape, 3, np.uint8), downsample="mode")
    assert _problems(tomo) == []
    _publish(tomo, "strokes", np.full(VOLUME.shape, 4, np.uint8), downsample="mode")
    assert ["label 4" in problem for problem in _problems(tomo)] == [True]


def test_a_catalog_that_does_not_agree_is_named(tomo: Tomogram) -> None:
    _publish(tomo, "labels/hand", np.zeros(VOLUME.shape, np.uint8), downsample="mode")
    shutil.rmtree(tomo.folder / "labels" / "hand")
    assert _problems(tomo) == [
        "catalog.sqlite: has rows of what is not published: ts_001 labels/hand"
    ]
    open_collection(tomo.collection.path, mode="r+")
    assert _problems(tomo) == []


def test_rows_of_a_tomogram_that_is_gone_are_named_and_forgotten(
    tomo: Tomogram, add_tomogram: Callable[..., Tomogram], otzi: Otzi
) -> None:
    shutil.rmtree(add_tomogram(VOLUME[:9, :9, :9], "ts_002").folder)
    assert _problems(tomo, tomograms=["ts_001"]) == []
    assert _problems(tomo) == ["catalog.sqlite: has rows of what is not published: ts_002 raw"]
    assert otzi("verify", tomo.collection.path, "--repair").code == 0
    assert _problems(tomo) == []


def test_a_pointer_that_is_lost_is_named_only_if_something_was_published(tomo: Tomogram) -> None:
    pointer = tomo.folder / "raw" / "zarr.json"
    pointer.unlink()
    assert _problems(tomo) == ["tomograms/ts_001/raw/zarr.json: is missing"]


def test_what_is_replaced_while_it_is_read_is_read_again(
    tomo: Tomogram, add_tomogram: Callable[..., Tomogram], monkeypatch: pytest.MonkeyPatch
) -> None:
    look = audit_module.GenerationAudit.__iter__
    looks = []

    def replaced(self: audit_module.GenerationAudit) -> Any:
        looks.append(self.folder.name)
        if len(looks) == 1:
            add_tomogram(VOLUME + 1)
        return look(self)

    monkeypatch.setattr(audit_module.GenerationAudit, "__iter__", replaced)
    assert _problems(tomo) == []
    assert looks == ["1", "2"]


def test_the_levels_are_derived_to_the_byte(
    add_tomogram: Callable[..., Tomogram], tmp_path: Path
) -> None:
    """Two shards along z: the pyramid is fed as by a run that goes on."""
    volume = RNG.normal(0, 9, (300, 70, 9)).astype(np.float32)
    tomo = add_tomogram(volume)
    probs = _sums_to(255, volume.shape)
    _publish(tomo, "probs/net", probs, channels=tomo.classes.names, channels_per_chunk=3)
    for product in ("raw", "probs/net"):
        scratch = tmp_path / product.replace("/", ".")
        derive_levels(tomo.path(product), scratch)
        for name in tomo.manifest(product):
            if name.split("/")[0] in "123456":
                assert (scratch / name).read_bytes() == (tomo.path(product) / name).read_bytes()


def _spoil(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


@pytest.mark.parametrize("preset", ["exact", "train", "compact"])
def test_raw_is_mended_from_its_source(tmp_path: Path, otzi: Otzi, preset: str) -> None:
    source = tmp_path / "mrc" / "deep" / "ts_001.mrc"
    source.parent.mkdir(parents=True)
    source.write_bytes(mrc_bytes(VOLUME[:66, :70, :9], extended=b"kept"))
    path = tmp_path / "c"
    ingest(path, [source], preset=preset, voxel_size=(20.0, 10.0, 10.5))
    tomo = open_collection(path)["ts_001"]
    digest, manifest = tomo.digest("raw"), tomo.manifest("raw")
    for name in ("0/c/0/0/0", "1/c/0/0/0"):
        _spoil(tomo.path("raw") / name)
    assert otzi("verify", path).code == 4
    left = otzi("verify", path, "--repair")
    assert left.code == 4
    assert "--source FOLDER" in left.err
    run = otzi("verify", path, "--repair", "--source", tmp_path / "mrc", "--json")
    assert run.code == 0, run.err
    assert "mended tomograms/ts_001/raw/1/0/c/0/0/0 from the source" in run.err
    assert json.loads(run.out)["left"] == []
    assert (tomo.digest("raw"), tomo.manifest("raw")) == (digest, manifest)
    assert otzi("verify", path).code == 0
    assert not list((path / ".staging").iterdir())


def test_raw_is_not_mended_from_another_source(tmp_path: Path, otzi: Otzi) -> None:
    source = tmp_path / "ts_001.mrc"
    source.write_bytes(mrc_bytes(VOLUME[:66, :70, :9]))
    path = tmp_path / "c"
    ingest(path, [source])
    _spoil(open_collection(path)["ts_001"].path("raw") / "0/c/0/0/0")
    source.write_bytes(mrc_bytes(VOLUME[:66, :70, :9] + 1))
    run = otzi("verify", path, "--repair", "--source", source)
    assert run.code == 4
    assert "0/c/0/0/0" in run.out
