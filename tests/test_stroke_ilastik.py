"""Labels of ilastik projects: the blocks, wherever they lie, are the voxels that were drawn."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pytest

from otzi.box import Box, tile
from otzi.classes import ClassTable
from otzi.errors import StrokesError
from otzi.stroke_files.ilastik import read_ilastik_labels

if TYPE_CHECKING:
    from pathlib import Path

CLASSES = ClassTable.named(("background", "membrane", "lumen"))
NAMES = ("Lumen", "Background", "membrane")
OF_CLASS = np.array([0, 3, 1, 2], np.uint8)
"""What labels of these names are in the class table."""
SHAPE = (9, 14, 11)


def labels_of(shape: tuple[int, int, int] = SHAPE, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.choice(4, shape, p=(0.91, 0.03, 0.03, 0.03)).astype(np.uint8)


def tags(axes: str) -> str:
    return json.dumps({"axes": [{"key": key, "typeFlags": 2, "resolution": 0} for key in axes]})


def add_image(
    project: h5py.File,
    lane: int,
    labels: np.ndarray,
    *,
    axes: str = "zyxc",
    tagged: bool = True,
    nickname: str = "ts_001",
    shape: tuple[int, ...] | None = None,
    offset: tuple[int, int, int] = (0, 0, 0),
) -> None:
    """Write an image's labels as ilastik does: the bounding box of what is drawn in each block."""
    group = project.create_group(f"PixelClassification/LabelSets/labels{lane:03d}")
    places = {axis: i for i, axis in enumerate("zyx")}
    for n, box in enumerate(tile(labels.shape, (4, 8, 8))):
        drawn = np.argwhere(labels[box.slices]) + box.start
        if not len(drawn):
            continue
        start, stop = drawn.min(axis=0), drawn.max(axis=0) + 1
        part = labels[tuple(map(slice, start, stop))]
        spatial = part.transpose([places[axis] for axis in axes if axis in places])
        extra = [i for i, axis in enumerate(axes) if axis not in places]
        block = group.create_dataset(f"block{n:04d}", data=np.expand_dims(spatial, extra))
        ends = {axis: f"{start[i] + offset[i]}:{stop[i] + offset[i]}" for axis, i in places.items()}
        block.attrs["blockSlice"] = f"[{','.join(ends.get(a, '0:1') for a in axes)}]".encode()
        if tagged:
            block.attrs["axistags"] = tags(axes)
    facts = project.create_group(f"Input Data/infos/lane{lane:04d}/Raw Data")
    facts["nickname"] = nickname.encode()
    if tagged:
        facts["axistags"] = tags("xyz").encode()
        facts["shape"] = (shape or labels.shape)[::-1]


def new_project(path: Path, names: tuple[str, ...] = NAMES, **options: Any) -> Path:
    with h5py.File(path, "w") as project:
        add_image(project, 0, options.pop("labels", labels_of()), **options)
        project["PixelClassification/LabelNames"] = [name.encode() for name in names]
    return path


def read(path: Path, tomogram: str = "ts_001") -> np.ndarray:
    return read_ilastik_labels(path, tomogram, SHAPE, CLASSES).labels(Box.whole(SHAPE))


@pytest.mark.parametrize("axes", ["zyxc", "zyx", "xyzc", "tzyxc", "czyx", "txyzc", "yzxc"])
def test_blocks_of_any_order_of_axes(tmp_path: Path, axes: str) -> None:
    path = new_project(tmp_path / "a.ilp", axes=axes)
    np.testing.assert_array_equal(read(path), OF_CLASS[labels_of()])


@pytest.mark.parametrize("axes", ["zyxc", "tzyxc"])
def test_projects_from_before_axes_were_named(tmp_path: Path, axes: str) -> None:
    path = new_project(tmp_path / "a.ilp", axes=axes, tagged=False)
    np.testing.assert_array_equal(read(path), OF_CLASS[labels_of()])


def test_a_shape_that_does_not_fit_its_axes_says_nothing(tmp_path: Path) -> None:
    path = new_project(tmp_path / "a.ilp", shape=(1, 9, 14, 11, 1))
    np.testing.assert_array_equal(read(path), OF_CLASS[labels_of()])


def test_of_several_images_it_is_that_of_the_tomogram(tmp_path: Path) -> None:
    path = new_project(tmp_path / "a.ilp", nickname="ts_002")
    with h5py.File(path, "a") as project:
        add_image(project, 1, labels_of(seed=1), nickname="ts_001-exported_data")
        add_image(project, 2, labels_of(seed=2), nickname="ts_0011")
    np.testing.assert_array_equal(read(path), OF_CLASS[labels_of(seed=1)])
    np.testing.assert_array_equal(read(path, "ts_0011"), OF_CLASS[labels_of(seed=2)])
    with pytest.raises(StrokesError, match=r"images ts_002, ts_001-exported_data, ts_0011, 0 of"):
        read(path, "ts_003")


def test_the_only_image_is_taken_as_it_is_named(tmp_path: Path) -> None:
    path = new_project(tmp_path / "a.ilp", nickname="copy of it")
    np.testing.assert_array_equal(read(path), OF_CLASS[labels_of()])


def test_names_are_those_of_classes(tmp_path: Path) -> None:
    path = new_project(tmp_path / "a.ilp", names=("Lumen", "Label 2", "membrane"))
    with pytest.raises(
        StrokesError,
        match="label 2, of the labels Lumen, Label 2, membrane; the classes are background, memb",
    ):
        read(path)
    few = labels_of() * (labels_of() != 2)
    path = new_project(tmp_path / "b.ilp", names=("Lumen", "Label 2", "membrane"), labels=few)
    np.testing.assert_array_equal(read(path), OF_CLASS[few])
    path = new_project(tmp_path / "c.ilp", names=("Lumen",))
    with pytest.raises(StrokesError, match="label 2, of the labels Lumen;"):
        read(path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shape": (9, 14, 12)}, "image of 9 × 14 × 12 voxels, the tomogram has 9 × 14 × 11"),
        ({"offset": (1, 0, 0)}, r"labels up to \(z, y, x\) = \(9, .* ends at \(8, 13, 10\)"),
    ],
)
def test_another_volume_is_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    path = new_project(tmp_path / "a.ilp", **options)
    with pytest.raises(StrokesError, match=message):
        read(path)


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.ilp"
    with h5py.File(path, "w") as file:
        file["exported_data"] = labels_of()
    with pytest.raises(
        StrokesError, match="no labels of a pixel classification, but exported_data"
    ):
        read(path)
    path = new_project(tmp_path / "b.ilp")
    with h5py.File(path, "a") as file:
        del file["PixelClassification/LabelNames"]
    with pytest.raises(StrokesError, match=r"no ilastik project that can be read: .*LabelNames"):
        read(path)
    path = new_project(tmp_path / "c.ilp")
    with h5py.File(path, "a") as file:
        block = next(iter(file["PixelClassification/LabelSets/labels000"].values()))
        block.attrs["blockSlice"] = b"[0:1,0:1,0:1,0:1]"
    with pytest.raises(StrokesError, match="no ilastik project that can be read"):
        read(path)
    path = tmp_path / "d.ilp"
    path.write_bytes(new_project(tmp_path / "e.ilp").read_bytes()[:600])
    with pytest.raises(StrokesError):
        read(path)


@pytest.mark.parametrize(
    ("attribute", "value", "message"),
    [
        ("blockSlice", "[2:3,0:4,0:8,0:8,0:1]", "at several times or channels"),
        ("axistags", tags("tsyxc"), "axes tsyxc, a tomogram has z, y, x"),
    ],
)
def test_what_is_no_volume_is_refused(
    tmp_path: Path, attribute: str, value: str, message: str
) -> None:
    path = new_project(tmp_path / "a.ilp", axes="tzyxc")
    with h5py.File(path, "a") as file:
        block = next(iter(file["PixelClassification/LabelSets/labels000"].values()))
        block.attrs[attribute] = value
    with pytest.raises(StrokesError, match=message):
        read(path)


def test_no_label_no_voxel(tmp_path: Path) -> None:
    path = new_project(tmp_path / "a.ilp", labels=np.zeros(SHAPE, np.uint8))
    assert not read(path).any()
