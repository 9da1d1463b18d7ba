"""The forest on a device: the probabilities of the compiled traversal, and labels of blocks."""

from __future__ import annotations

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
import xarray as xr

from otzi.box import Box
from otzi.errors import ConfigurationError, DeviceUnavailable, UsageError
from otzi.pseudo import device_forest, lazy
from otzi.pseudo.bank import FeatureBank
from otzi.pseudo.device_forest import DeviceForest, label_block_on
from otzi.pseudo.forest import StrokeForest
from otzi.pseudo.lazy import block_labeller, label_block, pseudo_labels
from references import forest_probabilities

if TYPE_CHECKING:
    from collections.abc import Callable

    from otzi.pseudo.forest import EarlyExit

BANK = FeatureBank(
    scales=(0.7, 1.6), features=("gaussian_smoothing", "structure_tensor_eigenvalues")
)
CLASSES = ("background", "membrane", "spikes", "lumen")
CPU = torch.device("cpu")


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def torch_device(
    request: pytest.FixtureRequest, require: Callable[[str, str], None]
) -> torch.device:
    if request.param == "cuda" and not torch.cuda.is_available():
        require("gpu", f"torch {torch.__version__} sees no CUDA device here")
    return torch.device(request.param)


def samples(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Give clouds that overlap, on a grid so coarse that many values lie right on thresholds."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(np.array([0, 1, 3], np.uint8), n, p=(0.6, 0.15, 0.25))
    values = rng.normal(size=(n, len(BANK.names))) + labels[:, None] * rng.uniform(0, 0.8, (n, 1))
    return (np.rint(values * 8) / 8).astype(np.float32), labels


def fitted(n_trees: int = 20) -> StrokeForest:
    return StrokeForest.fit(*samples(600), bank=BANK, classes=CLASSES, n_trees=n_trees)


@pytest.mark.parametrize("n_trees", [1, 60])
@pytest.mark.parametrize("early_exit", [None, (7, 0.777), (60, 0.9)])
def test_probabilities_are_those_of_the_compiled_traversal(
    torch_device: torch.device, n_trees: int, early_exit: EarlyExit | None
) -> None:
    forest = fitted(n_trees)
    unseen = np.ascontiguousarray(samples(3001, seed=1)[0].T)
    unseen[3, 5] = np.inf
    unseen[1, 6] = -np.inf
    unseen[4, [0, 130, 3000]] = np.nan
    expected = np.empty((len(CLASSES), 3001), np.float32)
    n_continued = forest.predict_into(unseen, expected, early_exit)
    on_device = DeviceForest(forest, torch_device)
    found, n = on_device.predict(torch.from_numpy(unseen).to(torch_device), early_exit)
    np.testing.assert_allclose(found.cpu().numpy(), expected, rtol=0, atol=1e-5)
    assert n == n_continued
    assert not found[:, [0, 130, 3000]].any()


def test_probabilities_are_those_of_the_plain_walk() -> None:
    forest = fitted()
    unseen = np.ascontiguousarray(samples(200, seed=2)[0].T)
    found, _ = DeviceForest(forest, CPU).predict(torch.from_numpy(unseen))
    np.testing.assert_allclose(found, forest_probabilities(forest, unseen), rtol=0, atol=1e-5)


def test_a_tree_without_a_branch() -> None:
    forest = fitted(1)
    leaf = replace(
        forest,
        child=forest.child[:1] * 0,
        channel=forest.channel[:1],
        threshold=forest.threshold[:1],
        shares=forest.shares[:1],
    )
    found, _ = DeviceForest(leaf, CPU).predict(torch.zeros(len(BANK.names), 5))
    np.testing.assert_allclose(found.T, np.repeat(leaf.shares, 5, axis=0))


@pytest.mark.parametrize("early_exit", [None, (5, 0.777)])
def test_voxels_in_portions_are_the_whole(
    monkeypatch: pytest.MonkeyPatch, early_exit: EarlyExit | None
) -> None:
    on_device = DeviceForest(fitted(), CPU)
    unseen = torch.from_numpy(np.ascontiguousarray(samples(700, seed=2)[0].T))
    whole, n_whole = on_device.predict(unseen, early_exit)
    monkeypatch.setattr(device_forest, "working_memory_bytes", lambda _: 20 * 48 * 33)
    parts, n_parts = on_device.predict(unseen, early_exit)
    np.testing.assert_allclose(parts, whole, rtol=0, atol=1e-6)
    assert n_parts == n_whole


def test_channels_and_early_exit_are_checked() -> None:
    on_device = DeviceForest(fitted(1), CPU)
    with pytest.raises(UsageError, match="3 channels, the forest has learned"):
        on_device.predict(torch.zeros(3, 10))
    with pytest.raises(UsageError, match="early exit after 0 trees"):
        on_device.predict(torch.zeros(len(BANK.names), 10), (0, 0.9))


def volume_and_forest() -> tuple[np.ndarray, StrokeForest]:
    """Give a density with a ball, and the forest of a few of its voxels."""
    shape = (24, 30, 27)
    radii = np.sqrt(sum((g - n / 2) ** 2 for g, n in zip(np.indices(shape), shape, strict=True)))
    labels = np.select([radii < 6, radii < 9], [3, 1], 0).astype(np.uint8)
    noise = np.random.default_rng(0).normal(0, 8, shape)
    volume = (np.array([0, -40, 0, 30])[labels] + noise).astype(np.int16)
    taught = np.random.default_rng(1).choice(volume.size, 500, replace=False)
    values = BANK.compute(volume).reshape(len(BANK.names), -1)[:, taught].T
    forest = StrokeForest.fit(
        values, labels.ravel()[taught], bank=BANK, classes=CLASSES, n_trees=30
    )
    return volume, forest


@pytest.mark.parametrize("early_exit", [None, (10, 0.777)])
def test_labels_of_a_block_are_those_of_the_cpu(
    torch_device: torch.device, early_exit: EarlyExit | None
) -> None:
    """A feature at a threshold may fall on either side: a few voxels differ by a few trees."""
    volume, forest = volume_and_forest()
    inner = Box((0, 5, 3), (24, 30, 20))
    held = inner.grow(BANK.halo_voxels).clip(volume.shape)
    block = (volume[held.slices], held, inner, forest, early_exit)
    expected, n_expected = label_block(*block)
    found, n_found = label_block_on(*block, device=torch_device)
    assert found.dtype == np.float32
    difference = abs(found - expected).max(axis=0)
    assert np.quantile(difference, 0.99) < 1e-5
    assert difference.mean() < 1e-3
    assert n_found == pytest.approx(n_expected, rel=0.01)
    np.testing.assert_allclose(found.sum(axis=0), 1, atol=1e-5)


def test_one_block_at_a_time_is_on_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    volume, forest = volume_and_forest()
    whole = Box.whole(volume.shape)
    alone, together = threading.Lock(), []
    predict = DeviceForest.predict

    def watched(*arguments: object) -> object:
        together.append(not alone.acquire(blocking=False))
        try:
            return predict(*arguments)
        finally:
            if not together[-1]:
                alone.release()

    monkeypatch.setattr(DeviceForest, "predict", watched)

    def one(_: int) -> np.ndarray:
        return label_block_on(volume, whole, whole, forest, device=CPU)[0]

    with ThreadPoolExecutor(3) as pool:
        first, *others = pool.map(one, range(3))
    assert together == [False] * 3
    for other in others:
        np.testing.assert_array_equal(other, first)


# Which function it is


def test_a_cpu_has_the_compiled_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for device in ("cpu", "auto"):
        assert block_labeller(device) == (label_block, "compiled kernels")
    with pytest.raises(DeviceUnavailable, match="no CUDA device"):
        block_labeller("cuda")
    with pytest.raises(UsageError, match="'tpu': choose one of"):
        block_labeller("tpu")


def test_torch_is_needed_for_a_gpu_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lazy, "find_spec", lambda _: None)
    monkeypatch.setitem(sys.modules, "torch", None)
    for device in ("cpu", "auto"):
        assert block_labeller(device)[0] is label_block
    with pytest.raises(ConfigurationError, match=r"'otzi\[train\]'"):
        block_labeller("cuda")


def test_lazy_labels_come_from_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    volume, forest = volume_and_forest()
    asked = []

    def on_cpu(*block: object, device: torch.device) -> object:
        asked.append(device.type)
        return label_block_on(*block, device=CPU)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(device_forest, "label_block_on", on_cpu)
    raw = xr.DataArray(volume, dims=("z", "y", "x")).chunk(16)
    labels = pseudo_labels(raw, BANK, forest, device="auto")
    assert not asked
    found = labels[:, 10:20, :, 5].compute(scheduler="synchronous")
    assert asked == ["cuda"] * 4
    whole = Box.whole(volume.shape)
    expected, _ = label_block_on(volume, whole, whole, forest, device=CPU)
    np.testing.assert_allclose(found, expected[:, 10:20, :, 5], rtol=0, atol=1e-5)
    assert block_labeller("auto")[1] == f"torch {torch.__version__} on cuda"
