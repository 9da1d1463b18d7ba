"""Verb strokes: what a file says is what the product says, once."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import h5py
import mrcfile
import numpy as np
import pytest
import tifffile
import zarr

from otzi.box import Box
from otzi.errors import NotFoundError, StrokesError
from otzi.stroke_voxels import rasterise
from otzi.strokes import Stroke, Strokes, read_strokes, write_strokes
from otzi_pipelines.label.stroke_import import import_strokes, stroke_voxels

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from commands import Otzi
    from otzi.tomogram import Tomogram

SHAPE = (20, 70, 40)
FIRST = Stroke("membrane", 1.5, ((4.0, 2.5, 3.0), (4.0, 60.0, 30.0)))
SECOND = Stroke("lumen", 2.0, ((4.0, 30.0, 10.0), (9.0, 30.0, 30.0)))


@pytest.fixture
def tomo(add_tomogram: Callable[..., Tomogram]) -> Tomogram:
    return add_tomogram(np.random.default_rng(0).normal(0, 9, SHAPE).astype(np.float32))


def file_of(folder: Path, *strokes: Stroke, tomogram: str = "ts_001") -> Path:
    path = folder / f"{len(list(folder.iterdir()))}.json"
    write_strokes(path, Strokes(tomogram, ("background", "membrane", "lumen"), strokes))
    return path


def stored(tomo: Tomogram) -> np.ndarray:
    return tomo.array("strokes")[...]


def expected(tomo: Tomogram, *strokes: Stroke) -> np.ndarray:
    return rasterise(strokes, tomo.classes, SHAPE).labels(Box.whole(SHAPE))


def test_the_product_is_a_label_image_with_the_json_beside(tomo: Tomogram, tmp_path: Path) -> None:
    path = file_of(tmp_path, FIRST, SECOND)
    assert import_strokes(tomo, path)
    labels = expected(tomo, FIRST, SECOND)
    np.testing.assert_array_equal(stored(tomo), labels)
    assert set(np.unique(labels)) == {0, 2, 3}
    voxels = stroke_voxels(tomo)
    np.testing.assert_array_equal(voxels.labels(Box.whole(SHAPE)), labels)
    assert read_strokes(tomo.path("strokes") / "strokes.json") == read_strokes(path)
    assert tomo.attributes("strokes")["n_voxels"] == {
        "background": 0,
        "membrane": (labels == 2).sum(),
        "lumen": (labels == 3).sum(),
    }
    image = tomo.image("strokes")
    assert image.is_labels
    assert image.downsample == "mode"
    ome = zarr.open_group(tomo.path("strokes"), mode="r").attrs["ome"]
    colors = {entry["label-value"]: entry["rgba"] for entry in ome["image-label"]["colors"]}
    assert colors[0] == [0, 0, 0, 0]
    assert colors[2] == [*(round(255 * c) for c in tomo.classes[1].rgb), 255]


def test_the_same_again_does_nothing_and_others_replace(tomo: Tomogram, tmp_path: Path) -> None:
    assert import_strokes(tomo, file_of(tmp_path, FIRST))
    assert not import_strokes(tomo, file_of(tmp_path, FIRST))
    assert import_strokes(tomo, file_of(tmp_path, SECOND))
    np.testing.assert_array_equal(stored(tomo), expected(tomo, SECOND))


def test_strokes_are_added_over_those_there_are(tomo: Tomogram, tmp_path: Path) -> None:
    assert import_strokes(tomo, file_of(tmp_path, FIRST), append=True)
    assert import_strokes(tomo, file_of(tmp_path, SECOND), append=True)
    assert not import_strokes(tomo, file_of(tmp_path, SECOND), append=True)
    assert not import_strokes(tomo, file_of(tmp_path, FIRST), append=True)
    np.testing.assert_array_equal(stored(tomo), expected(tomo, FIRST, SECOND))
    assert read_strokes(tomo.path("strokes") / "strokes.json").strokes == (FIRST, SECOND)


@pytest.mark.parametrize("kind", ["mrc", "zarr", "tiff", "ilastik"])
def test_label_volumes_are_strokes_too(tomo: Tomogram, tmp_path: Path, kind: str) -> None:
    labels = np.random.default_rng(1).choice(4, SHAPE, p=(0.94, 0.02, 0.02, 0.02)).astype(np.int16)
    path = tmp_path / "labels"
    if kind == "mrc":
        with mrcfile.new(path) as file:
            file.set_data(labels)
    elif kind == "tiff":
        tifffile.imwrite(path, labels.astype(np.uint16), compression="zlib")
    elif kind == "ilastik":
        with h5py.File(path, "w") as project:
            project["PixelClassification/LabelNames"] = [b"background", b"membrane", b"lumen"]
            block = project.create_dataset(
                "PixelClassification/LabelSets/labels000/block0000", data=labels[..., None]
            )
            block.attrs["blockSlice"] = f"[0:{SHAPE[0]},0:{SHAPE[1]},0:{SHAPE[2]},0:1]"
    else:
        zarr.create_array(path, data=labels)
    assert import_strokes(tomo, path)
    assert not import_strokes(tomo, path)
    np.testing.assert_array_equal(stored(tomo), labels)
    assert not (tomo.path("strokes") / "strokes.json").exists()
    assert import_strokes(tomo, file_of(tmp_path, FIRST), append=True)
    drawn = expected(tomo, FIRST)
    np.testing.assert_array_equal(stored(tomo), np.where(drawn > 0, drawn, labels))


def test_a_table_of_napari_is_kept_as_json(tomo: Tomogram, tmp_path: Path) -> None:
    path = tmp_path / "membrane.csv"
    rows = [f"0,path,{j},{','.join(map(str, point))}" for j, point in enumerate(FIRST.points)]
    path.write_text("\n".join(["index,shape-type,vertex-index,axis-0,axis-1,axis-2", *rows]))
    assert import_strokes(tomo, path)
    np.testing.assert_array_equal(stored(tomo), expected(tomo, FIRST))
    assert read_strokes(tomo.path("strokes") / "strokes.json").strokes == (FIRST,)
    same = Strokes("ts_001", tomo.classes.names, (FIRST,))
    write_strokes(tmp_path / "same.json", same)
    assert not import_strokes(tomo, tmp_path / "same.json")


def test_strokes_that_do_not_belong_change_nothing(tomo: Tomogram, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"no strokes: draw some .* `otzi strokes "):
        stroke_voxels(tomo)
    for path, message in (
        (file_of(tmp_path, FIRST, tomogram="ts_002"), "for tomogram 'ts_002'"),
        (file_of(tmp_path, Stroke("lumen", 1.0, ((20.0, 0.0, 0.0),))), "outside the volume"),
        (file_of(tmp_path, Stroke("gold", 1.0, ((2.0, 0.0, 0.0),))), "of class 'gold'"),
        (file_of(tmp_path, Stroke("lumen", 0.1, ((2.5, 0.5, 0.5),))), "labels no voxel"),
    ):
        with pytest.raises(StrokesError, match=message):
            import_strokes(tomo, path)
    assert not tomo.has("strokes")


def test_the_verb_counts_the_voxels(tomo: Tomogram, tmp_path: Path, otzi: Otzi) -> None:
    path = file_of(tmp_path, FIRST, SECOND)
    run = otzi("strokes", tomo.collection.path, "ts_001", path)
    assert run.code == 0
    n_membrane, n_lumen = ((expected(tomo, FIRST, SECOND) == i).sum() for i in (2, 3))
    assert f"background 0, membrane {n_membrane}, lumen {n_lumen}" in run.out
    again = otzi("strokes", tomo.collection.path, "ts_001", path, "--json")
    document = json.loads(again.out)
    assert document["voxels"]["lumen"] == n_lumen
    assert not document["made"]
    missing = otzi("strokes", tomo.collection.path, "ts_001", tmp_path / "none.json")
    assert missing.code == 2
    assert "none.json is not there" in missing.err
