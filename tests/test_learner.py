"""A learner: its loss falls, it goes on where it stopped, and knows what it may judge by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from labelled import UNKNOWN, one_hot, shells
from otzi.errors import ConfigurationError
from otzi.metrics import Agreement
from otzi.networks.unet import UNetConfig
from otzi_pipelines.train.checkpoint import Checkpoint
from otzi_pipelines.train.crops import Crop
from otzi_pipelines.train.learner import Learner, network_config
from otzi_pipelines.train.settings import TrainSettings

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = UNetConfig(n_classes=3, width=4, levels=2)
SETTINGS = TrainSettings(crop_voxels=16, grid_voxels=8)


def learner(config: UNetConfig = CONFIG, settings: TrainSettings = SETTINGS) -> Learner:
    return Learner(config, settings, device="cpu", threads=1)


def batch(seed: int) -> tuple[np.ndarray, np.ndarray]:
    density, labels = shells((16, 16, 16), seed)
    return (density / np.float32(50))[None, None].astype(np.float32), one_hot(labels)[None]


def weights(learner: Learner) -> dict[str, torch.Tensor]:
    return {name: t.clone() for name, t in learner.network.state_dict().items()}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> list[str]:
    return [name for name in first if torch.equal(first[name], second[name])]


def test_the_loss_falls() -> None:
    learning = learner()
    losses = [learning.learn(*batch(i), 1e-2) for i in range(30)]
    assert losses[-1] < 0.5 * losses[0]


def test_it_goes_on_where_it_stopped_to_the_bit(tmp_path: Path) -> None:
    through, first, second = learner(), learner(), learner()
    losses = [through.learn(*batch(i), 1e-2) for i in range(5)]
    for i in range(3):
        first.learn(*batch(i), 1e-2)
    first.checkpoint(3, {"note": "half-way"}).write(tmp_path / "checkpoint")
    checkpoint = Checkpoint.read(tmp_path / "checkpoint")
    second.take_up(checkpoint)
    assert [second.learn(*batch(i), 1e-2) for i in range(checkpoint.step, 5)] == losses[3:]
    assert same(weights(through), weights(second)) == list(weights(through))


def test_a_batch_of_unknowns_teaches_nothing() -> None:
    learning = learner(settings=TrainSettings(crop_voxels=16, grid_voxels=8, weight_decay=0))
    before = {name: p.detach().clone() for name, p in learning.network.named_parameters()}
    density, target = batch(0)
    assert learning.learn(density, np.zeros_like(target), 1e-2) == 0
    assert same(before, weights(learning)) == list(before)


def test_class_weights_decide_what_counts() -> None:
    density, target = batch(0)
    plain = learner().learn(density, target, 0)
    settings = TrainSettings(crop_voxels=16, grid_voxels=8, class_weights=(0.0, 1.0, 0.0))
    only_membrane = target * np.array([0, 1, 0], np.float32)[:, None, None, None]
    weighted = learner(settings=settings).learn(density, target, 0)
    assert weighted == learner().learn(density, only_membrane, 0)
    assert weighted != plain


def test_only_what_is_known_is_judged() -> None:
    learning = learner()
    density, labels = shells((16, 16, 16))
    labels[:, :9] = UNKNOWN
    crop = Crop(density.astype(np.float32) / 50, one_hot(labels))
    found = learning.test([crop, crop])
    assert found.n_voxels == 2 * 16 * 7 * 16
    assert learning.network.training
    with torch.inference_mode():
        logits = learning.network.eval()(torch.from_numpy(crop.density[None, None]))[0]
    probabilities = torch.softmax(logits, 0).numpy()[:, :, 9:]
    expected = Agreement.measure(probabilities, labels[:, 9:])
    assert found.macro_dice == pytest.approx(expected.macro_dice)
    assert found.cross_entropy == pytest.approx(expected.cross_entropy)


def test_nothing_known_has_no_measure() -> None:
    density, target = batch(0)
    found = learner().test([Crop(density[0, 0], np.zeros_like(target[0]))])
    assert found.summary(("a", "b", "c"))["macro_dice"] is None


@pytest.mark.parametrize("keep_head", [True, False])
def test_starting_from_another_network(keep_head: bool) -> None:
    origin, learning = learner(), learner(settings=TrainSettings(crop_voxels=16, grid_voxels=8))
    origin.learn(*batch(0), 1e-2)
    fresh = weights(learning)
    learning.start_from(origin.network, keep_head=keep_head)
    taken = same(weights(origin), weights(learning))
    head = [name for name in fresh if name.startswith("head.")]
    assert head == ["head.weight", "head.bias"]
    assert taken == [name for name in fresh if keep_head or name not in head]
    if not keep_head:
        assert set(head) <= set(same(fresh, weights(learning)))


def test_a_head_of_more_classes_is_new() -> None:
    origin = learner()
    wider = learner(UNetConfig(n_classes=5, width=4, levels=2))
    wider.start_from(origin.network, keep_head=False)
    assert wider.network.state_dict()["head.weight"].shape[0] == 5


def test_settings_make_the_network() -> None:
    settings = TrainSettings(crop_voxels=16, grid_voxels=8, width=8, levels=3)
    assert network_config(settings, 3) == UNetConfig(3, width=8, levels=3)
    assert network_config(SETTINGS, 4) == UNetConfig(4)
    assert network_config(SETTINGS, 5, CONFIG) == UNetConfig(5, width=4, levels=2)


@pytest.mark.parametrize(
    ("changes", "origin", "names"),
    [
        ({"width": 8}, CONFIG, r"width = 8, .* has 4: leave it out"),
        ({"levels": 6}, None, "crop_voxels = 16 must be a multiple of 32 for 6 levels"),
        ({"class_weights": (1.0, 2.0)}, None, "class_weights has 2 values for 3 classes"),
    ],
)
def test_what_does_not_fit_is_refused(
    changes: dict[str, Any], origin: UNetConfig | None, names: str
) -> None:
    settings = TrainSettings(**({"crop_voxels": 16, "grid_voxels": 8} | changes))
    with pytest.raises(ConfigurationError, match=names):
        network_config(settings, 3, origin)
