"""Verb phantom: files that are valid, the same every time, and never half there."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import tracemalloc
from math import prod
from typing import TYPE_CHECKING, Any

import mrcfile
import numpy as np
import pytest

from mrc_files import mrc_bytes
from otzi.classes import DEFAULT_CLASSES
from otzi.collection import open_collection
from otzi.errors import AccessDenied, CannotCreate, NotFoundError, OutOfSpace, UsageError
from otzi.stroke_voxels import rasterise
from otzi.strokes import read_strokes
from otzi_pipelines.ingest.batch import ingest
from otzi_pipelines.label.stroke_import import import_strokes, stroke_voxels
from otzi_pipelines.phantom import microscope
from otzi_pipelines.phantom.make import make_phantoms
from otzi_pipelines.phantom.settings import ParticleSettings
from phantoms import SMALL_SPECIMEN, small

if TYPE_CHECKING:
    from pathlib import Path

    from commands import Otzi
    from otzi.errors import OtziError


def _files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def _voxels(path: Any) -> np.ndarray:
    with mrcfile.open(path) as file:
        return np.array(file.data)


@pytest.mark.parametrize("dtype", ["int16", "float32"])
def test_files_are_valid_and_agree(tmp_path: Path, dtype: str) -> None:
    (made,) = make_phantoms(tmp_path, small(dtype=dtype, name="tiny"))
    assert made["state"] == "made"
    assert made["id"] == "tiny_000"
    for kind in ("tomogram", "labels"):
        report = io.StringIO()
        assert mrcfile.validate(made[kind], print_file=report), report.getvalue()
        with mrcfile.open(made[kind]) as file:
            assert file.voxel_size.tolist() == (10, 10, 10)
            assert file.is_volume()
            assert file.data.shape == (54, 60, 58)
    grey, labels = _voxels(made["tomogram"]), _voxels(made["labels"])
    assert grey.dtype == dtype
    assert set(np.unique(labels)) == {1, 2, 3, 4}
    card = json.loads((tmp_path / "cards" / "tiny_000.json").read_text())
    counts = np.bincount(labels.ravel())[1:]
    assert card["voxels"] == dict(zip(DEFAULT_CLASSES.names, counts.tolist(), strict=True))
    assert card["recipe"]["settings"]["snr"] == 0.5
    assert len(card["specimen"]["virions"]) == 1
    strokes = read_strokes(made["strokes"])
    strokes.check("tiny_000", labels.shape, DEFAULT_CLASSES)
    drawn = rasterise(strokes.strokes, DEFAULT_CLASSES, labels.shape)
    assert (labels[tuple(drawn.coordinates.T)] == drawn.classes + 1).all()
    assert min(drawn.counts(4)) > 0


def test_the_same_seed_gives_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_phantoms(tmp_path / "a", small(), count=2)
    monkeypatch.setattr(microscope, "usable_cores", lambda: 3)
    make_phantoms(tmp_path / "b", small(), count=1)
    first, second = _files(tmp_path / "a"), _files(tmp_path / "b")
    assert len(second) == 4
    assert {name: first[name] for name in second} == second
    make_phantoms(tmp_path / "c", small(seed=1))
    other = _files(tmp_path / "c")
    assert all(other[name] != second[name] for name in second)


def test_volumes_differ_in_content_contrast_and_brightness(tmp_path: Path) -> None:
    made = make_phantoms(tmp_path, small({"gold_per_square_micron": 0.0}), count=4)
    grey = [_voxels(one["tomogram"]).astype(float) for one in made]
    labels = [_voxels(one["labels"]) for one in made]
    exposures = [
        json.loads((tmp_path / "cards" / f"{one['id']}.json").read_text())["exposure"]
        for one in made
    ]
    for i in range(4):
        assert grey[i].mean() == pytest.approx(
            2000 * exposures[i]["contrast"] * exposures[i]["brightness"], abs=20
        )
        assert all((labels[i] != labels[j]).any() for j in range(i))
    assert len({round(g.mean()) for g in grey}) == len({round(g.std()) for g in grey}) == 4
    assert np.ptp([g.std() for g in grey]) > 100


def test_more_noise_leaves_the_specimen_as_it_is(tmp_path: Path) -> None:
    (clear,) = make_phantoms(tmp_path / "a", small(snr=5.0))
    (noisy,) = make_phantoms(tmp_path / "b", small(snr=0.05))
    assert (_voxels(clear["labels"]) == _voxels(noisy["labels"])).all()
    assert (_voxels(clear["tomogram"]) != _voxels(noisy["tomogram"])).any()


def test_what_is_done_is_skipped_and_what_is_lost_is_made_again(tmp_path: Path) -> None:
    make_phantoms(tmp_path, small())
    before = _files(tmp_path)
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    made = make_phantoms(tmp_path, small(), count=2)
    assert [one["state"] for one in made] == ["done", "made"]
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())
    (tmp_path / "labels" / "phantom_000.mrc").unlink()
    (tmp_path / "cards" / "phantom_000.json").unlink()
    assert [one["state"] for one in make_phantoms(tmp_path, small())] == ["made"]
    assert {name: data for name, data in _files(tmp_path).items() if name in before} == before


def test_nothing_else_is_overwritten(tmp_path: Path) -> None:
    make_phantoms(tmp_path, small())
    before = _files(tmp_path)
    for changed, says in [
        (small(snr=0.2), "settings.snr = 0.5, not 0.2"),
        (small({"membrane_angstrom": 42.0}), "membrane_angstrom = 40.0, not 42.0"),
    ]:
        with pytest.raises(CannotCreate, match=says):
            make_phantoms(tmp_path, changed, count=2)
    (tmp_path / "cards" / "phantom_000.json").write_text("{}")
    with pytest.raises(CannotCreate, match="no card of a phantom"):
        make_phantoms(tmp_path, small())
    (tmp_path / "cards" / "phantom_000.json").unlink()
    (tmp_path / "strokes" / "phantom_000.json").write_text("precious")
    with pytest.raises(CannotCreate, match=r"strokes/phantom_000\.json is there already"):
        make_phantoms(tmp_path, small())
    del before["cards/phantom_000.json"]
    before["strokes/phantom_000.json"] = b"precious"
    assert _files(tmp_path) == before
    with pytest.raises(CannotCreate, match="is a file: name a folder"):
        make_phantoms(tmp_path / "strokes" / "phantom_000.json", small())


def test_a_changed_file_is_told(tmp_path: Path) -> None:
    (made,) = make_phantoms(tmp_path, small())
    with open(made["tomogram"], "r+b") as file:  # noqa: PTH123
        file.seek(5000)
        file.write(b"spoilt")
    with pytest.raises(CannotCreate, match=r"tomograms/phantom_000\.mrc is there already"):
        make_phantoms(tmp_path, small())


@pytest.mark.parametrize(
    ("number", "error", "code"), [(errno.ENOSPC, OutOfSpace, 75), (errno.EROFS, AccessDenied, 77)]
)
def test_a_disk_that_fails_leaves_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    error: type[OtziError],
    code: int,
) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(error, match="while writing") as caught:
            make_phantoms(tmp_path, small())
    assert caught.value.exit_code == code
    assert not list(tmp_path.iterdir())
    make_phantoms(tmp_path, small())


def test_space_is_looked_for_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OutOfSpace, match=r"1\.0 MB\), 3 phantoms need \d+ \(1\.7 MB\)"):
        make_phantoms(tmp_path, small(), count=3)
    assert not list(tmp_path.iterdir())


def test_what_a_killed_run_left_is_no_hindrance(tmp_path: Path) -> None:
    left = tmp_path / ".phantom_000.partial" / "labels"
    left.mkdir(parents=True)
    (left / "phantom_000.mrc").write_bytes(b"half")
    make_phantoms(tmp_path, small())
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "cards", "labels", "strokes", "tomograms",
    ]  # fmt: skip


def test_particles_are_part_of_the_recipe(tmp_path: Path) -> None:
    path = tmp_path / "p.mrc"
    values = np.zeros((8, 8, 8), np.float32)
    values[2:6, 2:6, 3:5] = 1
    path.write_bytes(mrc_bytes(values))
    kinds = (ParticleSettings(str(path), per_square_micron=2000),)
    settings = small({"particles": kinds}, size=(54, 70, 70))
    make_phantoms(tmp_path / "a", settings)
    card = json.loads((tmp_path / "a" / "cards" / "phantom_000.json").read_text())
    assert card["specimen"]["particles"] > 0
    assert str(tmp_path) not in json.dumps(card)
    path.write_bytes(mrc_bytes(values[::-1, ::-1] + values))
    with pytest.raises(CannotCreate, match="particles"):
        make_phantoms(tmp_path / "a", settings)
    path.unlink()
    with pytest.raises(NotFoundError, match="particle"):
        make_phantoms(tmp_path / "b", settings)
    assert not (tmp_path / "b").exists()


def test_memory_is_a_few_volumes(tmp_path: Path) -> None:
    settings = small({"gold_per_square_micron": 200.0}, size=(64, 160, 160))
    make_phantoms(tmp_path / "warm", settings)
    tracemalloc.start()
    make_phantoms(tmp_path / "a", settings)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 34 * prod(settings.size)


def test_a_collection_takes_it(tmp_path: Path) -> None:
    (made,) = make_phantoms(tmp_path / "p", small())
    report = ingest(tmp_path / "c", [tmp_path / "p" / "tomograms"])
    assert report.ids("published") == ("phantom_000",)
    tomo = open_collection(tmp_path / "c", mode="r+")["phantom_000"]
    np.testing.assert_array_equal(tomo.array("raw")[...], _voxels(made["tomogram"]))
    assert tomo.spacing_angstrom == (10, 10, 10)
    import_strokes(tomo, made["strokes"])
    from_strokes = stroke_voxels(tomo)
    import_strokes(tomo, made["labels"])
    truth = stroke_voxels(tomo)
    assert len(truth) == prod(tomo.array("raw").shape) > len(from_strokes) > 500
    labels = _voxels(made["labels"])
    assert (truth.classes.reshape(labels.shape) + 1 == labels).all()


def test_the_verb(tmp_path: Path, otzi: Otzi) -> None:
    config = tmp_path / "small.toml"
    lines = [
        f"{key} = {list(v) if isinstance(v, tuple) else v}" for key, v in SMALL_SPECIMEN.items()
    ]
    config.write_text("snr = 0.3\nseed = 4\n[specimen]\n" + "\n".join(lines))
    words = (tmp_path / "p", "--config", config, "--size", "54,60,58", "--voxel-size", "10")
    run = otzi("phantom", *words, "--count", "2", "--snr", "0.2", "--json")
    assert run.code == 0, run.err
    made = json.loads(run.out)["phantoms"]
    assert [one["id"] for one in made] == ["phantom_000", "phantom_001"]
    card = json.loads((tmp_path / "p" / "cards" / "phantom_001.json").read_text())
    assert (card["recipe"]["settings"]["snr"], card["recipe"]["settings"]["seed"]) == (0.2, 4)
    run = otzi("phantom", *words, "--snr", "0.2")
    assert (run.code, run.out.split()[0]) == (0, "done")
    for more, code, says in [
        (("--snr", "0.4"), 73, "settings.snr = 0.2, not 0.4"),
        (("--snr", "-1"), 78, "snr = -1 must be above 0"),
        (("--size", "54,60"), 2, "size '54,60': give three numbers"),
        (("--size", "20,60,60"), 78, "too small for a virion: z needs"),
        (("--count", "0"), 2, "give at least 1"),
        (("--particle", tmp_path / "none.map"), 2, "is not there"),
    ]:
        run = otzi("phantom", *words, *more)
        assert (run.code, says in run.err) == (code, True), run.err


def test_a_count_below_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="count = 0: give at least 1"):
        make_phantoms(tmp_path, small(), count=0)
