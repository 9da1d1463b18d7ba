"""Verb import-labels: every voxel of the volume is the class that the file says."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import mrcfile
import numpy as np
import pytest
import tifffile
import typer
import zarr
from typer.testing import CliRunner

from labelled import one_hot
from otzi.box import Box
from otzi.errors import NotAnMRC, NotFoundError, SourceError, StrokesError, UsageError
from otzi.tomogram import Tomogram
from otzi_pipelines.import_labels import command, import_labels
from otzi_pipelines.train.crops import LabelledVolume
from references import mode_level

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


SHAPE = (70, 20, 67)


@pytest.fixture
def tomo(add_tomogram: Callable[..., Tomogram]) -> Tomogram:
    return add_tomogram(np.random.default_rng(1).normal(size=SHAPE).astype(np.float32))


@pytest.fixture
def labels() -> np.ndarray:
    return np.random.default_rng(0).choice(4, SHAPE, p=(0.1, 0.5, 0.3, 0.1)).astype(np.uint8)


def write(path: Path, labels: np.ndarray) -> Path:
    """Write a label volume of the kind that the name says."""
    if path.suffix == ".mrc":
        with mrcfile.new(path) as file:
            file.set_data(labels.astype(np.int16))
    elif path.suffix == ".tif":
        tifffile.imwrite(path, labels, compression="zlib")
    else:
        zarr.create_array(path, data=labels, chunks=(40, 20, 20))
    return path


@pytest.mark.parametrize("name", ["a.mrc", "a.tif", "a.zarr"])
def test_every_voxel_of_any_kind_of_file(
    tomo: Tomogram, tmp_path: Path, labels: np.ndarray, name: str
) -> None:
    assert import_labels(tomo, write(tmp_path / name, labels), "truth")
    expected = (labels.astype(int) - 1) % 256
    np.testing.assert_array_equal(tomo.array("labels/truth")[...], expected)
    coarse = mode_level(expected.astype(np.uint8))
    np.testing.assert_array_equal(tomo.array("labels/truth", 1)[...], coarse)
    attributes = tomo.attributes("labels/truth")
    assert attributes["classes"] == ["background", "membrane", "lumen"]
    counts = np.bincount(labels.ravel()).tolist()
    assert [attributes["n_unlabelled"], *attributes["n_voxels"].values()] == counts


def test_the_same_labels_are_not_imported_again(
    tomo: Tomogram, tmp_path: Path, labels: np.ndarray
) -> None:
    assert import_labels(tomo, write(tmp_path / "a.mrc", labels), "truth")
    assert not import_labels(tomo, write(tmp_path / "same.zarr", labels), "truth")
    labels[-1, -1, -1] = 1 + labels[-1, -1, -1] % 3
    assert import_labels(tomo, write(tmp_path / "other.mrc", labels), "truth")
    assert tomo.array("labels/truth")[-1, -1, -1] == labels[-1, -1, -1] - 1


def test_a_network_learns_nothing_where_nothing_is_labelled(
    tomo: Tomogram, tmp_path: Path, labels: np.ndarray
) -> None:
    import_labels(tomo, write(tmp_path / "a.mrc", labels), "truth")
    crop = LabelledVolume(tomo, "truth").read(Box((8, 0, 10), (24, 16, 26)), 16)
    np.testing.assert_array_equal(
        one_hot(crop.labels), one_hot(labels[8:24, :16, 10:26].astype(int) - 1)
    )
    assert (crop.labels > 2).any()


def test_what_is_no_label_volume_of_the_tomogram_is_refused(
    tomo: Tomogram, tmp_path: Path, labels: np.ndarray
) -> None:
    with pytest.raises(StrokesError, match=r"69 × 20 × 67 .* 70 × 20 × 67"):
        import_labels(tomo, write(tmp_path / "short.mrc", labels[1:]), "truth")
    with pytest.raises(StrokesError, match="labels no voxel"):
        import_labels(tomo, write(tmp_path / "empty.mrc", labels * 0), "truth")
    wrong = labels.copy()
    wrong[69, 3, 4] = 4
    with pytest.raises(StrokesError, match="label 4"):
        import_labels(tomo, write(tmp_path / "wrong.mrc", wrong), "truth")
    with pytest.raises(NotFoundError, match="not there"):
        import_labels(tomo, tmp_path / "nowhere.mrc", "truth")
    (tmp_path / "text.mrc").write_text("no labels " * 200)
    with pytest.raises(NotAnMRC):
        import_labels(tomo, tmp_path / "text.mrc", "truth")
    with pytest.raises(UsageError, match="not a name"):
        import_labels(tomo, write(tmp_path / "a.mrc", labels), "../truth")
    assert tomo.products == ("raw",)


def test_a_file_that_changes_while_it_is_read_is_refused(
    tomo: Tomogram, tmp_path: Path, labels: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.zarr", labels)
    write_product = Tomogram.write

    def change(*args: Any, **kwargs: Any) -> Any:
        zarr.open_array(path)[69, 3, 4] = 1 + labels[69, 3, 4] % 3
        return write_product(*args, **kwargs)

    monkeypatch.setattr(Tomogram, "write", change)
    with pytest.raises(SourceError, match="changed while it was read"):
        import_labels(tomo, path, "truth")
    assert not tomo.has("labels/truth")


def test_the_verb_counts_the_voxels(tomo: Tomogram, tmp_path: Path, labels: np.ndarray) -> None:
    app = typer.Typer(add_completion=False)
    app.command("import-labels")(command)
    path = write(tmp_path / "a.mrc", labels)
    words = [str(tomo.collection.path), "ts_001", str(path), "--name", "truth"]
    first = CliRunner().invoke(app, [*words, "--json"])
    assert first.exit_code == 0, first.stderr
    document = json.loads(first.stdout)
    assert (document["made"], document["unlabelled"]) == (True, int((labels == 0).sum()))
    assert document["voxels"]["membrane"] == int((labels == 2).sum())
    again = CliRunner().invoke(app, words)
    assert "already" in again.stderr
    assert f"membrane {(labels == 2).sum():,}" in again.stdout
