"""The bank on a device: ilastik's definition again, in torch, and blocks that are the whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from otzi.box import Box, tile
from otzi.errors import MemoryBudgetError
from otzi.pseudo import device
from otzi.pseudo.bank import FEATURES, SCALES, FeatureBank
from otzi.pseudo.device import DeviceBank
from references import ilastik_features

if TYPE_CHECKING:
    from collections.abc import Callable

TOLERANCES = dict.fromkeys(FEATURES, 1e-4) | {
    "difference_of_gaussians": 2e-4,
    "structure_tensor_eigenvalues": 1e-3,
    "hessian_of_gaussian_eigenvalues": 1e-3,
}
CPU = torch.device("cpu")


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def torch_device(request: pytest.FixtureRequest, require: Callable[[str, str], None]) -> str:
    if request.param == "cuda" and not torch.cuda.is_available():
        require("gpu", f"torch {torch.__version__} sees no CUDA device here")
    return request.param


def volume_of(shape: tuple[int, int, int]) -> np.ndarray:
    """Give noise with a bright ball: flat, curved and edged in one volume."""
    rng = np.random.default_rng(0)
    radii = np.sqrt(sum((g - n / 3) ** 2 for g, n in zip(np.indices(shape), shape, strict=True)))
    return (rng.normal(size=shape) + 4 * (radii < min(shape) / 3)).astype(np.float32)


def computed(
    bank: FeatureBank, volume: np.ndarray, on: str = "cpu", planes: int | None = None
) -> np.ndarray:
    whole = Box.whole(volume.shape)
    slabs = DeviceBank(bank, torch.device(on)).slabs(volume, whole, whole, planes)
    return np.concatenate([channels.cpu().numpy() for _, channels in slabs], axis=1)


def assert_as_defined(bank: FeatureBank, volume: np.ndarray, channels: np.ndarray) -> None:
    left = dict(zip(bank.names, channels, strict=True))
    for scale in bank.scales:
        for feature, expected in ilastik_features(volume, scale, bank.structure_tensor).items():
            largest = max(abs(channel).max() for channel in expected)
            for i, channel in enumerate(expected):
                name = f"{feature}_{scale:g}" + f"_{i}" * (len(expected) > 1)
                assert abs(left.pop(name) - channel).max() / largest < TOLERANCES[feature], name
    assert not left


@pytest.mark.parametrize("structure_tensor", ["shipped", "vigra"])
def test_every_channel_is_as_defined_up_to_all_faces(
    torch_device: str, structure_tensor: str
) -> None:
    bank, volume = FeatureBank(structure_tensor=structure_tensor), volume_of((37, 41, 39))
    assert_as_defined(bank, volume, computed(bank, volume, torch_device, planes=10))


@pytest.mark.parametrize("shape", [(5, 6, 67), (67, 5, 5), (6, 43, 5)])
def test_hardly_anything_along_an_axis(torch_device: str, shape: tuple[int, int, int]) -> None:
    bank, volume = FeatureBank(scales=(0.3, 0.7, 1.0)), volume_of(shape)
    assert_as_defined(bank, volume, computed(bank, volume, torch_device))


@pytest.mark.parametrize("block", [(37, 20, 39), (13, 41, 17), (20, 21, 22)])
def test_blocks_are_the_whole(block: tuple[int, int, int]) -> None:
    bank, volume = FeatureBank(), volume_of((37, 41, 39))
    whole = computed(bank, volume)
    for inner in tile(volume.shape, block):
        held = inner.grow(bank.halo_voxels).clip(volume.shape)
        for slab, channels in DeviceBank(bank, CPU).slabs(volume[held.slices], held, inner, 7):
            expected = whole[(slice(None), *slab.slices)]
            np.testing.assert_allclose(channels.numpy(), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "bank",
    [
        FeatureBank(features=(FEATURES[0],)),
        FeatureBank(features=(FEATURES[1], FEATURES[3]), scales=(0.7, 5.0)),
        FeatureBank(features=(FEATURES[2], FEATURES[4]), scales=(10.0, 1.0)),
        FeatureBank(features=(FEATURES[5],), scales=(3.5,), structure_tensor="vigra"),
    ],
)
def test_a_choice_has_the_same_channels(bank: FeatureBank) -> None:
    volume = volume_of((36, 37, 38))
    everything = dict(zip(FeatureBank().names, computed(FeatureBank(), volume), strict=True))
    for name, channel in zip(bank.names, computed(bank, volume), strict=True):
        np.testing.assert_allclose(channel, everything[name], atol=1e-5, err_msg=name)


def test_nan_is_seen_as_far_as_on_the_cpu() -> None:
    bank = FeatureBank(scales=SCALES[:5])
    volume = volume_of((33, 31, 35))
    volume[16, 15, 17] = np.nan
    with np.errstate(invalid="ignore"):
        expected = np.isnan(bank.compute(volume))
    np.testing.assert_array_equal(np.isnan(computed(bank, volume)), expected)
    assert 0 < expected.any(axis=0).mean() < 1


@pytest.mark.parametrize("dtype", ["i1", "u2", ">i2", "f8", ">f4"])
def test_any_real_dtype_and_the_volume_is_left_as_it_is(dtype: str) -> None:
    bank = FeatureBank(scales=(0.3, 0.7))
    volume = np.random.default_rng(0).integers(0, 100, (8, 9, 10)).astype(dtype)
    volume.flags.writeable = False
    expected = computed(bank, volume.astype(np.float32))
    np.testing.assert_array_equal(computed(bank, volume), expected)


@pytest.mark.parametrize("value", [0.0, -3e4, 1e-6])
def test_a_constant_volume_has_no_feature_but_its_value(value: float) -> None:
    bank = FeatureBank()
    channels = computed(bank, np.full((36, 37, 38), value, np.float32))
    for name, channel in zip(bank.names, channels, strict=True):
        expected = value if name.startswith("gaussian_smoothing") else 0
        np.testing.assert_allclose(channel, expected, atol=1e-5 * abs(value), err_msg=name)


def test_slabs_are_as_thick_as_the_memory_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    bank, volume = FeatureBank(scales=(0.7,)), volume_of((23, 8, 9))
    plane_bytes = 4 * (len(bank.names) + device._INTERMEDIATE_IMAGES) * 8 * 9
    whole, found = Box.whole(volume.shape), {}
    for planes in (5, 100, 0):
        monkeypatch.setattr(device, "working_memory_bytes", lambda _, n=planes: n * plane_bytes + 9)
        slabs = DeviceBank(bank, CPU).slabs(volume, whole, whole)
        found[planes] = [slab.shape[0] for slab, _ in slabs]
    assert found == {5: [5, 5, 5, 5, 3], 100: [23], 0: [1] * 23}


def test_a_full_device_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(device, "_presmoothed", full)
    with pytest.raises(MemoryBudgetError, match=r"8 × 8 × 9 voxels .* or --device cpu"):
        computed(FeatureBank(scales=(0.7,)), volume_of((8, 8, 9)))
