"""Odd files of the field by `otzi ingest`: taken whole and marked, or left out with a remedy."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import json
import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import zarr

from mrc_files import mrc_bytes
from otzi.collection import Collection, create_collection, open_collection
from otzi.errors import OutOfSpace, SourceError, UsageError
from otzi.events import Advanced, Event
from otzi.store.manifest import read_manifest
from otzi_pipelines.ingest import batch as ingest_module
from otzi_pipelines.ingest import convert as convert_module
from otzi_pipelines.ingest import provenance as provenance_module
from otzi_pipelines.ingest.batch import IngestReport, ingest
from otzi_pipelines.ingest.narrow import narrowed

if TYPE_CHECKING:
    from commands import Otzi

DATA = Path(__file__).parent / "data" / "mrc"
RNG = np.random.default_rng(21)
VOLUME = RNG.normal(100, 30, (66, 70, 9)).astype(np.int16)


def _write(folder: Path, data: bytes, name: str = "a.mrc") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def _reasons(report: IngestReport) -> str:
    return "\n".join(item.reason for item in report.items)


def _litter(col: Collection) -> list[str]:
    return [p.name for p in (col.path / ".staging").iterdir() if p.suffix != ".lock"]


# Compressed


@pytest.mark.parametrize("preset", ["exact", "compact"])
@pytest.mark.parametrize(("ending", "compress"), [("gz", gzip.compress), ("bz2", bz2.compress)])
def test_a_compressed_file_is_ingested_as_what_it_holds(
    tmp_path: Path, ending: str, compress: Any, preset: str
) -> None:
    data = mrc_bytes(VOLUME, extended=b"hello")
    packed = _write(tmp_path, compress(data), f"ts.mrc.{ending}")
    plain = _write(tmp_path, data, "ts.mrc")
    ingest(tmp_path / "c", [packed], preset=preset)
    ingest(tmp_path / "d", [plain], preset=preset)
    col = open_collection(tmp_path / "c")
    found, expected = col["ts"], open_collection(tmp_path / "d")["ts"]
    np.testing.assert_array_equal(found.array("raw")[...], expected.array("raw")[...])
    said, source = found.attributes("raw"), found.attributes("raw")["source"]
    assert said["statistics"] == expected.attributes("raw")["statistics"]
    assert source["name"] == packed.name
    assert source["n_bytes"] == packed.stat().st_size
    assert source["sha256"] == hashlib.sha256(packed.read_bytes()).hexdigest()
    assert source["compression"] in ("gzip", "bzip2")
    assert source["header"] == expected.attributes("raw")["source"]["header"]
    assert _litter(col) == []
    assert [item.state for item in ingest(col.path, [packed], preset=preset).items] == ["done"]


def test_a_corrupt_stream_is_quarantined_and_leaves_nothing(tmp_path: Path) -> None:
    packed = bytearray(gzip.compress(mrc_bytes(VOLUME)))
    packed[-6] ^= 1  # in its checksum: the start is sound
    sources = [
        _write(tmp_path, bytes(packed), "checksum.mrc.gz"),
        _write(tmp_path, bytes(packed[:-2000]), "cut.mrc.gz"),
        _write(tmp_path, gzip.compress(mrc_bytes(VOLUME)[:-9]), "short.mrc.gz"),
        _write(tmp_path, mrc_bytes(VOLUME), "good.mrc"),
    ]
    report = ingest(tmp_path / "c", sources)
    assert report.exit_code == 5
    assert "checksum.mrc.gz is a damaged gzip stream" in _reasons(report)
    assert "cut.mrc.gz is a cut gzip stream" in _reasons(report)
    assert re.search(r"short\.mrc\.gz is cut short: expected \d+ bytes", _reasons(report))
    col = open_collection(tmp_path / "c")
    assert col.ids == ("good",)
    assert _litter(col) == []


def test_what_a_killed_run_unpacked_is_in_nobodys_way(tmp_path: Path) -> None:
    path = _write(tmp_path, gzip.compress(mrc_bytes(VOLUME)), "a.mrc.gz")
    col = create_collection(tmp_path / "c")
    _write(col.workspace, bytes(9 << 20), ".staging/tomograms.a.source")
    assert ingest(col, [path]).exit_code == 0
    np.testing.assert_array_equal(col["a"].array("raw")[...], VOLUME)
    assert _litter(col) == []


def test_room_for_unpacking_is_looked_for_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _write(tmp_path, gzip.compress(mrc_bytes(VOLUME)), "a.mrc.gz")
    stored = int(VOLUME.nbytes * 8 / 7 * 1.2) + 1
    usage = type("usage", (), {"free": stored + VOLUME.nbytes})
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(OutOfSpace):
        ingest(tmp_path / "c", [path])
    usage.free += 1024
    assert ingest(tmp_path / "c", [path]).exit_code == 0


# Stacks and cut files


def test_a_stack_becomes_tomograms_with_numbers(tmp_path: Path, otzi: Otzi) -> None:
    path = _write(tmp_path, mrc_bytes(VOLUME, mz=22, ispg=401, cella_z=220, extended=b"abc"))
    run = otzi("ingest", tmp_path / "c", path)
    assert (run.code, "pass --split-volumes" in run.err) == (5, True)
    run = otzi("ingest", tmp_path / "c", path, "--split-volumes", "--json")
    assert run.code == 0
    col = open_collection(tmp_path / "c")
    assert col.ids == ("a_v01", "a_v02", "a_v03")
    for number, tomo in enumerate(col, 1):
        part = VOLUME[22 * (number - 1) : 22 * number]
        np.testing.assert_array_equal(tomo.array("raw")[...], part)
        source = tomo.attributes("raw")["source"]
        assert source["volume"] == {"number": number, "of": 3}
        assert source["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        assert (tomo.path("raw") / "extended_header.bin").read_bytes() == b"abc"
    run = otzi("ingest", col.path, path, "--split-volumes", "--json")
    assert [item["state"] for item in json.loads(run.out)["items"]] == ["done"] * 3
    assert otzi("ingest", col.path, path, "--split-volumes", "--id", "b").code == 0
    assert {"b_v01", "b_v02", "b_v03"} <= set(open_collection(col.path).ids)


def test_a_cut_file_is_salvaged_on_request_and_marked(tmp_path: Path, otzi: Otzi) -> None:
    path = _write(tmp_path, mrc_bytes(VOLUME)[: -10 * 70 * 9 * 2 + 5])
    run = otzi("ingest", tmp_path / "c", path)
    assert (run.code, "is cut short: expected" in run.err) == (5, True)
    run = otzi("ingest", tmp_path / "c", path, "--salvage")
    assert run.code == 0
    assert "SALVAGED: the last 10 of 66 sections are lost" in run.err
    tomo = open_collection(tmp_path / "c")["a"]
    np.testing.assert_array_equal(tomo.array("raw")[...], VOLUME[:56])
    said = tomo.attributes("raw")
    assert said["salvaged"] == {"sections": 56, "of": 66}
    assert said["source"]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    whole = _write(tmp_path, mrc_bytes(VOLUME), "b.mrc")
    ingest(tmp_path / "c", [whole], salvage=True)
    assert "salvaged" not in open_collection(tmp_path / "c")["b"].attributes("raw")


# Extended headers


@pytest.mark.parametrize("kind", ["FEI1", "FEI2", "SERI", "CCP4", "AGAR", "MRCO"])
def test_extended_headers_are_kept_as_they_are(tmp_path: Path, kind: str) -> None:
    extended = RNG.bytes(909_312 if kind == "FEI2" else 5120)
    path = _write(tmp_path, mrc_bytes(VOLUME, extended=extended, exttyp=kind.encode()))
    ingest(tmp_path / "c", [path])
    tomo = open_collection(tmp_path / "c")["a"]
    said = tomo.attributes("raw")["source"]["extended_header"]
    assert said == {"type": kind, "n_bytes": len(extended), "file": "extended_header.bin"}
    assert (tomo.path("raw") / said["file"]).read_bytes() == extended
    assert read_manifest(tomo.path("raw"))[said["file"]][0] == len(extended)
    np.testing.assert_array_equal(tomo.array("raw")[...], VOLUME)


def test_an_extended_header_beyond_reason_is_only_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provenance_module, "_MOST_KEPT_BYTES", 100)
    ingest(tmp_path / "c", [_write(tmp_path, mrc_bytes(VOLUME, extended=bytes(101)))])
    tomo = open_collection(tmp_path / "c")["a"]
    said = tomo.attributes("raw")["source"]["extended_header"]
    assert said == {"type": "", "n_bytes": 101, "file": None}
    assert not (tomo.path("raw") / "extended_header.bin").exists()


def test_real_symmetry_records_are_kept(tmp_path: Path) -> None:
    ingest(tmp_path / "c", [DATA / "EMD-3001.map"])
    tomo = open_collection(tmp_path / "c")["EMD-3001"]
    kept = (tomo.path("raw") / "extended_header.bin").read_bytes()
    assert kept == (DATA / "EMD-3001.map").read_bytes()[1024:1184]
    assert tomo.shape == (73, 25, 43)


# Values


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_kept_counted_and_located(tmp_path: Path, value: float) -> None:
    volume = RNG.normal(5, 2, (70, 66, 20)).astype(np.float32)
    volume[3, 64:66, 7] = volume[65, 2, 19] = value
    report = ingest(tmp_path / "c", [_write(tmp_path, mrc_bytes(volume))])
    tomo = open_collection(tmp_path / "c")["a"]
    assert tomo.array("raw")[...].tobytes() == volume.tobytes()
    statistics = tomo.attributes("raw")["statistics"]
    assert statistics["nonfinite_voxels"] == 3
    assert statistics["nonfinite_box"] == {"start": [3, 2, 7], "stop": [66, 66, 20]}
    finite = volume[np.isfinite(volume)]
    assert statistics["mean"] == pytest.approx(finite.mean(dtype=np.float64))
    assert statistics["maximum"] == finite.max()
    assert "3 voxels are not finite" in "".join(report.items[0].warnings)


def test_compact_holds_what_is_not_finite_only_if_filled(tmp_path: Path, otzi: Otzi) -> None:
    volume = RNG.normal(50, 2, (20, 30, 40)).astype(np.float32)
    volume[3, 4, 5:8] = np.nan, np.inf, -np.inf
    path = _write(tmp_path, mrc_bytes(volume))
    run = otzi("ingest", tmp_path / "c", path, "--preset", "compact")
    assert (run.code, "--nonfinite fill" in run.err) == (5, True)
    for text, filled in (("fill", volume[np.isfinite(volume)].mean()), ("fill=45", 45.0)):
        words = ["--preset", "compact", "--nonfinite", text]
        assert otzi("ingest", tmp_path / text, path, *words).code == 0
        tomo = open_collection(tmp_path / text)["a"]
        assert tomo.attributes("raw")["nonfinite_filled_with"] == pytest.approx(filled)
        assert tomo.attributes("raw")["statistics"]["nonfinite_voxels"] == 3
        step = tomo.attributes("raw")["quantisation"]["scale"]
        np.testing.assert_allclose(tomo.raw.to_numpy()[3, 4, 5:8], filled, atol=step)
        assert tomo.attributes("raw")["quantisation"]["rmse"] < step
    run = otzi("ingest", tmp_path / "d", path, "--preset", "compact", "--nonfinite", "fill=900")
    assert (run.code, "fill=900 lies outside the data" in run.err) == (5, True)
    assert otzi("ingest", tmp_path / "e", path, "--preset", "train").code == 0
    kept = open_collection(tmp_path / "e")["a"].array("raw")[3, 4, 5:8]
    np.testing.assert_array_equal(kept, np.array([np.nan, np.inf, -np.inf], np.float16))
    with pytest.raises(UsageError, match="exact never does"):
        ingest(tmp_path / "f", [path], nonfinite="mean")


@pytest.mark.parametrize("preset", ["exact", "train", "compact"])
@pytest.mark.parametrize("value", [0, 7])
@pytest.mark.parametrize("dtype", ["int16", "float32"])
def test_a_constant_volume_is_taken_and_flagged(
    tmp_path: Path, preset: str, value: int, dtype: str
) -> None:
    volume = np.full((20, 30, 40), value, dtype)
    report = ingest(tmp_path / "c", [_write(tmp_path, mrc_bytes(volume))], preset=preset)
    assert report.exit_code == 0
    assert f"every voxel is {value}" in "".join(report.items[0].warnings)
    tomo = open_collection(tmp_path / "c")["a"]
    assert tomo.attributes("raw")["statistics"]["constant"] is True
    np.testing.assert_allclose(tomo.raw.to_numpy(), value, atol=0.01)


def test_statistics_of_float16_do_not_overflow(tmp_path: Path) -> None:
    volume = RNG.normal(60000, 1000, (40, 40, 40)).clip(0, 65504).astype(np.float16)
    ingest(tmp_path / "c", [_write(tmp_path, mrc_bytes(volume))])
    statistics = open_collection(tmp_path / "c")["a"].attributes("raw")["statistics"]
    values = volume.astype(np.float64)
    assert statistics["mean"] == pytest.approx(values.mean(), rel=1e-12)
    assert statistics["standard_deviation"] == pytest.approx(values.std(), rel=1e-9)


def test_what_overflows_float16_is_standardised(tmp_path: Path) -> None:
    volume = RNG.normal(0, 1e6, (20, 30, 40)).astype(np.float32)
    ingest(tmp_path / "c", [_write(tmp_path, mrc_bytes(volume))], preset="train")
    tomo = open_collection(tmp_path / "c")["a"]
    assert np.isfinite(tomo.array("raw")[...]).all()
    assert tomo.attributes("raw")["quantisation"]["rmse_over_standard_deviation"] < 1e-3


def test_int8_does_not_clip_in_silence(tmp_path: Path) -> None:
    volume = RNG.normal(0, 1, (20, 30, 40)).astype(np.float32)
    volume.flat[::500] = 1e3
    report = ingest(tmp_path / "c", [_write(tmp_path, mrc_bytes(volume))], preset="compact")
    assert "int8 would clip" in _reasons(report)


def test_header_statistics_are_never_trusted(tmp_path: Path) -> None:
    lies = {"dmin": 5, "dmax": -5, "dmean": 1e9, "rms": np.nan}
    ingest(tmp_path / "c", [_write(tmp_path, mrc_bytes(VOLUME, **lies))])
    statistics = open_collection(tmp_path / "c")["a"].attributes("raw")["statistics"]
    assert statistics["minimum"] == VOLUME.min()
    assert statistics["mean"] == pytest.approx(VOLUME.mean())


def test_packed_4_bit_is_refused_by_name(tmp_path: Path) -> None:
    report = ingest(tmp_path / "c", [_write(tmp_path, mrc_bytes(VOLUME, mode=101))])
    assert "a.mrc has mode 101 (packed 4-bit): convert it to mode 1, 2 or 12" in _reasons(report)


def test_trailing_bytes_are_taken_warned_of_and_recorded(tmp_path: Path) -> None:
    path = _write(tmp_path, mrc_bytes(VOLUME) + b"abc")
    report = ingest(tmp_path / "c", [path])
    assert "3 bytes follow the data" in "".join(report.items[0].warnings)
    source = open_collection(tmp_path / "c")["a"].attributes("raw")["source"]
    assert source["header"]["trailing_bytes"] == 3
    assert source["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()


# Changes


@pytest.mark.parametrize("how", ["grown", "touched", "replaced"])
@pytest.mark.parametrize("preset", ["exact", "compact"])
def test_a_file_that_changes_is_given_up(tmp_path: Path, how: str, preset: str) -> None:
    path = _write(tmp_path, mrc_bytes(VOLUME))
    other = _write(tmp_path, mrc_bytes(VOLUME[::-1]), "b.mrc")

    def change(event: Event) -> None:
        """After the first of two slabs."""
        if event != Advanced("ingest a", 1):
            return
        if how == "grown":
            with path.open("ab") as file:
                file.write(b"more")
        elif how == "touched":
            os.utime(path, ns=(1, 1))
        else:
            _write(tmp_path, mrc_bytes(VOLUME[::-1]), "new").replace(path)

    report = ingest(tmp_path / "c", [path, other], preset=preset, listen=change)
    assert [item.state for item in report.items] == ["quarantined", "published"]
    assert re.search("was changed while it was (read|ingested): wait until", _reasons(report))
    col = open_collection(tmp_path / "c")
    assert col.ids == ("b",)
    assert _litter(col) == []


def test_a_change_between_two_reads_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _write(tmp_path, mrc_bytes(VOLUME))
    choose = convert_module.quantisation_for

    def rewrite(*args: Any) -> Any:
        path.write_bytes(mrc_bytes(VOLUME[::-1]))
        os.utime(path, ns=(1, 1))
        return choose(*args)

    monkeypatch.setattr(convert_module, "quantisation_for", rewrite)
    report = ingest(tmp_path / "c", [path], preset="compact")
    assert "was changed while it was ingested" in _reasons(report)
    assert open_collection(tmp_path / "c").ids == ()


def test_update_replaces_what_changed_once_the_new_is_whole(tmp_path: Path, otzi: Otzi) -> None:
    path = _write(tmp_path, mrc_bytes(VOLUME))
    ingest(tmp_path / "c", [path])
    tomo = open_collection(tmp_path / "c", "r+")["a"]
    before = tomo.path("raw")
    with tomo.write("labels/x", dtype=np.uint8, recipe={}, downsample="mode") as writer:
        writer[tuple(slice(0, n) for n in tomo.shape)] = np.zeros(tomo.shape, np.uint8)
    _write(tmp_path, mrc_bytes(VOLUME[::-1]))
    run = otzi("ingest", tmp_path / "c", path)
    assert run.code == 5
    assert "there is a tomogram 'a' already, of a.mrc" in run.err
    assert "--update to replace it" in run.err
    assert tomo.path("raw") == before
    run = otzi("ingest", tmp_path / "c", path, "--update")
    assert run.code == 0
    assert "labels/x of a are of the revision before" in run.err
    after = tomo.path("raw")
    assert (after != before, before.exists()) == (True, False)
    np.testing.assert_array_equal(tomo.array("raw")[...], VOLUME[::-1])
    run = otzi("ingest", tmp_path / "c", path, "--update", "--json")
    assert json.loads(run.out)["items"][0]["state"] == "done"
    assert tomo.path("raw") == after
    assert otzi("ingest", tmp_path / "c", path, "--update", "--preset", "compact").code == 0
    assert tomo.array("raw").dtype == np.int8


def test_an_update_that_fails_leaves_the_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _write(tmp_path, mrc_bytes(VOLUME))
    ingest(tmp_path / "c", [path])
    digest = open_collection(tmp_path / "c")["a"].digest("raw")
    _write(tmp_path, mrc_bytes(VOLUME[::-1]))

    def fail(*args: Any) -> Any:
        raise SourceError(f"{path} is on a disk that died")

    monkeypatch.setattr(convert_module._Conversion, "_describe", fail)
    assert ingest(tmp_path / "c", [path], update=True).exit_code == 5
    tomo = open_collection(tmp_path / "c")["a"]
    assert tomo.digest("raw") == digest
    np.testing.assert_array_equal(tomo.array("raw")[...], VOLUME)


def test_update_does_not_choose_between_two_of_one_name(tmp_path: Path) -> None:
    first = _write(tmp_path, mrc_bytes(VOLUME), "x/a.mrc")
    second = _write(tmp_path, mrc_bytes(VOLUME[::-1]), "y/a.mrc")
    report = ingest(tmp_path / "c", [first, second], update=True)
    assert [item.state for item in report.items] == ["published", "quarantined"]
    assert f"of {first} in this run" in _reasons(report)
    np.testing.assert_array_equal(open_collection(tmp_path / "c")["a"].array("raw")[...], VOLUME)


# Quarantine


def test_quarantine_reports_stay_until_the_source_is_taken(tmp_path: Path, otzi: Otzi) -> None:
    good = mrc_bytes(VOLUME)
    sources = [_write(tmp_path, good[:-9], "x/a.mrc"), _write(tmp_path, b"no", "y/a.mrc")]
    before = [path.read_bytes() for path in sources]
    assert otzi("ingest", tmp_path / "c", *sources).code == 5
    folder = tmp_path / "c" / "quarantine"
    reports = {json.loads(p.read_text())["source"]: (p, json.loads(p.read_text()))
               for p in folder.iterdir()}  # fmt: skip
    assert reports.keys() == {str(path.resolve()) for path in sources}
    for path, content in zip(sources, before, strict=True):
        file, report = reports[str(path.resolve())]
        assert file.name.startswith("a.")
        assert report["id"] == "a"
        assert report["n_bytes"] == len(content)
        assert report["reason"].startswith(str(path))
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", report["time"])
        assert path.read_bytes() == content
    assert otzi("ingest", tmp_path / "c", *sources).code == 5
    assert len(list(folder.iterdir())) == 2
    sources[0].write_bytes(good)
    assert otzi("ingest", tmp_path / "c", *sources).code == 5
    (left,) = folder.iterdir()
    assert json.loads(left.read_text())["source"] == str(sources[1].resolve())
    assert open_collection(tmp_path / "c").ids == ("a",)


def test_what_is_quarantined_is_reported_even_if_the_run_is_broken_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = [_write(tmp_path, b"no", "bad.mrc"), _write(tmp_path, mrc_bytes(VOLUME))]

    def fill_up(*args: Any, **more: Any) -> Any:
        raise OutOfSpace("no space left")

    monkeypatch.setattr(ingest_module, "convert", fill_up)
    with pytest.raises(OutOfSpace):
        ingest(tmp_path / "c", sources)
    (report,) = (tmp_path / "c" / "quarantine").iterdir()
    assert json.loads(report.read_text())["id"] == "bad"


def test_a_narrowed_volume_is_what_zarr_reads(tmp_path: Path) -> None:
    volume = RNG.integers(-999, 999, (70, 30, 20)).astype(np.float32)
    ingest(tmp_path / "c", [_write(tmp_path, mrc_bytes(volume))])
    stored: Any = zarr.open_array(open_collection(tmp_path / "c")["a"].path("raw") / "0", mode="r")
    np.testing.assert_array_equal(stored[...], narrowed(volume, np.dtype(np.int16)))
