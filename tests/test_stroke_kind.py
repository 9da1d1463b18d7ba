"""Stroke files are known by what is in them, whatever they are called."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import h5py
import mrcfile
import numpy as np
import pytest
import tifffile

from otzi.errors import ConfigurationError, NotFoundError
from otzi.label_volume import read_label_volume
from otzi.stroke_files.ilastik import read_ilastik_labels
from otzi.stroke_files.kind import kind_of

if TYPE_CHECKING:
    from pathlib import Path

LABELS = np.ones((5, 4, 123), np.uint8)
"""As wide as the number that stands for a brace."""


def write_mrc(path: Path) -> None:
    with mrcfile.new(path) as file:
        file.set_data(LABELS.astype(np.int8))


def write_hdf5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["labels"] = LABELS


@pytest.mark.parametrize("suffix", ["", ".dat", ".mrc"])
@pytest.mark.parametrize(
    ("kind", "write"),
    [
        ("mrc", write_mrc),
        ("ilastik", write_hdf5),
        ("tiff", lambda path: tifffile.imwrite(path, LABELS)),
        ("tiff", lambda path: tifffile.imwrite(path, LABELS, bigtiff=True, byteorder=">")),
        ("json", lambda path: path.write_text('\n {"schema": 1}')),
        ("table", lambda path: path.write_text("\ufeffindex,axis-0,axis-1,axis-2\n")),
        ("zarr", lambda path: path.mkdir()),
    ],
)
def test_the_first_bytes_decide(tmp_path: Path, kind: str, write: object, suffix: str) -> None:
    path = tmp_path / f"strokes{suffix}"
    write(path)
    assert kind_of(path) == kind


def test_of_text_the_name_decides(tmp_path: Path) -> None:
    for name, kind in (("a.json", "json"), ("a.CSV", "table"), ("a.txt", "mrc")):
        (tmp_path / name).write_text("not what it is called")
        assert kind_of(tmp_path / name) == kind
    with pytest.raises(NotFoundError, match="none is not there"):
        kind_of(tmp_path / "none")


def test_a_missing_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "labels"
    tifffile.imwrite(path, LABELS)
    for name in ("tifffile", "h5py"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigurationError, match=r"labels needs tifffile, .*'otzi\[tiff\]'"):
        read_label_volume(path, LABELS.shape, 1)
    with pytest.raises(ConfigurationError, match=r"labels needs h5py, .*'otzi\[ilastik\]'"):
        read_ilastik_labels(path, "ts_001", LABELS.shape, ())
