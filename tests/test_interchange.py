"""Published checkpoints come in as models that segment; models go out to other programs."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime
import pytest
import torch

import otzi as library
from checkpoints import Calls, lightning_document, state_dict, write
from labelled import shells
from otzi.classes import DEFAULT_CLASSES
from otzi.collection import Collection, create_collection
from otzi.errors import CannotCreate, ConfigurationError, ModelError
from otzi.networks.architectures import build, config_from_json
from otzi.networks.weights import ModelCard, load_card, save_model
from otzi.normalise import MIN_MAX
from otzi.tiles.infer import TorchModel
from otzi_pipelines.interchange import import_checkpoint
from otzi_pipelines.onnx_network import export_onnx
from test_architectures import TINY

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from commands import Otzi
    from otzi.tomogram import Tomogram


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def collection(tmp_path: Path) -> Collection:
    return create_collection(tmp_path / "collection", DEFAULT_CLASSES.names)


def checkpoint(folder: Path, outputs: int = 4, seed: int = 0) -> Path:
    document = lightning_document(state_dict(2, outputs, seed))
    return write(folder / f"published_{outputs}_{seed}.ckpt", document)


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("outputs", [1, 4])
def test_an_imported_model_segments(
    add_tomogram: Callable[..., Tomogram], tmp_path: Path, otzi: Otzi, outputs: int
) -> None:
    tomo = add_tomogram(shells((20, 40, 33))[0])
    file, folder = checkpoint(tmp_path, outputs), tmp_path / "model"
    done = otzi("model", "import", file, folder, "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["source"]["file"] == file.name
    place = tomo.collection.path
    words = ("segment", place, "--model", folder, "--name", "net", "--tile", 32, "--overlap", 16)
    done = otzi(*words, "--device", "cpu", "--workers", 1)
    assert done.code == 0, done.err
    assert "was trained at" not in done.err
    found = tomo.array("probs/net")[...]
    assert found.shape == (max(outputs, 2), 20, 40, 33)
    assert (found.sum(0, dtype=int) == 255).all()
    model = library.load_model(file, device="cpu")
    lazy = library.predict_tiles(tomo.raw, model, tile=32, overlap=16, dtype="uint8")
    # Another way: the checkpoint itself, the lazy view; on other threads sums end in other bits.
    assert np.abs(found - lazy.values.astype(int)).max() <= 1
    assert len(np.unique(found)) > 5


def test_a_model_folder_is_what_the_checkpoint_says(tmp_path: Path) -> None:
    file = checkpoint(tmp_path)
    card = import_checkpoint(file, tmp_path / "made" / "model")
    folder = tmp_path / "made" / "model"
    assert sorted(p.name for p in folder.iterdir()) == ["model.json", "weights.safetensors"]
    assert load_card(folder) == card
    assert card.normalisation == MIN_MAX
    native = library.load_model(folder, device="cpu")
    direct = library.load_model(file, device="cpu")
    tiles = np.random.default_rng(0).random((1, 1, 16, 16, 32), np.float32)
    np.testing.assert_array_equal(native(tiles), direct(tiles))
    assert native.size_multiple == 16
    assert native.card.sha256 == direct.card.sha256


def test_importing_again_changes_nothing(tmp_path: Path) -> None:
    file, folder = checkpoint(tmp_path), tmp_path / "model"
    card = import_checkpoint(file, folder)
    times = {p.name: p.stat().st_mtime_ns for p in folder.iterdir()}
    assert import_checkpoint(file, folder) == card
    assert {p.name: p.stat().st_mtime_ns for p in folder.iterdir()} == times
    with pytest.raises(CannotCreate, match="holds something else"):
        import_checkpoint(checkpoint(tmp_path, seed=1), folder)
    assert load_card(folder) == card


def test_a_folder_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, folder = checkpoint(tmp_path), tmp_path / "model"
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    with pytest.raises(CannotCreate, match="holds something else"):
        import_checkpoint(file, tmp_path / "full")
    before = set(tmp_path.iterdir())
    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", interrupted)
        with pytest.raises(KeyboardInterrupt):
            import_checkpoint(file, folder)
    assert set(tmp_path.iterdir()) == before
    folder.mkdir()
    import_checkpoint(file, folder)
    assert load_card(folder).config == {"width": 2, "outputs": 4}


def test_a_hostile_checkpoint_leaves_nothing(tmp_path: Path, otzi: Otzi) -> None:
    proof, folder = tmp_path / "executed", tmp_path / "model"
    document = lightning_document(state_dict(2), trainer=Calls(os.system, f"touch {proof}"))
    file = write(tmp_path / "hostile.ckpt", document)
    done = otzi("model", "import", file, folder)
    assert done.code == 78
    assert f"calls '{os.name}.system'" in done.err
    assert list(tmp_path.iterdir()) == [file]


def own_model(folder: Path, architecture: str = "residual-unet", **changes: object) -> Path:
    config = config_from_json(architecture, TINY[architecture] | changes)
    network = build(config)
    network.initialise(torch.Generator().manual_seed(0))
    network.temperature = 1.5
    classes = ("background", "membrane", "lumen")[: config.n_classes]
    card = ModelCard(classes, asdict(config), (20.0, 10.0, 10.0), architecture=architecture)
    save_model(folder, network, card)
    return folder


KINDS: dict[str, tuple[str, dict[str, object]]] = {
    "unet": ("unet", {"head": "sigmoid"}),
    "residual": ("residual-unet", {}),
    "flat": ("residual-unet", {"kernel": (3, 5, 5), "pool": (1, 2, 2), "normalisation": "group"}),
    "dense": ("dense-net", {"normalisation": "volume"}),
    "regression": ("unet", {"n_classes": 2, "head": "normalised-relu"}),
    "two channels": ("residual-unet", {"in_channels": 2}),
}


@pytest.mark.parametrize("kind", [*KINDS, "one output", "four outputs"])
def test_onnxruntime_gives_our_probabilities(tmp_path: Path, kind: str) -> None:
    if kind in KINDS:
        architecture, changes = KINDS[kind]
        source = own_model(tmp_path / "model", architecture, **changes)
    else:
        source = checkpoint(tmp_path, 1 if kind == "one output" else 4)
    file = tmp_path / "model.onnx"
    difference = export_onnx(source, file)
    assert difference is not None
    assert difference < 1e-4
    model = library.load_model(source, device="cpu")
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    n, channels = model.size_multiple, model.network.config.in_channels
    # Shapes that neither the export nor its own check has seen.
    for shape in ((2, channels, n, n, n), (1, channels, 3 * n, n, 2 * n)):
        tiles = np.random.default_rng(1).random(shape, np.float32)
        (found,) = session.run(["probabilities"], {"density": tiles})
        np.testing.assert_allclose(found, model(tiles), rtol=0, atol=5e-5)
    said = session.get_modelmeta().custom_metadata_map
    assert {key: json.loads(value) for key, value in said.items()} == {
        "classes": list(model.classes),
        "normalisation": model.normalisation,
        "size_multiple": n,
        "spacing_angstrom": [20.0, 10.0, 10.0] if kind in KINDS else None,
        "weights_sha256": model.card.sha256,
    }


def test_the_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    source = own_model(tmp_path / "model")
    for name in "ab":
        export_onnx(source, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert str(library.__file__).encode() not in (tmp_path / "a").read_bytes()


def test_an_onnx_file_is_whole_or_not_there(
    tmp_path: Path, otzi: Otzi, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, file = own_model(tmp_path / "model"), tmp_path / "model.onnx"
    with pytest.raises(CannotCreate, match="none is no folder"):
        export_onnx(source, tmp_path / "none" / "model.onnx")
    done = otzi("model", "export", source, file, "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["largest_difference"] < 1e-4
    before = file.read_bytes()
    done = otzi("model", "export", source, file)
    assert done.code == 73
    assert "pass --force" in done.err
    infer = TorchModel.__call__
    with monkeypatch.context() as patched:
        patched.setattr(TorchModel, "__call__", lambda *a: infer(*a) + np.float32(0.01))
        with pytest.raises(ModelError, match=r"differs from torch by 1\.0e-02, the limit is 1e-04"):
            export_onnx(source, file, force=True)
    assert file.read_bytes() == before
    assert otzi("model", "export", source, file, "--force").code == 0
    assert sorted(tmp_path.iterdir()) == sorted([source, file])


def test_libraries_that_are_missing(
    tmp_path: Path, otzi: Otzi, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = own_model(tmp_path / "model")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    done = otzi("model", "export", source, tmp_path / "model.onnx")
    assert done.code == 0
    assert "is not checked" in done.err
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ConfigurationError, match=r"need onnx, .*'otzi\[onnx\]'"):
        export_onnx(source, tmp_path / "other.onnx")
    assert not (tmp_path / "other.onnx").exists()
