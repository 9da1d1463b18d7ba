"""The model folder: what is saved comes back, and what does not fit is refused."""

from __future__ import annotations

import hashlib
import json
import pickle
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import otzi
from otzi.errors import DeviceUnavailable, ModelError, NotFoundError, UsageError
from otzi.networks.residual_unet import ResidualSymmetricUNet, ResidualSymmetricUNetConfig
from otzi.networks.weights import ModelCard, load_card, load_model, save_model

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = {"n_classes": 3, "width": 4, "levels": 2}
CLASSES = ("background", "membrane", "lumen")


def network() -> ResidualSymmetricUNet:
    torch.set_num_threads(1)
    made = ResidualSymmetricUNet(ResidualSymmetricUNetConfig(**CONFIG))
    made.initialise(torch.Generator().manual_seed(0))
    return made.eval()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    card = ModelCard(
        classes=CLASSES,
        config=CONFIG,
        spacing_angstrom=(20.0, 10.0, 10.0),
        training={"tomograms": [{"id": "ts_001"}]},
        metrics={"macro_dice": 0.5},
    )
    save_model(tmp_path / "model", network(), card)
    return tmp_path / "model"


def rewrite_card(folder: Path, **changes: object) -> None:
    document = json.loads((folder / "model.json").read_text()) | changes
    (folder / "model.json").write_text(json.dumps(document))


def rewrite_weights(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    save_file(tensors, folder / "weights.safetensors")
    digest = hashlib.sha256((folder / "weights.safetensors").read_bytes()).hexdigest()
    rewrite_card(folder, sha256=digest)


def test_what_is_saved_comes_back(folder: Path) -> None:
    model = otzi.load_model(folder, device="cpu", threads=1)
    assert model.classes == CLASSES
    assert model.size_multiple == 2
    assert model.card.training == {"tomograms": [{"id": "ts_001"}]}
    tiles = np.random.default_rng(0).normal(size=(2, 1, 4, 6, 8)).astype(np.float32)
    with torch.inference_mode():
        expected = torch.softmax(network()(torch.from_numpy(tiles)), 1).numpy()
    found = model(tiles)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-6)
    assert found.dtype == np.float32


def test_a_file_of_the_folder_is_as_good_as_the_folder(folder: Path) -> None:
    assert load_card(folder / "model.json") == load_card(folder / "weights.safetensors")


def test_the_same_weights_give_the_same_files(folder: Path, tmp_path: Path) -> None:
    save_model(tmp_path / "again", network(), load_card(folder))
    for name in ("model.json", "weights.safetensors"):
        assert (folder / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    assert sorted(p.name for p in folder.iterdir()) == ["model.json", "weights.safetensors"]


def test_a_copy_in_another_process_is_loaded_from_the_folder_once(folder: Path) -> None:
    model = load_model(folder, device="cpu", threads=1)
    sent = pickle.dumps(model)
    assert len(sent) < 1000
    first, second = pickle.loads(sent), pickle.loads(sent)
    assert first is second
    assert first.card == model.card


def test_nothing_there_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no model at"):
        load_model(tmp_path / "nothing")


def test_a_checkpoint_has_no_card(tmp_path: Path) -> None:
    (tmp_path / "four_classes_model.ckpt").write_bytes(b"\x80\x02")
    with pytest.raises(ModelError, match="otzi model import"):
        load_card(tmp_path / "four_classes_model.ckpt")


@pytest.mark.parametrize("name", ["model.json", "weights.safetensors"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(ModelError, match=name):
        load_model(folder)


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"architecture": "transformer"}, "architecture 'transformer'"),
        ({"format": 2}, "format 2"),
        ({"normalisation": "per tile"}, "normalisation 'per tile'"),
        ({"surprise": 1}, "surprise"),
        ({"temperature": 0.0}, "temperature 0.0, it must be above 0"),
        ({"classes": "membrane"}, "classes"),
        ({"classes": ["background", "membrane"]}, r"names 2 classes.*3 output channels"),
        ({"config": CONFIG | {"depth": 2}}, "depth"),
        ({"config": CONFIG | {"width": 0}}, "width 0"),
        ({"config": CONFIG | {"width": 8}}, r"shape \(4, 1, 3, 3, 3\).*needs \(8, 1, 3, 3, 3\)"),
        ({"config": CONFIG | {"levels": 3}}, "lacks tensor"),
    ],
)
def test_a_card_that_does_not_fit_is_refused(folder: Path, changes: dict, names: str) -> None:
    rewrite_card(folder, **changes)
    with pytest.raises(ModelError, match=names):
        load_model(folder)


def test_a_card_that_is_no_json_is_refused(folder: Path) -> None:
    (folder / "model.json").write_text("{")
    with pytest.raises(ModelError, match="not JSON"):
        load_model(folder)


def test_damaged_weights_are_refused(folder: Path) -> None:
    path = folder / "weights.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ModelError, match="SHA-256"):
        load_model(folder)


def test_unexpected_and_missing_tensors_are_named(folder: Path) -> None:
    tensors = load_file(folder / "weights.safetensors")
    rewrite_weights(folder, tensors | {"extra.weight": torch.zeros(1)})
    with pytest.raises(ModelError, match=r"unexpected tensor 'extra.weight'"):
        load_model(folder)
    rewrite_weights(folder, {k: v for k, v in tensors.items() if k != "head.bias"})
    with pytest.raises(ModelError, match=r"lacks tensor 'head.bias'"):
        load_model(folder)


def test_devices(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert load_model(folder, device="auto").device.type == "cpu"
    with pytest.raises(DeviceUnavailable, match="--device cpu"):
        load_model(folder, device="cuda")
    with pytest.raises(UsageError, match="tpu"):
        load_model(folder, device="tpu")  # type: ignore[arg-type]
