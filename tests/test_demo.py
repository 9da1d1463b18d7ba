"""The demo: every stage on a small specimen, again without work, and (slow) on the real one."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from mrc_files import mrc_bytes
from otzi.collection import open_collection
from otzi_pipelines import demo
from otzi_pipelines.demo_data import strokes_file, unpack_tomogram

if TYPE_CHECKING:
    from pathlib import Path

    from commands import Otzi

SHAPE = (40, 64, 72)


@pytest.fixture
def specimen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dark sheet between bright ice and grey plasm, with strokes, in place of the real one."""
    x = np.arange(SHAPE[2])
    profile = np.select([x < 30, x < 36], [40.0, -60.0], 0.0)
    volume = profile + np.random.default_rng(0).normal(0, 10, SHAPE)
    source = tmp_path / f"{demo.TOMOGRAM}.mrc"
    source.write_bytes(mrc_bytes(volume.astype(np.int8), spacing=20))
    places = {"background": 12, "membrane": 33, "cytoplasm": 55}
    strokes = [
        {"class": name, "radius": 1.5, "points": [[z, 8, x], [z, 56, x]]}
        for name, x in places.items()
        for z in (8, 30)
    ]
    document = {
        "schema": 1,
        "tomogram": demo.TOMOGRAM,
        "classes": list(places),
        "strokes": strokes,
    }
    file = tmp_path / "strokes.json"
    file.write_text(json.dumps(document))
    monkeypatch.setattr(demo, "unpack_tomogram", lambda folder: source)
    monkeypatch.setattr(demo, "strokes_file", lambda: file)
    monkeypatch.setattr(
        demo,
        "_TRAINING",
        replace(demo._TRAINING, steps=6, crop_voxels=32, width=4, validate_every=3),
    )


@pytest.mark.usefixtures("specimen")
def test_every_stage_is_gone_through_and_not_again(tmp_path: Path, otzi: Otzi) -> None:
    run = otzi("demo", tmp_path / "demo", "--json")
    assert run.code == 0, run.err
    document = json.loads(run.out)
    assert list(document["seconds"]) == [
        "ingest",
        "strokes",
        "pseudolabel",
        "train",
        "segment",
        "ramps",
        "view",
        "render",
    ]
    assert document["view"] == f"otzi view {tmp_path / 'demo' / 'collection'}"
    with Image.open(document["picture"]) as picture:
        assert picture.size == (960, 720)
    tomo = open_collection(document["collection"])[demo.TOMOGRAM]
    named = ("labels/forest", "probs/unet", "ramps/unet", "reports/unet")
    products = ("raw", "view", "strokes", *named)
    assert tomo.products == products
    digests = [tomo.digest(name) for name in products]
    labels = tomo.labels("forest").sel(c="membrane").compute()
    assert float(labels[:, :, 31:35].mean()) > 0.8
    assert float(labels[:, :, 40:].mean()) < 0.2

    again = otzi("demo", tmp_path / "demo")
    assert again.code == 0
    assert [tomo.digest(name) for name in products] == digests
    assert "train: labels" in again.err
    assert "is done already" in again.err
    assert again.out.splitlines()[0] == f"picture  {document['picture']}"


def test_a_file_in_the_way_is_named(tmp_path: Path, otzi: Otzi) -> None:
    (tmp_path / "demo").write_text("precious")
    run = otzi("demo", tmp_path / "demo")
    assert (run.code, "is a file: name a folder" in run.err) == (73, True)
    (tmp_path / "full" / "collection").mkdir(parents=True)
    (tmp_path / "full" / "collection" / "thesis.txt").write_text("precious")
    assert otzi("demo", tmp_path / "full").code == 78


def test_the_real_tomogram_comes_with_it(tmp_path: Path) -> None:
    path = unpack_tomogram(tmp_path / "new")
    assert path.stat().st_size == 10_270_024
    before = path.stat().st_mtime_ns
    assert unpack_tomogram(tmp_path / "new").stat().st_mtime_ns == before
    assert json.loads(strokes_file().read_text())["tomogram"] == demo.TOMOGRAM
    assert not list(path.parent.glob("*.partial"))


@pytest.mark.slow
def test_the_real_tomogram_goes_the_whole_way(tmp_path: Path, otzi: Otzi) -> None:
    run = otzi("demo", tmp_path / "demo", "--json")
    assert run.code == 0, run.err
    document = json.loads(run.out)
    assert document["peak_memory_bytes"] < 3e9
    card = json.loads((tmp_path / "demo" / "model" / "model.json").read_text())
    assert card["metrics"]["macro_dice"] > 0.6
