"""A learner: its loss falls, it goes on where it stopped, and knows what it may judge by."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from labelled import UNKNOWN, one_hot, shells
from otzi.box import Box
from otzi.errors import MemoryBudgetError, ModelError
from otzi.events import Event, Warned
from otzi.metrics import Agreement
from otzi.networks.architectures import build, config_from_json
from otzi.normalise import Normalisation
from otzi_pipelines.train.augment import Change
from otzi_pipelines.train.checkpoint import Checkpoint
from otzi_pipelines.train.crops import Crop
from otzi_pipelines.train.learner import Learner
from otzi_pipelines.train.losses import HEADS
from otzi_pipelines.train.processes import Team
from otzi_pipelines.train.settings import TrainSettings

if TYPE_CHECKING:
    from pathlib import Path

    from otzi.networks.network import Network

CPU = torch.device("cpu")
UNIT = Normalisation(offset=0, scale=50, low=-1000, high=1000)
SETTINGS = TrainSettings(crop_voxels=16, grid_voxels=8, batch=1)
TINY: dict[str, dict[str, Any]] = {
    "residual-unet": {"width": 4, "levels": 2},
    "unet": {"width": 4, "levels": 2},
    "dense-net": {"width": 4, "levels": 2, "layers": 2, "growth": 4},
}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@dataclass(frozen=True)
class Volume:
    """What a crop knows of its volume."""

    classes: tuple[str, ...] = ("background", "membrane", "lumen")
    id: str = "ts_001"
    quantisation: tuple[float, float] = (1.0, 0.0)
    normalisation: Normalisation = UNIT


def crop(seed: int = 0, labels: np.ndarray | None = None, volume: Any = Volume()) -> Crop:
    density, hard = shells((16, 16, 16), seed)
    return Crop(volume, Box.whole((16, 16, 16)), density, hard if labels is None else labels)


def network(architecture: str = "residual-unet", seed: int = 0, **fields: Any) -> Network:
    made = build(config_from_json(architecture, {"n_classes": 3} | TINY[architecture] | fields))
    made.initialise(torch.Generator().manual_seed(seed))
    return made


def learner(settings: TrainSettings = SETTINGS, **fields: Any) -> Learner:
    return Learner(network(**fields), settings, CPU)


def learn(learning: Learner, *crops: Crop, rate: float = 1e-2) -> float:
    return learning.learn(crops, [Change()] * len(crops), rate)


def weights(learner: Learner) -> dict[str, torch.Tensor]:
    return {name: t.clone() for name, t in learner.network.state_dict().items()}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> list[str]:
    return [name for name in first if torch.equal(first[name], second[name])]


def test_the_loss_falls() -> None:
    learning = learner()
    losses = [learn(learning, crop(i)) for i in range(30)]
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("architecture", TINY)
@pytest.mark.parametrize(
    ("loss", "share"), [("cross-entropy", 0.2), ("bce", 0.3), ("mse", 0.3), ("adaptive-wing", 0.3)]
)
def test_every_network_learns_a_crop_by_heart(architecture: str, loss: Any, share: float) -> None:
    settings = replace(SETTINGS, loss=loss, weight_decay=0)
    learning = learner(settings, architecture=architecture, head=HEADS[loss][0])
    before = learning.test([crop()]).loss
    losses = [learn(learning, crop(), rate=2e-2) for _ in range(40)]
    assert before is not None
    assert losses[-1] < share * losses[0]
    assert learning.test([crop()]).agreement.macro_dice > 0.6


OPTIONS = [
    {},
    {"ema_decay": 0.5},
    {"precision": "mixed"},
    {"accumulate": 2, "batch": 2},
    {"loss": "mse", "ema_decay": 0.9},
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: " ".join(options) or "plain")
def test_it_goes_on_where_it_stopped_to_the_bit(tmp_path: Path, options: dict[str, Any]) -> None:
    settings = replace(SETTINGS, **options)
    head = HEADS[settings.loss][0]
    through, first, second = (learner(settings, head=head) for _ in range(3))

    def crops(i: int) -> list[Crop]:
        return [crop(settings.batch * i + j) for j in range(settings.batch)]

    losses = [learn(through, *crops(i)) for i in range(5)]
    for i in range(3):
        learn(first, *crops(i))
    first.checkpoint(3, {"note": "half-way"}).write(tmp_path / "checkpoint")
    checkpoint = Checkpoint.read(tmp_path / "checkpoint")
    second.take_up(checkpoint)
    assert [learn(second, *crops(i)) for i in range(checkpoint.step, 5)] == losses[3:]
    assert same(weights(through), weights(second)) == list(weights(through))
    judged, resumed = (learning.judged.state_dict() for learning in (through, second))
    assert same(judged, resumed) == list(judged)


@pytest.mark.parametrize("known", [16, 5])
def test_a_batch_in_parts_has_the_same_gradient(known: int) -> None:
    """Even where of one crop less is known: a voxel counts alike, whatever its part."""
    half = shells((16, 16, 16), 1)[1]
    half[known:] = UNKNOWN
    crops = [crop(0), crop(1, half), crop(2), crop(3)]
    settings = replace(SETTINGS, batch=4)
    whole = learner(settings, normalisation="group")
    expected = learn(whole, *crops)
    for parts in (2, 3, 4):
        divided = learner(replace(settings, accumulate=parts), normalisation="group")
        assert learn(divided, *crops) == pytest.approx(expected, rel=1e-5)
        for name, p in whole.network.named_parameters():
            found = divided.network.get_parameter(name).grad
            assert p.grad is not None
            assert found is not None
            torch.testing.assert_close(found, p.grad, rtol=1e-3, atol=1e-6, msg=name)


def test_averaged_weights_follow_by_their_share() -> None:
    plain, averaging = learner(), learner(replace(SETTINGS, ema_decay=0.75))
    start = weights(plain)
    assert averaging.judged is not averaging.network
    expected = {name: t.clone() for name, t in start.items()}
    for i in range(3):
        learn(plain, crop(i))
        learn(averaging, crop(i))
        for name, t in plain.network.named_parameters():
            expected[name] = 0.75 * expected[name] + 0.25 * t.detach()
    assert same(weights(plain), weights(averaging)) == list(start)
    for name, t in averaging.judged.named_parameters():
        torch.testing.assert_close(t.detach(), expected[name], rtol=1e-5, atol=1e-7)
    buffers = dict(plain.network.named_buffers())
    assert all(torch.equal(b, buffers[name]) for name, b in averaging.judged.named_buffers())


def test_mixed_precision_is_near_the_full_one() -> None:
    full, mixed = learner(), learner(replace(SETTINGS, precision="mixed"))
    losses = [(learn(full, crop(i)), learn(mixed, crop(i))) for i in range(5)]
    for exact, rough in losses:
        assert rough == pytest.approx(exact, rel=0.05)
        assert rough != exact
    assert {p.dtype for p in mixed.network.parameters()} == {torch.float32}


def test_a_batch_of_unknowns_teaches_nothing() -> None:
    learning = learner(replace(SETTINGS, weight_decay=0))
    before = {name: p.detach().clone() for name, p in learning.network.named_parameters()}
    assert learn(learning, crop(labels=np.full((16, 16, 16), UNKNOWN, np.uint8))) == 0
    assert same(before, weights(learning)) == list(before)


def test_class_weights_decide_what_counts() -> None:
    plain = learn(learner(), crop())
    only_membrane = crop().labels.copy()
    only_membrane[only_membrane != 1] = UNKNOWN
    weighted = learn(learner(replace(SETTINGS, class_weights=(0.0, 1.0, 0.0))), crop())
    assert weighted == pytest.approx(learn(learner(), crop(labels=only_membrane)), rel=1e-5)
    assert weighted != pytest.approx(plain, rel=1e-2)


def test_hard_targets_are_those_of_soft_labels() -> None:
    soft = np.round(255 * (0.8 * one_hot(crop().labels) + 0.2 / 3)).astype(np.uint8)
    hard = replace(SETTINGS, targets="hard")
    assert learn(learner(hard), crop(labels=soft)) == learn(learner(), crop())
    assert learn(learner(), crop(labels=soft)) != learn(learner(), crop())


def test_only_what_is_known_is_judged() -> None:
    learning = learner()
    _, labels = shells((16, 16, 16))
    labels[:, :9] = UNKNOWN
    found = learning.test([crop(labels=labels)] * 2)
    assert found.agreement.n_voxels == 2 * 16 * 7 * 16
    assert learning.network.training
    expected = Agreement.measure(learning.predict(crop()).numpy()[:, :, 9:], labels[:, 9:])
    assert found.agreement.macro_dice == pytest.approx(expected.macro_dice)
    assert found.agreement.cross_entropy == pytest.approx(expected.cross_entropy)
    assert found.loss == pytest.approx(expected.cross_entropy, rel=1e-4)


def test_nothing_known_has_no_measure() -> None:
    found = learner().test([crop(labels=np.full((16, 16, 16), UNKNOWN, np.uint8))])
    assert found.agreement.summary(("a", "b", "c"))["macro_dice"] is None
    assert found.loss is None


def test_norms_of_whole_volumes_are_measured_on_what_is_given() -> None:
    learning = learner(normalisation="volume")
    learn(learning, crop())
    before = weights(learning)
    learning.settle(lambda: [crop(1), crop(2)])
    first = dict(learning.judged.named_buffers())["encoders.0.norm1.running_mean"]
    density = torch.stack([torch.from_numpy(crop(i).density / 50).float() for i in (1, 2)])
    seen = learning.judged.get_submodule("encoders.0.project")(density[:, None])
    torch.testing.assert_close(first, seen.mean((0, 2, 3, 4)).detach(), rtol=1e-4, atol=1e-5)
    assert set(same(before, weights(learning))) >= set(dict(learning.network.named_parameters()))


@pytest.mark.parametrize(
    ("density", "labels", "names"),
    [
        (
            np.nan,
            None,
            "density of ts_001, z 0 to 16, y 0 to 16, x 0 to 16 is not finite: ingest it with "
            "--preset train --nonfinite fill --update",
        ),
        (None, np.nan, r"labels of ts_001, z 0 .* are not finite: label it again"),
    ],
)
def test_what_makes_the_loss_no_number_is_named(
    density: float | None, labels: float | None, names: str
) -> None:
    learning = learner(replace(SETTINGS, batch=2))
    volume = Volume(normalisation=Normalisation(0, 1, -np.inf, np.inf))
    values = shells((16, 16, 16))[0].astype(np.float32)
    soft = one_hot(shells((16, 16, 16))[1])
    if density is not None:
        values[3, 4, 5] = density
    if labels is not None:
        soft[0, 3, 4, 5] = labels
    bad = Crop(volume, Box.whole((16, 16, 16)), values, soft)
    before = {name: p.detach().clone() for name, p in learning.network.named_parameters()}
    with pytest.raises(ModelError, match=rf"the loss is nan: .*{names}"):
        learn(learning, crop(), bad)
    assert same(before, weights(learning)) == list(before)


def test_a_gradient_that_is_not_finite_costs_no_weights() -> None:
    learning = learner()
    before = weights(learning)
    learn(learning, crop())
    after = weights(learning)
    assert same(before, after) != list(before)
    head = learning.network.get_parameter("head.weight")
    head.register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(ModelError, match=r"the gradient is not finite: take a learning_rate below"):
        learn(learning, crop())
    parameters = dict(learning.network.named_parameters())
    assert set(same(after, weights(learning))) >= set(parameters)


def test_norms_that_wait_for_others_are_not_compiled() -> None:
    events: list[Event] = []
    settings = replace(SETTINGS, compiled=True, batch=2)
    Learner(network(normalisation="batch"), settings, CPU, Team(0, 2), events.append)
    (warning,) = events
    assert isinstance(warning, Warned)
    assert "its norms wait for other processes" in warning.message


def test_a_network_gone_astray_is_told() -> None:
    learning = learner()
    torch.nn.init.constant_(learning.network.get_parameter("head.bias"), float("nan"))
    with pytest.raises(ModelError, match=r"astray in ts_001, z 0 .*: take a learning_rate below"):
        learn(learning, crop())


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ],
)
def test_too_little_memory_names_what_to_lower(
    error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    learning = learner()

    def fail(density: torch.Tensor) -> torch.Tensor:
        raise error

    monkeypatch.setattr(learning.network, "forward", fail)
    with pytest.raises(MemoryBudgetError, match=r"1 crops of 16 voxels .* lower crop_voxels or"):
        learn(learning, crop())


def test_other_errors_are_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    learning = learner()
    monkeypatch.setattr(learning.network, "forward", lambda density: density @ density[..., :3])
    with pytest.raises(RuntimeError, match="must match"):
        learn(learning, crop())
