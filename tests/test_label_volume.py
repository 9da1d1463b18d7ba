"""Label volumes: MRC and Zarr give the same voxels, and no voxel is taken for what it is not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import mrcfile
import numpy as np
import pytest
import zarr

from otzi.box import Box
from otzi.errors import NotAnMRC, NotFoundError, StrokesError
from otzi.label_volume import read_label_volume

if TYPE_CHECKING:
    from pathlib import Path

SHAPE = (37, 12, 15)


@pytest.fixture
def labels() -> np.ndarray:
    return np.random.default_rng(0).choice(4, SHAPE, p=(0.9, 0.04, 0.03, 0.03)).astype(np.int16)


def write_mrc(path: Path, labels: np.ndarray) -> Path:
    with mrcfile.new(path) as file:
        file.set_data(labels)
    return path


@pytest.mark.parametrize("dtype", ["int8", "int16", "uint16", "float32"])
def test_an_mrc_file_of_any_mode(tmp_path: Path, labels: np.ndarray, dtype: str) -> None:
    path = write_mrc(tmp_path / "labels.mrc", labels.astype(dtype))
    voxels = read_label_volume(path, SHAPE, 3)
    np.testing.assert_array_equal(voxels.labels(Box.whole(SHAPE)), labels)


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("leading", [(), (1,), (1, 1)])
def test_a_zarr_array_of_any_version(
    tmp_path: Path, labels: np.ndarray, version: Any, leading: tuple[int, ...]
) -> None:
    data = labels.reshape(*leading, *SHAPE)
    chunks = (1,) * len(leading) + (5, 8, 8)
    zarr.create_array(tmp_path / "a", data=data, chunks=chunks, zarr_format=version)
    voxels = read_label_volume(tmp_path / "a", SHAPE, 3)
    np.testing.assert_array_equal(voxels.labels(Box.whole(SHAPE)), labels)


@pytest.mark.parametrize("inside_ome", [True, False])
def test_an_ome_zarr_image(tmp_path: Path, labels: np.ndarray, inside_ome: bool) -> None:
    image = {"multiscales": [{"datasets": [{"path": "s0"}, {"path": "s1"}]}]}
    attributes: dict[str, Any] = {"ome": image} if inside_ome else image
    group = zarr.create_group(tmp_path / "image", attributes=attributes)
    group.create_array("s0", data=labels)
    voxels = read_label_volume(tmp_path / "image", SHAPE, 3)
    np.testing.assert_array_equal(voxels.labels(Box.whole(SHAPE)), labels)


@pytest.mark.parametrize(("wrong", "shown"), [(4, "4"), (-1, "-1"), (0.5, "0.5"), (np.nan, "nan")])
def test_what_is_no_label_is_refused(
    tmp_path: Path, labels: np.ndarray, wrong: float, shown: str
) -> None:
    volume = labels.astype(np.float32)
    volume[33, 5, 5] = wrong
    zarr.create_array(tmp_path / "a", data=volume)
    with pytest.raises(StrokesError, match=rf"has label {shown}: .* 1 to 3 for the classes"):
        read_label_volume(tmp_path / "a", SHAPE, 3)


def test_the_shape_must_be_that_of_the_tomogram(tmp_path: Path, labels: np.ndarray) -> None:
    path = write_mrc(tmp_path / "labels.mrc", labels)
    with pytest.raises(StrokesError, match="37 × 12 × 15 voxels, the tomogram has 74 × 24 × 30"):
        read_label_volume(path, (74, 24, 30), 3)
    zarr.create_array(tmp_path / "a", data=np.stack([labels, labels]))
    with pytest.raises(StrokesError, match="2 × 37 × 12 × 15 voxels"):
        read_label_volume(tmp_path / "a", SHAPE, 3)


def test_other_files_and_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="none is not there"):
        read_label_volume(tmp_path / "none", SHAPE, 3)
    (tmp_path / "text.mrc").write_text("not labels" * 200)
    with pytest.raises(NotAnMRC):
        read_label_volume(tmp_path / "text.mrc", SHAPE, 3)
    (tmp_path / "folder").mkdir()
    with pytest.raises(StrokesError, match="folder is no Zarr array and no OME-Zarr image"):
        read_label_volume(tmp_path / "folder", SHAPE, 3)
    zarr.create_group(tmp_path / "group")
    with pytest.raises(StrokesError, match="group is no Zarr array and no OME-Zarr image"):
        read_label_volume(tmp_path / "group", SHAPE, 3)
