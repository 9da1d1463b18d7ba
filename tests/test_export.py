"""Export: the bytes that came in, valid by mrcfile, in the right place; and what it refuses."""

from __future__ import annotations

import errno
import io
import json
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mrcfile
import numpy as np
import pytest

from mrc_files import mrc_bytes
from otzi.box import Box
from otzi.collection import open_collection
from otzi.errors import CannotCreate, NotFoundError, OutOfSpace, UsageError
from otzi.mrc import read_header, read_window
from otzi_pipelines.export import export_mrc
from otzi_pipelines.ingest.batch import ingest

if TYPE_CHECKING:
    from commands import Otzi
    from otzi.tomogram import Tomogram

RNG = np.random.default_rng(3)
SHAPE = (70, 66, 65)
CLASSES = ("background", "membrane", "lumen")


def _ingested(folder: Path, volume: np.ndarray, preset: str = "exact", **fields: Any) -> Tomogram:
    source = folder / "ts 1.mrc"
    source.write_bytes(mrc_bytes(volume, **fields))
    ingest(folder / "c", [source], preset=preset)
    return open_collection(folder / "c", "r+")["ts_1"]


def _read(path: Path) -> np.ndarray:
    header = read_header(path)
    if header.mode != 12:  # mrcfile sums float16 in float16, which overflows
        report = io.StringIO()
        assert mrcfile.validate(path, print_file=report), report.getvalue()
    assert not header.warnings
    return read_window(path, header, Box.whole(header.shape))


def _with_probs(tomo: Tomogram, name: str, dtype: Any = np.uint8) -> np.ndarray:
    values = RNG.integers(0, 256, (3, *tomo.shape), dtype=np.uint8)
    stored = values if dtype == np.uint8 else (values / np.float32(255)).astype(dtype)
    with tomo.write(name, dtype=dtype, recipe={}, channels=CLASSES) as writer:
        writer[tuple(slice(0, n) for n in stored.shape)] = stored
    return stored


def _with_labels(tomo: Tomogram, name: str, values: np.ndarray) -> None:
    with tomo.write(name, dtype=values.dtype, recipe={}, downsample="mode") as writer:
        writer[tuple(slice(0, n) for n in values.shape)] = values


@pytest.mark.parametrize("dtype", ["int8", "int16", "uint16", "float16", "float32"])
@pytest.mark.parametrize("order", "<>")
def test_what_came_in_goes_out_and_comes_in_again(tmp_path: Path, dtype: str, order: str) -> None:
    volume = RNG.normal(60, 20, SHAPE).clip(-100, 100).astype(dtype)
    tomo = _ingested(tmp_path, volume, order=order)
    (path,) = export_mrc(tomo, "raw", tmp_path / "out.mrc")
    found = _read(path)
    assert found.dtype == dtype
    assert found.tobytes() == volume.tobytes()
    assert path.read_bytes()[1024:] == volume.astype(volume.dtype.newbyteorder("<")).tobytes()
    ingest(tmp_path / "c", [path])
    again = open_collection(tmp_path / "c")["out"]
    np.testing.assert_array_equal(again.array("raw")[...], tomo.array("raw")[...])
    assert again.spacing_angstrom == pytest.approx(tomo.spacing_angstrom)
    assert again.attributes("raw")["statistics"] == tomo.attributes("raw")["statistics"]


@pytest.mark.parametrize("axes", [(1, 2, 3), (3, 1, 2), (2, 3, 1)])
def test_place_and_labels_go_with_it(tmp_path: Path, axes: tuple[int, int, int]) -> None:
    fields: dict[str, Any] = dict(zip(("mapc", "mapr", "maps"), axes, strict=True))
    fields |= {"nxstart": 4, "nystart": -5, "nzstart": 6, "origin": (70.5, 80.5, 90.5)}
    fields |= {"label": [b"made by somebody".ljust(80), b"binned".ljust(80), *[b""] * 8]}
    fields |= dict(zip(("mz", "my", "mx"), SHAPE, strict=True))
    fields |= {"cella_z": 70 * 12, "cella_y": 66 * 11, "cella_x": 65 * 10}
    volume = RNG.integers(-999, 999, SHAPE, dtype=np.int16)
    tomo = _ingested(tmp_path, volume, **fields)
    source = read_header(tmp_path / "ts 1.mrc")
    (path,) = export_mrc(tomo, "raw", tmp_path / "out.mrc")
    np.testing.assert_array_equal(_read(path), volume.transpose(source.transpose))
    header = read_header(path)
    assert header.axes == (1, 2, 3)
    assert header.spacing_angstrom == pytest.approx(source.spacing_angstrom)
    assert header.origin_angstrom == source.origin_angstrom == (90.5, 80.5, 70.5)
    assert header.start_voxels == source.start_voxels
    assert header.labels[0].startswith("otzi ")
    assert "ts 1.mrc" in header.labels[0]
    assert header.labels[1:] == ("raw", "made by somebody", "binned")


@pytest.mark.parametrize(
    ("fields", "origin"),
    [({}, (15, 15, 15)), ({"nzstart": 2}, (35, 15, 15)), ({"origin": (1, 2, 3)}, (18, 17, 16))],
)
def test_a_coarse_level_lies_where_its_voxels_do(
    tmp_path: Path, fields: dict[str, Any], origin: tuple[float, float, float]
) -> None:
    """Spacing is 10 Å: the first voxel of level 2 is the mean of voxels 0 to 3, centred at 1.5."""
    volume = RNG.normal(60, 20, (150, 40, 30)).astype(np.float32)
    tomo = _ingested(tmp_path, volume, **fields)
    (path,) = export_mrc(tomo, "raw", tmp_path / "out.mrc", level=2)
    np.testing.assert_array_equal(_read(path), tomo.array("raw", 2)[...])
    header = read_header(path)
    assert header.spacing_angstrom == (40, 40, 40)
    assert header.origin_angstrom == origin
    assert header.start_voxels == (0, 0, 0)
    with pytest.raises(NotFoundError, match="no level 3 of raw of ts_1: there are 0 to 2"):
        export_mrc(tomo, "raw", tmp_path / "out.mrc", level=3)


@pytest.mark.parametrize("mean", [0, 1e6])
@pytest.mark.parametrize(("preset", "mode"), [("train", 12), ("compact", 0)])
def test_quantisation_is_undone_unless_one_wants_it(
    tmp_path: Path, preset: str, mode: int, mean: float
) -> None:
    volume = RNG.normal(mean, 50, SHAPE).astype(np.float32)
    tomo = _ingested(tmp_path, volume, preset)
    (path,) = export_mrc(tomo, "raw", tmp_path / "out.mrc")
    found = _read(path)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, tomo.raw.to_numpy().astype(np.float32))
    assert np.std(found.astype(float) - volume) < 0.02 * 50
    (path,) = export_mrc(tomo, "raw", tmp_path / "stored.mrc", stored=True)
    np.testing.assert_array_equal(_read(path), tomo.array("raw")[...])
    header = read_header(path)
    assert header.mode == mode
    quantisation = tomo.attributes("raw").get("quantisation")
    said = [text for text in header.labels if "value = stored * " in text]
    assert bool(said) == bool(quantisation)
    if quantisation:
        scale, offset = (float(w) for w in said[0].partition("stored * ")[2].split(" + "))
        assert scale == pytest.approx(quantisation["scale"], rel=1e-8)
        assert offset == pytest.approx(quantisation["offset"], rel=1e-8)


def test_narrowed_floats_come_out_as_floats(tmp_path: Path) -> None:
    volume = RNG.integers(-999, 999, SHAPE).astype(np.float32)
    tomo = _ingested(tmp_path, volume)
    assert tomo.array("raw").dtype == np.int16
    (path,) = export_mrc(tomo, "raw", tmp_path / "out.mrc")
    assert _read(path).tobytes() == volume.tobytes()
    (path,) = export_mrc(tomo, "raw", tmp_path / "stored.mrc", stored=True)
    assert read_header(path).mode == 1


def test_unsigned_bytes_come_out_whole(tmp_path: Path) -> None:
    data = bytearray(mrc_bytes(RNG.integers(-128, 128, SHAPE, dtype=np.int8)))
    data[152:160] = (1146047817).to_bytes(4, "little") + bytes(4)  # IMOD's flag of unsigned bytes
    (tmp_path / "a.mrc").write_bytes(data)
    ingest(tmp_path / "c", [tmp_path / "a.mrc"])
    tomo = open_collection(tmp_path / "c")["a"]
    assert tomo.array("raw").dtype == np.uint8
    (path,) = export_mrc(tomo, "raw", tmp_path / "out.mrc")
    np.testing.assert_array_equal(_read(path), tomo.array("raw")[...])


@pytest.mark.parametrize(
    ("dtype", "largest", "mode"),
    [("uint8", 3, 0), ("uint8", 200, 1), ("uint16", 99, 0), ("uint32", 40000, 6)],
)
def test_hard_labels_take_the_narrowest_mode(
    tmp_path: Path, dtype: str, largest: int, mode: int
) -> None:
    tomo = _ingested(tmp_path, RNG.normal(0, 9, SHAPE).astype(np.float32))
    values = RNG.integers(0, 3, SHAPE).astype(dtype)
    values[-1, -1, -1] = largest
    _with_labels(tomo, "labels/seen", values)
    (path,) = export_mrc(tomo, "labels/seen", tmp_path / "out.mrc")
    np.testing.assert_array_equal(_read(path), values)
    assert read_header(path).mode == mode
    assert "labels/seen" in read_header(path).labels[1]


def test_numbers_that_no_mode_holds_are_refused(tmp_path: Path) -> None:
    tomo = _ingested(tmp_path, RNG.normal(0, 9, SHAPE).astype(np.float32))
    values = np.full(SHAPE, 70000, np.uint32)
    _with_labels(tomo, "labels/many", values)
    with pytest.raises(CannotCreate, match="above 65535"):
        export_mrc(tomo, "labels/many", tmp_path / "out.mrc")
    assert not list(tmp_path.glob("out.mrc*"))


@pytest.mark.parametrize("product", ["probs/unet", "labels/soft"])
@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32])
def test_a_class_comes_out_as_its_probability(tmp_path: Path, product: str, dtype: Any) -> None:
    tomo = _ingested(tmp_path, RNG.normal(0, 9, SHAPE).astype(np.float32))
    stored = _with_probs(tomo, product, dtype)
    (path,) = export_mrc(tomo, product, tmp_path / "out.mrc", classes=("lumen",))
    true = stored.astype(np.float32) / (255 if dtype == np.uint8 else 1)
    found = _read(path)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, true[2], rtol=1e-6)
    assert f"{product} lumen" in read_header(path).labels[1]
    files = export_mrc(tomo, product, tmp_path / "{class}.mrc", stored=True)
    assert [file.name for file in files] == ["background.mrc", "membrane.mrc", "lumen.mrc"]
    for file, channel in zip(files, stored, strict=True):
        np.testing.assert_array_equal(_read(file), channel)


def test_what_cannot_be_meant_names_what_can(tmp_path: Path) -> None:
    tomo = _ingested(tmp_path, RNG.normal(0, 9, SHAPE).astype(np.float32))
    _with_probs(tomo, "probs/unet")
    out = tmp_path / "out.mrc"
    for product, classes, error, message in [
        ("probs/unet", (), UsageError, "background, membrane, lumen: choose by --class"),
        ("probs/unet", ("spikes",), NotFoundError, "no class 'spikes': there are background"),
        ("probs/unet", ("lumen", "membrane"), UsageError, "2 classes into .*put {class}"),
        ("raw", ("lumen",), UsageError, "raw has no classes"),
        ("probs/other", (), NotFoundError, "no probs/other: it has raw, probs/unet"),
        ("nonsense", (), UsageError, "no product 'nonsense'"),
    ]:
        with pytest.raises(error, match=message):
            export_mrc(tomo, product, out, classes=classes)
    assert not list(tmp_path.glob("out.mrc*"))


def test_all_files_are_looked_for_before_one_is_written(tmp_path: Path) -> None:
    tomo = _ingested(tmp_path, RNG.normal(0, 9, SHAPE).astype(np.float32))
    _with_probs(tomo, "probs/unet")
    (tmp_path / "lumen.mrc").write_bytes(b"precious")
    with pytest.raises(CannotCreate, match=r"lumen\.mrc is there already: pass --force"):
        export_mrc(tomo, "probs/unet", tmp_path / "{class}.mrc")
    assert not (tmp_path / "background.mrc").exists()
    assert (tmp_path / "lumen.mrc").read_bytes() == b"precious"
    export_mrc(tomo, "probs/unet", tmp_path / "{class}.mrc", force=True)
    assert read_header(tmp_path / "lumen.mrc").shape == SHAPE


def test_memory_does_not_grow_with_the_volume(tmp_path: Path) -> None:
    peaks = []
    for depth in (64, 64, 512):  # the first one warms up
        volume = RNG.integers(-99, 99, (depth, 130, 128)).astype(np.int16)
        (tmp_path / str(len(peaks))).mkdir()
        tomo = _ingested(tmp_path / str(len(peaks)), volume)
        tracemalloc.start()
        export_mrc(tomo, "raw", tmp_path / "out.mrc", force=True)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] < 1.2 * peaks[1]


def test_the_verb(tmp_path: Path, otzi: Otzi) -> None:
    volume = RNG.normal(0, 9, SHAPE).astype(np.float32)
    tomo = _ingested(tmp_path, volume)
    _with_probs(tomo, "probs/unet")
    col, out = tomo.collection.path, tmp_path / "out.mrc"
    run = otzi("export", col, "ts_1", "raw", out, "--json")
    assert (run.code, json.loads(run.out)) == (0, {"files": [str(out)]})
    assert _read(out).tobytes() == volume.tobytes()
    run = otzi("export", col, "ts_1", "raw", out)
    assert (run.code, "pass --force" in run.err) == (73, True)
    assert otzi("export", col, "ts_1", "raw", out, "--force", "--level", "1").code == 0
    assert _read(out).shape == (35, 33, 32)
    run = otzi("export", col, "ts_1", "probs/unet", tmp_path / "{class}.mrc", "--class", "lumen")
    assert (run.code, run.out.strip()) == (0, str(tmp_path / "lumen.mrc"))
    run = otzi("export", col, "ts_1", "labels/x", tmp_path / "x.mrc")
    assert (run.code, "it has raw, probs/unet" in run.err) == (2, True)
    run = otzi("export", col, "ts_1", "raw", tmp_path / "nowhere" / "x.mrc")
    assert (run.code, "make it first" in run.err) == (73, True)


def test_a_disk_that_fills_up_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tomo = _ingested(tmp_path, RNG.normal(0, 9, SHAPE).astype(np.float32))

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutOfSpace, match=r"no space left while writing .*out\.mrc") as caught:
        export_mrc(tomo, "raw", tmp_path / "out.mrc")
    assert caught.value.exit_code == 75
    assert not list(tmp_path.glob("out.mrc*"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_folder_one_may_not_write_to_is_77(tmp_path: Path) -> None:
    tomo = _ingested(tmp_path, RNG.normal(0, 9, (8, 8, 8)).astype(np.float32))
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o555)
    for parent in [tmp_path, *tmp_path.parents][:4]:
        if parent.stat().st_uid == os.geteuid() and parent != Path("/"):
            parent.chmod(0o755)
    code = (
        "import os, sys; import otzi.cli, otzi_pipelines.export; os.setuid(65534); "
        "from otzi.collection import open_collection as o; c, f = sys.argv[1:]\n"
        "try: otzi_pipelines.export.export_mrc(o(c)['ts_1'], 'raw', f)\n"
        "except otzi.errors.OtziError as e: print(e); sys.exit(e.exit_code)"
    )
    words = [sys.executable, "-c", code, str(tomo.collection.path), str(folder / "a.mrc")]
    run = subprocess.run(words, capture_output=True, text=True, check=False, cwd="/")
    assert run.returncode == 77, run.stderr
    assert "no permission" in run.stdout
    assert not list(folder.iterdir())
