"""Forests as ONNX: a foreign runtime gives the probabilities that we give."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime
import pytest

from otzi.errors import CannotCreate, ConfigurationError
from otzi.pseudo.bank import FeatureBank
from otzi.pseudo.forest import StrokeForest
from otzi.pseudo.forest_file import save_forest
from otzi_pipelines.label.onnx_export import export_forest_onnx

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from commands import Otzi
    from otzi.tomogram import Tomogram

BANK = FeatureBank(
    scales=(0.7, 1.6), features=("gaussian_smoothing", "structure_tensor_eigenvalues")
)


def samples(n: int, n_classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Give clouds that overlap, on a grid so coarse that many values lie right on thresholds."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, n_classes, n).astype(np.uint8)
    values = rng.normal(size=(n, len(BANK.names))) + labels[:, None] * 0.7
    return (np.rint(values * 8) / 8).astype(np.float32), labels


def forest_of(n_classes: int, n_trees: int, unused: int = 0) -> StrokeForest:
    classes = ("background", "membrane", "spikes", "lumen", "cytoplasm")[: n_classes + unused]
    return StrokeForest.fit(
        *samples(700, n_classes), bank=BANK, classes=classes, n_trees=n_trees, seed=1
    )


def run(path: Path, features: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (probabilities,) = session.run(["probabilities"], {"features": features})
    return probabilities


@pytest.mark.parametrize(
    ("n_classes", "unused", "n_trees"), [(2, 0, 30), (4, 0, 100), (2, 1, 1), (3, 2, 20)]
)
def test_onnxruntime_gives_our_probabilities(
    tmp_path: Path, n_classes: int, unused: int, n_trees: int
) -> None:
    forest = forest_of(n_classes, n_trees, unused)
    unseen = samples(3000, n_classes, seed=2)[0]
    unseen[5, 3] = np.inf
    unseen[6, 1] = -np.inf
    unseen[[0, 77], [2, 0]] = np.nan
    path = export_forest_onnx(forest, tmp_path / "forest.onnx")
    found = run(path, unseen)
    expected = forest.predict(np.ascontiguousarray(unseen.T)).T
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    assert not found[[0, 77]].any()
    assert len(np.unique(expected.argmax(axis=1))) == n_classes


def test_the_file_says_what_it_needs(tmp_path: Path) -> None:
    forest = forest_of(3, 2)
    path = export_forest_onnx(forest, tmp_path / "forest.onnx")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    said = {k: json.loads(v) for k, v in session.get_modelmeta().custom_metadata_map.items()}
    assert tuple(said["classes"]) == forest.classes
    assert tuple(said["channels"]) == BANK.names
    assert FeatureBank.from_json(said["bank"]) == BANK
    assert said["forest_sha256"] == forest.sha256
    assert session.get_inputs()[0].shape == ["voxel", len(BANK.names)]


def test_the_same_forest_gives_the_same_bytes(tmp_path: Path) -> None:
    one, other = (export_forest_onnx(forest_of(3, 3), tmp_path / name) for name in "ab")
    assert one.read_bytes() == other.read_bytes()


def test_a_file_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "forest.onnx"
    with pytest.raises(CannotCreate, match="none is no folder"):
        export_forest_onnx(forest_of(2, 1), tmp_path / "none" / "forest.onnx")
    export_forest_onnx(forest_of(2, 1), path)
    before = path.read_bytes()
    with pytest.raises(CannotCreate, match="is there already: pass --force"):
        export_forest_onnx(forest_of(2, 2), path)
    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", interrupted)
        with pytest.raises(KeyboardInterrupt):
            export_forest_onnx(forest_of(2, 2), path, force=True)
    assert path.read_bytes() == before
    export_forest_onnx(forest_of(2, 2), path, force=True)
    assert path.read_bytes() != before
    assert list(tmp_path.iterdir()) == [path]


def interrupted(_: int) -> None:
    raise KeyboardInterrupt


def test_a_missing_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forest = forest_of(2, 1)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ConfigurationError, match=r"need onnx, .*'otzi\[onnx\]'"):
        export_forest_onnx(forest, tmp_path / "forest.onnx")
    assert not list(tmp_path.iterdir())


def test_the_verb_writes_the_forest_of_labels(
    add_tomogram: Callable[..., Tomogram], tmp_path: Path, otzi: Otzi
) -> None:
    tomo = add_tomogram(np.zeros((4, 5, 6), np.int16))
    forest = forest_of(3, 4)
    with tomo.write("labels/a", dtype=np.uint8, recipe={"made": "by a test"}) as writer:
        writer[:, :, :] = np.zeros((4, 5, 6), np.uint8)
        save_forest(forest, writer.path / "forest")
    path = tmp_path / "forest.onnx"
    words = ("export-forest", tomo.collection.path, tomo.id, path, "--name", "a", "--json")
    done = otzi(*words)
    assert done.code == 0
    assert json.loads(done.out)["classes"] == list(forest.classes)
    unseen = samples(50, 3, seed=2)[0]
    expected = forest.predict(np.ascontiguousarray(unseen.T)).T
    np.testing.assert_allclose(run(path, unseen), expected, atol=1e-5)
    again = otzi(*words)
    assert again.code == 73
    assert "pass --force" in again.err
