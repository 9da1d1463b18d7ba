"""What all networks hold to, and new last layers for any of them."""

from __future__ import annotations

import weakref
from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import otzi
from otzi.errors import ConfigurationError, UsageError
from otzi.networks.architectures import adapt_head, architectures, build, config_from_json
from otzi.networks.weights import ModelCard, save_model
from otzi.normalise import MIN_MAX

if TYPE_CHECKING:
    from pathlib import Path

    from otzi.networks.architectures import Network

TINY: dict[str, dict[str, Any]] = {
    "unet": {"n_classes": 3, "width": 4, "levels": 3},
    "residual-unet": {"n_classes": 3, "width": 4, "levels": 3},
    "dense-net": {"n_classes": 3, "width": 4, "levels": 3, "layers": 2, "growth": 4},
    "nano-oetzi": {"width": 2, "outputs": 3},
}
OWN = [name for name in TINY if name != "nano-oetzi"]
HEADS = ("softmax", "sigmoid", "normalised-relu", "none")


def tiny(architecture: str, seed: int = 0, **changes: object) -> Network:
    torch.set_num_threads(1)
    network = build(config_from_json(architecture, TINY[architecture] | changes))
    network.initialise(torch.Generator().manual_seed(seed))
    return network.eval()


def tile(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_each_has_a_line() -> None:
    assert set(architectures()) == set(TINY)
    assert all(0 < len(line) < 90 for line in architectures().values())


def test_another_architecture_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"'transformer': choose one of unet, residual"):
        config_from_json("transformer", {})
    with pytest.raises(ConfigurationError, match=r"\[network\]: unknown key 'widht'"):
        config_from_json("unet", {"n_classes": 2, "widht": 4}, "[network]")


@pytest.mark.parametrize("architecture", TINY)
@pytest.mark.parametrize("channels", [1, 2])
def test_outputs_for_each_voxel(architecture: str, channels: int) -> None:
    if architecture == "nano-oetzi":
        network = tiny(architecture)
        channels = 1
    else:
        network = tiny(architecture, in_channels=channels)
    n = network.config.size_multiple
    with torch.inference_mode():
        assert network(tile(2, channels, n, 2 * n, 3 * n)).shape == (2, 3, n, 2 * n, 3 * n)


@pytest.mark.parametrize("architecture", TINY)
def test_sides_must_be_multiples_of_what_the_levels_need(architecture: str) -> None:
    network = tiny(architecture)
    n = network.config.size_multiple
    with pytest.raises(UsageError, match=rf"\({n}, {n + 2}, {n}\).*multiples of {n}"):
        network(torch.zeros(1, 1, n, n + 2, n))


@pytest.mark.parametrize("architecture", TINY)
def test_one_voxel_is_nothing_to_learn_from(architecture: str) -> None:
    network = tiny(architecture).train()
    n = network.config.size_multiple
    with pytest.raises(UsageError, match="single voxel at the coarsest level"):
        network(tile(1, 1, n, n, n))
    assert network(tile(2, 1, n, n, n)).shape[0] == 2
    assert network.eval()(tile(1, 1, n, n, n)).shape[0] == 1


@pytest.mark.parametrize("architecture", TINY)
def test_every_parameter_learns(architecture: str) -> None:
    network = tiny(architecture).train()
    # Residual branches begin at zero weight; one step moves them, then all that lies before them.
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1)
    before = {name: p.clone() for name, p in network.named_parameters()}
    n = 2 * network.config.size_multiple
    for _ in range(2):
        optimiser.zero_grad()
        network(tile(1, 1, n, n, n)).square().mean().backward()
        optimiser.step()
    assert not [name for name, p in network.named_parameters() if torch.equal(p, before[name])]


@pytest.mark.parametrize("architecture", OWN)
@pytest.mark.parametrize("normalisation", ["batch", "group", "volume"])
def test_no_norm_sees_the_raw_density(architecture: str, normalisation: str) -> None:
    """Twice the contrast must not give the same answer, as a norm of the input would."""
    network = tiny(architecture, normalisation=normalisation)
    seen: list[int] = []
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm3d | nn.GroupNorm)]
    for module in norms:
        module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[1]))
    n = network.config.size_multiple
    with torch.inference_mode():
        network(tile(1, 1, n, n, n))
    assert len(seen) == len(norms) > 3
    assert min(seen) >= 4


@pytest.mark.parametrize("architecture", OWN)
def test_what_is_beyond_the_view_does_not_matter(architecture: str) -> None:
    """The answer at a voxel follows from its surroundings, not from the tile it is inferred in."""
    network = tiny(architecture, levels=2)
    one = tile(1, 1, 8, 8, 80)
    other = one.clone()
    other[..., 40:] = 9
    with torch.inference_mode():
        first, second = network(one), network(other)
    assert torch.equal(first[..., :8], second[..., :8])
    assert not torch.equal(first, second)


@pytest.mark.parametrize("architecture", TINY)
def test_a_seed_gives_the_weights(architecture: str) -> None:
    first, second = tiny(architecture).state_dict(), tiny(architecture).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    prefix = tiny(architecture).HEAD_PREFIX
    other = tiny(architecture, seed=1).state_dict()
    assert not torch.equal(first[f"{prefix}weight"], other[f"{prefix}weight"])


@pytest.mark.parametrize("architecture", OWN)
@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"levels": 0}, "levels 0"),
        ({"width": 0}, "width 0"),
        ({"kernel": (3, 4, 3)}, "kernel"),
        ({"n_classes": 1}, "n_classes 1"),
        ({"in_channels": 0}, "in_channels 0"),
        ({"normalisation": "layer"}, "normalisation = 'layer'"),
        ({"head": "tanh"}, "head = 'tanh'"),
    ],
)
def test_a_network_that_cannot_be_built_is_refused(
    architecture: str, changes: dict, names: str
) -> None:
    with pytest.raises(ConfigurationError, match=names):
        config_from_json(architecture, TINY[architecture] | changes)


@pytest.mark.parametrize("architecture", OWN)
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("n_classes", [2, 4])
def test_a_folder_gives_back_the_network(
    tmp_path: Path, architecture: str, head: str, n_classes: int
) -> None:
    network = tiny(architecture, head=head, n_classes=n_classes, normalisation="volume")
    for name, buffer in network.named_buffers():
        if buffer.is_floating_point():
            buffer.copy_(1 + torch.rand(buffer.shape) * ("mean" not in name))
    network.temperature = 1.5
    classes = tuple("abcd"[:n_classes])
    card = ModelCard(classes, asdict(network.config), None, architecture=architecture)
    saved = save_model(tmp_path / "model", network, card)
    model = otzi.load_model(tmp_path / "model", device="cpu", threads=1)
    assert model.card == saved
    assert saved.temperature == 1.5
    n = model.size_multiple
    density = tile(1, 1, n, n, 2 * n)
    found = torch.from_numpy(model(density.numpy()))
    with torch.inference_mode():
        assert torch.equal(found, network.probabilities(density))
    torch.testing.assert_close(found.sum(1), torch.ones(1, n, n, 2 * n))
    assert found.shape[1] == n_classes
    assert found.min() >= 0


@pytest.mark.parametrize("n_classes", [2, 3])
def test_a_published_network_trained_on_is_kept_as_such(tmp_path: Path, n_classes: int) -> None:
    network = adapt_head(tiny("nano-oetzi", outputs=1), n_classes, torch.Generator(), "softmax")
    config = network.config
    card = ModelCard(
        tuple("abc"[:n_classes]),
        asdict(config),
        (14.0, 14.0, 14.0),
        architecture=config.architecture,
        normalisation=config.density_normalisation,
    )
    save_model(tmp_path / "model", network, card)
    model = otzi.load_model(tmp_path / "model", device="cpu", threads=1)
    density = torch.rand(1, 1, 16, 16, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = torch.softmax(network(density), 1)
    assert torch.equal(torch.from_numpy(model(density.numpy())), expected)
    assert model.normalisation == MIN_MAX


@pytest.mark.parametrize("architecture", TINY)
def test_a_new_last_layer_and_all_else_kept(architecture: str) -> None:
    """Two classes by regression, then four by classification, as published."""
    if architecture == "nano-oetzi":
        two = tiny(architecture, outputs=1)
    else:
        two = tiny(architecture, n_classes=2, head="none")
    assert two(tile(1, 1, 16, 16, 16)).shape[1] == 1
    four = adapt_head(two, 4, torch.Generator().manual_seed(5), "softmax")
    again = adapt_head(two, 4, torch.Generator().manual_seed(5), "softmax")
    assert four.config.n_classes == four.config.outputs == 4
    assert four.config.head == "softmax"
    assert four(tile(1, 1, 16, 16, 16)).shape[1] == 4
    before, after, same = two.state_dict(), four.state_dict(), again.state_dict()
    assert before.keys() == after.keys()
    head = {f"{two.HEAD_PREFIX}{part}" for part in ("weight", "bias")}
    assert {name for name in before if not torch.equal(before[name], after[name])} == head
    assert all(torch.equal(after[name], same[name]) for name in after)
    # Drawn on both sides of zero: from non-negative numbers all classes would begin alike.
    assert after[f"{two.HEAD_PREFIX}weight"].min() < 0 < after[f"{two.HEAD_PREFIX}weight"].max()
    # Nothing is shared: the one that it came from is still whole.
    with torch.no_grad():
        next(four.parameters()).zero_()
    assert next(two.parameters()).any()


@pytest.mark.parametrize("architecture", OWN)
def test_other_heads_keep_what_they_remember_to_themselves(architecture: str) -> None:
    relu = tiny(architecture, n_classes=2, head="normalised-relu")
    softmax = adapt_head(relu, 3, torch.Generator(), "softmax")
    assert "activation.maximum" not in softmax.state_dict()
    back = adapt_head(softmax, 2, torch.Generator(), "normalised-relu")
    assert back.state_dict()["activation.maximum"] == 1


class Living(TorchDispatchMode):
    """The bytes of all tensors that are alive, and the most there have been."""

    def __init__(self) -> None:
        super().__init__()
        self.users: Counter[int] = Counter()
        self.now_bytes = self.most_bytes = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), more: Any = None
    ) -> Any:
        made = function(*args, **(more or {}))
        if isinstance(made, torch.Tensor):
            storage = made.untyped_storage()
            place, n_bytes = storage.data_ptr(), storage.nbytes()
            self.now_bytes += n_bytes * (not self.users[place])
            self.users[place] += 1
            self.most_bytes = max(self.most_bytes, self.now_bytes)
            weakref.finalize(made, self.let_go, place, n_bytes)
        return made

    def let_go(self, place: int, n_bytes: int) -> None:
        self.users[place] -= 1
        self.now_bytes -= n_bytes * (not self.users[place])


@pytest.mark.parametrize("normalisation", ["batch", "group"])
@pytest.mark.parametrize("architecture", TINY)
def test_inference_takes_no_more_than_is_said(architecture: str, normalisation: str) -> None:
    changes: dict[str, Any] = {"width": 8}
    if architecture != "nano-oetzi":
        changes["normalisation"] = normalisation
    network = tiny(architecture, **changes)
    with torch.inference_mode(), Living() as living:
        network.probabilities(torch.zeros(1, 1, 32, 32, 32))
    said = network.config.working_channels
    channels = living.most_bytes / (4 * 32**3)
    assert 0.25 * said < channels <= said, channels


def test_heads_that_a_published_network_cannot_have() -> None:
    network = tiny("nano-oetzi")
    for n_classes, head in ((4, "sigmoid"), (3, "none"), (2, "sigmoid"), (1, None)):
        with pytest.raises(ConfigurationError, match=f"{n_classes} classes with head {head}"):
            adapt_head(network, n_classes, torch.Generator(), head)
    assert adapt_head(network, 2, torch.Generator()).config.outputs == 2
    assert adapt_head(network, 2, torch.Generator(), "none").config.outputs == 1
