"""TIFF label volumes: however the planes are stored, the labels are those of the array."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile

from otzi.box import Box
from otzi.errors import StrokesError
from otzi.label_volume import read_label_volume

if TYPE_CHECKING:
    from pathlib import Path

SHAPE = (7, 12, 15)


@pytest.fixture
def labels() -> np.ndarray:
    return np.random.default_rng(0).choice(4, SHAPE, p=(0.9, 0.04, 0.03, 0.03)).astype(np.uint8)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", ">u2", "float32"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compression": "zlib"},
        {"imagej": True},
        {"bigtiff": True},
        {"metadata": None, "rowsperstrip": 5},
        {"tile": (16, 16)},
        {"ome": True, "metadata": {"axes": "ZYX"}},
    ],
    ids=str,
)
def test_a_file_of_any_layout(
    tmp_path: Path, labels: np.ndarray, dtype: str, options: dict[str, Any]
) -> None:
    path = tmp_path / "labels"
    order = {"byteorder": ">"} if dtype.startswith(">") or options.get("imagej") else {}
    tifffile.imwrite(path, labels.astype(dtype), **options, **order)
    voxels = read_label_volume(path, SHAPE, 3)
    np.testing.assert_array_equal(voxels.labels(Box.whole(SHAPE)), labels)


def test_pages_written_one_by_one_and_leading_axes(tmp_path: Path, labels: np.ndarray) -> None:
    with tifffile.TiffWriter(tmp_path / "pages.tif") as file:
        for plane in labels:
            file.write(plane, metadata=None, compression="zlib")
    tifffile.imwrite(tmp_path / "tczyx.tif", labels[None, None], metadata={"axes": "TCZYX"})
    for name in ("pages.tif", "tczyx.tif"):
        voxels = read_label_volume(tmp_path / name, SHAPE, 3)
        np.testing.assert_array_equal(voxels.labels(Box.whole(SHAPE)), labels)


def test_what_does_not_fit_is_refused(tmp_path: Path, labels: np.ndarray) -> None:
    path = tmp_path / "labels.tif"
    tifffile.imwrite(path, labels)
    with pytest.raises(StrokesError, match="7 × 12 × 15 voxels, the tomogram has 7 × 15 × 12"):
        read_label_volume(path, (7, 15, 12), 3)
    with pytest.raises(StrokesError, match=r"has label 3: .* 1 to 2 for the classes"):
        read_label_volume(path, SHAPE, 2)
    tifffile.imwrite(path, np.stack([labels] * 3, axis=-1), photometric="rgb")
    with pytest.raises(StrokesError, match="7 × 12 × 15 × 3 voxels"):
        read_label_volume(path, SHAPE, 3)


@pytest.mark.parametrize("n_bytes", [4, 8, 300, 900])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_a_torn_file_is_refused(
    tmp_path: Path, labels: np.ndarray, n_bytes: int, compression: str | None
) -> None:
    path = tmp_path / "labels.tif"
    tifffile.imwrite(path, labels, compression=compression)
    path.write_bytes(path.read_bytes()[:n_bytes])
    with pytest.raises(StrokesError):
        read_label_volume(path, SHAPE, 3)


def test_a_compression_that_cannot_be_read_is_named(
    tmp_path: Path, labels: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "labels.tif"
    tifffile.imwrite(path, labels, compression="zlib")
    monkeypatch.setattr(tifffile.TIFF, "DECOMPRESSORS", {1: None})
    with pytest.raises(StrokesError, match=r"no TIFF file that can be read here: .*uncompressed"):
        read_label_volume(path, SHAPE, 3)
