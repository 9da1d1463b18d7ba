"""Ingest: the voxels of the file, streamed, with their pyramid; a bad file stops no other."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mrc_files import mrc_bytes
from otzi.collection import create_collection, open_collection
from otzi.errors import (
    CannotCreate,
    MemoryBudgetError,
    NotFoundError,
    OutOfSpace,
)
from otzi.memory import parse_bytes
from otzi.mrc import read_header
from otzi_pipelines.ingest.batch import ingest
from otzi_pipelines.ingest.sources import Reading, read_sources
from otzi_pipelines.ingest.strips import slab_planes
from references import mean_level

if TYPE_CHECKING:
    from commands import Otzi

RNG = np.random.default_rng(11)
VOLUME = RNG.normal(100, 30, (66, 70, 9)).astype(np.int16)


def _write(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


@settings(deadline=None, max_examples=12)
@given(
    dtype=st.sampled_from(["int8", "int16", "uint16", "float16", "float32"]),
    order=st.sampled_from("<>"),
    axes=st.permutations([1, 2, 3]),
    shape=st.tuples(st.integers(2, 70), st.integers(2, 70), st.integers(2, 70)),
)
def test_every_voxel_arrives_with_its_pyramid(
    tmp_path_factory: pytest.TempPathFactory,
    dtype: str,
    order: str,
    axes: list[int],
    shape: tuple[int, int, int],
) -> None:
    folder = tmp_path_factory.mktemp("ingest")
    stored = RNG.normal(50, 20, shape).astype(dtype)
    mapc, mapr, maps = axes
    source = _write(
        folder, "a.mrc", mrc_bytes(stored, order, b"ext", mapc=mapc, mapr=mapr, maps=maps)
    )
    header = read_header(source)
    report = ingest(folder / "c", [source], voxel_size=(20.0, 10.0, 10.0))
    assert report.exit_code == 0
    tomo = open_collection(folder / "c")["a"]
    level = stored.transpose(header.transpose)
    for number in range(tomo.image("raw").n_levels):
        found = tomo.array("raw", number)[...]
        assert found.dtype == np.dtype(dtype)
        np.testing.assert_allclose(found.astype(float), level.astype(float), rtol=2e-3)
        if number == 0:
            np.testing.assert_array_equal(found, level)
        level = mean_level(found)
    assert tomo.spacing_angstrom == (20.0, 10.0, 10.0)


def test_provenance_and_statistics_are_those_of_the_file(tmp_path: Path) -> None:
    data = mrc_bytes(VOLUME, spacing=13.5)
    source = _write(tmp_path, "ts 1.mrc", data)
    ingest(tmp_path / "c", [source])
    tomo = open_collection(tmp_path / "c")["ts_1"]
    attributes = tomo.attributes("raw")
    assert attributes["source"]["sha256"] == hashlib.sha256(data).hexdigest()
    assert attributes["source"]["header"]["shape"] == list(VOLUME.shape)
    statistics = attributes["statistics"]
    assert statistics["mean"] == pytest.approx(VOLUME.mean(), rel=1e-12)
    assert statistics["standard_deviation"] == pytest.approx(VOLUME.std(), rel=1e-12)
    assert statistics["percentiles"]["99"] == pytest.approx(np.percentile(VOLUME, 99))
    assert tomo.spacing_angstrom == pytest.approx((13.5,) * 3)


def test_bytes_do_not_depend_on_memory_and_workers(tmp_path: Path) -> None:
    volume = RNG.normal(0, 1, (140, 80, 70)).astype(np.float32)
    sources = [_write(tmp_path, f"{name}.mrc", mrc_bytes(volume)) for name in "ab"]
    digests = set()
    for i, options in enumerate(
        [{"workers": 1}, {"workers": 2, "memory_bytes": parse_bytes("2GB")}]
    ):
        ingest(tmp_path / str(i), [sources[0]], **options)
        digests.add(open_collection(tmp_path / str(i))["a"].digest("raw"))
    assert len(digests) == 1


def test_memory_does_not_grow_with_the_long_axis(tmp_path: Path) -> None:
    peaks = []
    for depth in (256, 256, 768):  # the first one warms up
        volume = RNG.normal(0, 9, (depth, 64, 64)).astype(np.float32)
        source = _write(tmp_path, f"{len(peaks)}.mrc", mrc_bytes(volume))
        tracemalloc.start()
        ingest(tmp_path / "c", [source])
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] < 1.15 * peaks[1]


def test_too_little_memory_names_the_numbers(tmp_path: Path) -> None:
    (source,) = read_sources(_write(tmp_path, "a.mrc", mrc_bytes(VOLUME)), Reading())
    assert slab_planes(source, None, 1) == 64
    assert slab_planes(source, parse_bytes("4GB"), 1) == 256
    with pytest.raises(MemoryBudgetError, match=r"64 planes of 70 × 9 voxels need .* raise --mem"):
        slab_planes(source, parse_bytes("100MB"), 1)


class _Bad(NamedTuple):
    data: bytes
    says: str


def _bad_files() -> dict[str, _Bad]:
    good = mrc_bytes(VOLUME)
    n_bytes = len(good)
    return {
        "cut.mrc": _Bad(good[:-100], f"expected {n_bytes} bytes by its header, there are"),
        "text.mrc": _Bad(b"no tomogram at all " * 100, "no MRC file"),
        "short.mrc": _Bad(good[:500], "an MRC header alone has 1024"),
        "mode.mrc": _Bad(mrc_bytes(VOLUME, mode=99), "mode 99"),
        "empty.mrc": _Bad(mrc_bytes(VOLUME, nz=0, nx=0), "0"),
        "zipped.mrc": _Bad(b"\x1f\x8b\x08" + good, "damaged gzip stream"),
        "image.mrc": _Bad(mrc_bytes(VOLUME[:1]), "single image"),
        "stack.mrc": _Bad(mrc_bytes(VOLUME, ispg=0), "--as-volume"),
        "complex.mrc": _Bad(mrc_bytes(np.ones((4, 4, 4), np.complex64)), "complex"),
        "nan.mrc": _Bad(mrc_bytes(np.full((4, 4, 4), np.nan, np.float32)), "none of the 64"),
        "size.mrc": _Bad(mrc_bytes(VOLUME, cella_x=0), "--voxel-size"),
    }


def test_bad_files_are_quarantined_by_name_and_the_others_go_on(tmp_path: Path, otzi: Otzi) -> None:
    bad = _bad_files()
    for name, file in bad.items():
        _write(tmp_path / "in", name, file.data)
    _write(tmp_path / "in/deeper", "good.rec", mrc_bytes(VOLUME))
    _write(tmp_path / "in", "._good.mrc", b"left by macOS")
    run = otzi("ingest", tmp_path / "c", tmp_path / "in", "--json")
    assert run.code == 5
    items = {Path(item["source"]).name: item for item in json.loads(run.out)["items"]}
    assert items.keys() == {*bad, "good.rec"}
    assert items["good.rec"]["state"] == "published"
    for name, file in bad.items():
        assert items[name]["state"] == "quarantined"
        assert file.says in items[name]["reason"]
        assert name in items[name]["reason"] or name == "nan.mrc"
        assert items[name]["reason"] in run.err
    col = open_collection(tmp_path / "c")
    assert col.ids == ("good",)
    assert [p.name for p in (col.path / "tomograms").iterdir() if p.is_dir()] == ["good"]
    assert not [p for p in (col.path / ".staging").iterdir() if p.is_dir()]


def test_a_second_run_does_nothing_and_twins_are_found(tmp_path: Path, otzi: Otzi) -> None:
    source = _write(tmp_path, "a.mrc", mrc_bytes(VOLUME))
    twin = _write(tmp_path, "b.mrc", source.read_bytes())
    assert otzi("ingest", tmp_path / "c", source).code == 0
    digest = open_collection(tmp_path / "c")["a"].digest("raw")
    run = otzi("ingest", tmp_path / "c", source, twin, "--json")
    items = json.loads(run.out)["items"]
    assert [(item["id"], item["state"]) for item in items] == [("a", "done"), ("a", "done")]
    assert open_collection(tmp_path / "c").ids == ("a",)
    assert open_collection(tmp_path / "c")["a"].digest("raw") == digest


def test_another_file_of_the_same_name_takes_nothing_away(tmp_path: Path, otzi: Otzi) -> None:
    ingest(tmp_path / "c", [_write(tmp_path, "a.mrc", mrc_bytes(VOLUME))])
    other = _write(tmp_path / "other", "a.mrc", mrc_bytes(VOLUME[:, ::-1]))
    run = otzi("ingest", tmp_path / "c", other)
    assert run.code == 5
    assert "there is a tomogram 'a' already, of a.mrc: pass --id" in run.err
    assert otzi("ingest", tmp_path / "c", other, "--id", "a2").code == 0
    assert open_collection(tmp_path / "c").ids == ("a", "a2")


def test_presets_by_the_command_line(tmp_path: Path, otzi: Otzi) -> None:
    volume = RNG.normal(1e6, 50, (20, 30, 40)).astype(np.float32)
    source = _write(tmp_path, "a.mrc", mrc_bytes(volume))
    for preset, dtype in (("train", np.float16), ("compact", np.int8)):
        assert otzi("ingest", tmp_path / preset, source, "--preset", preset).code == 0
        tomo = open_collection(tmp_path / preset)["a"]
        assert tomo.array("raw").dtype == dtype
        error = tomo.raw.compute().to_numpy() - volume
        quantisation = tomo.attributes("raw")["quantisation"]
        assert error.std() < 0.012 * 50
        assert quantisation["rmse_over_standard_deviation"] == pytest.approx(
            np.sqrt(np.mean(np.square(error, dtype=np.float64))) / volume.std(dtype=np.float64),
            rel=0.05,
        )
    run = otzi("ingest", tmp_path / "other", source, "--preset", "tiny")
    assert (run.code, "exact, train, compact" in run.err) == (2, True)


def test_a_folder_that_is_no_collection_is_left_alone(tmp_path: Path, otzi: Otzi) -> None:
    source = _write(tmp_path, "a.mrc", mrc_bytes(VOLUME))
    precious = _write(tmp_path / "home", "thesis.txt", b"precious")
    run = otzi("ingest", tmp_path / "home", source)
    assert run.code == CannotCreate.exit_code
    assert "choose a new or empty folder" in run.err
    assert list((tmp_path / "home").iterdir()) == [precious]
    with pytest.raises(NotFoundError, match=r"nowhere\.mrc is not there"):
        ingest(tmp_path / "new", [tmp_path / "nowhere.mrc"])
    assert not (tmp_path / "new").exists()


def test_a_disk_that_is_too_small_is_told_before_anything_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = _write(tmp_path, "a.mrc", mrc_bytes(VOLUME))
    usage = type("usage", (), {"free": 1000})
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(OutOfSpace, match=r"1000 bytes free .* --preset train or compact"):
        ingest(tmp_path / "c", [source])
    assert open_collection(tmp_path / "c").ids == ()


_LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
sys.argv = ["otzi", "ingest", *sys.argv[1:]]
from otzi.cli import main
main()
"""


@pytest.mark.faults
def test_a_full_disk_leaves_nothing_and_the_next_run_goes_on(tmp_path: Path, otzi: Otzi) -> None:
    """A limit on the size of files stands in for the full disk."""
    small = _write(tmp_path, "a.mrc", mrc_bytes(VOLUME[:16]))
    large = _write(tmp_path, "b.mrc", mrc_bytes(RNG.integers(0, 999, (80, 90, 90)).astype("i2")))
    command = [sys.executable, "-c", _LIMITED, str(tmp_path / "c"), str(small), str(large)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == OutOfSpace.exit_code, run.stderr
    assert "no space left while writing" in run.stderr
    col = open_collection(tmp_path / "c")
    assert col.ids == ("a",)
    assert not [p for p in (col.path / ".staging").iterdir() if p.is_dir()]
    assert otzi("ingest", col.path, small, large).code == 0
    assert open_collection(tmp_path / "c").ids == ("a", "b")


_AS_NOBODY = """
import contextlib, os, sys
from otzi.cli import main
words = sys.argv[1:]
sys.argv = ["otzi", "ingest", "nowhere", "nowhere.mrc"]
with contextlib.suppress(SystemExit):  # imports what nobody else may be allowed to read
    main()
os.setuid(65534)
sys.argv = ["otzi", *words]
main()
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_no_permission_is_77_and_names_the_remedy(tmp_path: Path) -> None:
    for folder in Path(__file__).resolve().parents:
        if not folder.stat().st_mode & stat.S_IXOTH:
            pytest.skip(f"somebody else cannot read this checkout: {folder} is closed to others")
    source = _write(tmp_path, "a.mrc", mrc_bytes(VOLUME[:16]))
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o555)
    for parent in [tmp_path, *tmp_path.parents][:4]:
        if parent.stat().st_uid == os.geteuid() and parent != Path("/"):
            parent.chmod(0o755)
    words = [sys.executable, "-c", _AS_NOBODY, "ingest", str(folder / "c"), str(source)]
    run = subprocess.run(words, capture_output=True, text=True, check=False, cwd="/")
    assert run.returncode == 77, run.stderr
    assert "no permission" in run.stderr
    assert not list(folder.iterdir())


def test_new_collections_have_the_default_classes(tmp_path: Path) -> None:
    ingest(tmp_path / "c", [_write(tmp_path, "a.mrc", mrc_bytes(VOLUME))])
    names = open_collection(tmp_path / "c").classes.names
    assert names == ("background", "membrane", "spikes", "lumen")
    col = create_collection(tmp_path / "d", ("background", "ribosome"))
    ingest(col, [tmp_path / "a.mrc"])
    assert col.ids == ("a",)


def test_classes_are_those_of_a_new_collection(tmp_path: Path, otzi: Otzi) -> None:
    source = _write(tmp_path, "a.mrc", mrc_bytes(VOLUME))
    words = ("ingest", tmp_path / "c", source, "--classes", "background,membrane,cytoplasm")
    assert otzi(*words).code == 0
    assert open_collection(tmp_path / "c").classes.names == ("background", "membrane", "cytoplasm")
    assert otzi(*words).code == 0
    run = otzi("ingest", tmp_path / "c", source, "--classes", "background,ribosome")
    assert (run.code, "leave --classes out" in run.err) == (2, True)
    run = otzi("ingest", tmp_path / "d", source, "--classes", "background,Ribo some")
    assert (run.code, "lower-case letters" in run.err) == (2, True)
    assert not (tmp_path / "d").exists()
