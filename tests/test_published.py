"""Published networks: their names and numbers, their arithmetic, and what is no such network."""

from __future__ import annotations

import hashlib
import os
import pickle
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import pytest
import torch
import xarray as xr

import otzi as library
from checkpoints import HPARAMS, Calls, lightning_document, shapes, state_dict, write
from otzi.errors import ConfigurationError, ModelError, NotFoundError, UsageError
from otzi.networks.published import NanoOetziConfig, ResidualUNet3D
from otzi.networks.published_file import read_published
from otzi.normalise import MIN_MAX
from references import published_network

if TYPE_CHECKING:
    from pathlib import Path

FOUR = ("background", "membrane", "spikes", "lumen")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def checkpoint(
    folder: Path, width: int = 2, outputs: int = 4, *, is_zip: bool = True, **changes: Any
) -> Path:
    document = lightning_document(state_dict(width, outputs), **changes)
    return write(folder / "model.ckpt", document, is_zip=is_zip)


@pytest.mark.parametrize(
    ("width", "n_parameters"),
    [(4, 552_830), (8, 2_208_982), (16, 8_831_270), (32, 35_315_782), (64, 141_244_550)],
)
def test_tensors_are_named_and_shaped_as_published(width: int, n_parameters: int) -> None:
    with torch.device("meta"):
        network = ResidualUNet3D(NanoOetziConfig(width, 4))
    found = {f"model.{name}": tuple(t.shape) for name, t in network.state_dict().items()}
    assert found == shapes(width, 4)
    assert len(found) == 91
    assert sum(p.numel() for p in network.parameters()) == n_parameters


@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize("is_namespace", [True, False])
@pytest.mark.parametrize(("outputs", "classes"), [(4, FOUR), (1, ("background", "foreground"))])
def test_a_checkpoint_is_read(
    tmp_path: Path, outputs: int, classes: tuple[str, ...], is_namespace: bool, is_zip: bool
) -> None:
    path = checkpoint(tmp_path, 4, outputs, is_zip=is_zip, is_namespace=is_namespace)
    network, card = read_published(path)
    for name, tensor in state_dict(4, outputs).items():
        torch.testing.assert_close(
            network.state_dict()[name.removeprefix("model.")], tensor, rtol=0, atol=0
        )
    assert card.classes == classes
    assert card.config == {"width": 4, "outputs": outputs}
    assert card.normalisation == MIN_MAX
    assert card.training["hyper_parameters"] == {k: v for k, v in HPARAMS.items() if v is not None}
    assert card.training["epoch"] == 41
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert card.training["source"] == {"file": "model.ckpt", "sha256": digest}


def test_the_file_is_not_touched(tmp_path: Path) -> None:
    path = checkpoint(tmp_path)
    path.chmod(0o444)
    os.utime(path, ns=(1, 1))
    content = path.read_bytes()
    read_published(path)
    assert path.read_bytes() == content
    assert path.stat().st_mtime_ns == 1
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("width", "outputs"), [(4, 4), (2, 1), (1, 4)])
def test_the_network_computes_what_the_description_says(width: int, outputs: int) -> None:
    state = state_dict(width, outputs)
    network = ResidualUNet3D(NanoOetziConfig(width, outputs)).double().eval()
    network.load_state_dict({k.removeprefix("model."): t for k, t in state.items()})
    tile = torch.rand(2, 1, 32, 16, 48, generator=torch.Generator().manual_seed(1)).double()
    with torch.inference_mode():
        found = network(tile).numpy()
    expected = published_network({k: t.double() for k, t in state.items()}, tile).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)
    assert found.std() > 0.05


@pytest.mark.parametrize("outputs", [1, 4])
def test_probabilities_follow_from_the_outputs(tmp_path: Path, outputs: int) -> None:
    model = library.load_model(checkpoint(tmp_path, 4, outputs), device="cpu", threads=1)
    tiles = np.random.default_rng(0).random((1, 1, 16, 32, 16), np.float32)
    with torch.no_grad():
        linear = model.network(torch.from_numpy(tiles)).double()
        # To both sides of [0, 1].
        model.network.final_conv.bias += 0.5 - linear.mean()
        model.network.final_conv.weight *= 1 / linear.std()
        linear = model.network(torch.from_numpy(tiles)).numpy().astype(np.float64)
    if outputs == 1:
        foreground = np.clip(linear, 0, 1)
        expected = np.concatenate([1 - foreground, foreground], axis=1)
        assert (linear < 0).any()
        assert (linear > 1).any()
    else:
        powers = np.exp(linear)
        expected = powers / powers.sum(1, keepdims=True)
    found = model(tiles)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_sides_are_multiples_of_16() -> None:
    network = ResidualUNet3D(NanoOetziConfig(1, 4))
    with pytest.raises(UsageError, match=r"\(16, 24, 16\).*multiples of 16"):
        network(torch.zeros(1, 1, 16, 24, 16))


def test_a_volume_is_seen_from_its_minimum_to_its_maximum(tmp_path: Path) -> None:
    model = library.load_model(checkpoint(tmp_path), device="cpu", threads=1)
    volume = np.random.default_rng(0).normal(100, 20, (20, 32, 32)).astype(np.float32)
    statistics = {"minimum": float(volume.min()), "maximum": float(volume.max())}
    raw = xr.DataArray(
        da.from_array(volume, chunks=16), dims=("z", "y", "x"), attrs={"statistics": statistics}
    )
    found = library.predict_tiles(raw, model, tile=32, overlap=0).values
    seen = (volume - volume.min()) / (volume.max() - volume.min())
    padded = np.pad(seen, ((0, 12), (0, 0), (0, 0)), mode="reflect")
    expected = model(padded[None, None])[0, :, :20]
    np.testing.assert_allclose(found, expected, atol=2e-4)


def test_a_copy_in_another_process_is_read_from_the_checkpoint(tmp_path: Path) -> None:
    model = library.load_model(checkpoint(tmp_path), device="cpu", threads=1)
    copy = pickle.loads(pickle.dumps(model))
    tiles = np.random.default_rng(0).random((1, 1, 16, 16, 16), np.float32)
    np.testing.assert_array_equal(copy(tiles), model(tiles))


def without(key: str) -> dict[str, torch.Tensor]:
    return {name: t for name, t in state_dict(2).items() if name != key}


BIAS = "model.decoders.1.upsampling.upsample.bias"


@pytest.mark.parametrize(
    ("state", "names"),
    [
        ({}, r"no tensor 'model.encoders.0.basic_module.conv1.conv.weight'"),
        (without(BIAS), rf"lacks '{BIAS}'"),
        (state_dict(2) | {"model.extra": torch.zeros(1)}, r"has 'model.extra' besides"),
        (state_dict(2) | {BIAS: torch.zeros(5)}, rf"'{BIAS}' has \(5,\), .*need \(8,\)"),
        (state_dict(2) | {BIAS: "text"}, rf"'{BIAS}' has no shape"),
        (state_dict(2) | {BIAS: torch.full((8,), torch.nan)}, rf"'{BIAS}' .*not finite"),
        (state_dict(2) | {BIAS: torch.zeros(8).half()}, rf"'{BIAS}' is torch.float16"),
        (state_dict(3), "width 3 must be 1 or even"),
        (state_dict(2, 3), "outputs 3 must be 1 or 4"),
        ({"model.model.0.module_L.0.0.seq.0.weight": torch.zeros(1)}, "holds StandardUNet"),
        ({"model.features.denseblock1.conv.weight": torch.zeros(1)}, "holds DenseNet"),
        ({"model.model.0.module_L.0.0._fn.Fm.weight": torch.zeros(1)}, "holds iUNet"),
    ],
)
def test_another_network_is_refused_by_key(
    tmp_path: Path, state: dict[str, torch.Tensor], names: str
) -> None:
    path = write(tmp_path / "other.ckpt", {"state_dict": state})
    with pytest.raises(ModelError, match=names):
        library.load_model(path)


def test_a_checkpoint_that_executes_is_refused_by_name(tmp_path: Path) -> None:
    proof = tmp_path / "executed"
    path = checkpoint(tmp_path, trainer=Calls(os.system, f"touch {proof}"))
    with pytest.raises(ModelError, match=rf"model.ckpt calls '{os.name}.system'.*nothing in it"):
        library.load_model(path)
    assert not proof.exists()
    path.unlink()
    torch.save(lightning_document(state_dict(2)) | {"state_dict": Calls(eval, "1 + 1")}, path)
    with pytest.raises(ModelError, match=r"calls '\w+.eval'"):
        library.load_model(path)


def test_no_checkpoint_there(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no checkpoint at"):
        library.load_model(tmp_path / "none.ckpt")
    torch.save([1, 2], tmp_path / "list.ckpt")
    with pytest.raises(ModelError, match="no 'state_dict'"):
        library.load_model(tmp_path / "list.ckpt")


@pytest.mark.parametrize(("width", "outputs"), [(0, 4), (-2, 4), (5, 4), (4, 0)])
def test_a_config_that_cannot_be(width: int, outputs: int) -> None:
    with pytest.raises(ConfigurationError, match=r"must be 1 or|must be at least 1"):
        NanoOetziConfig(width, outputs)
