"""The network that a training begins with: as settings mean it, or that of a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from otzi.classes import DEFAULT_CLASSES
from otzi.errors import ConfigurationError
from otzi.networks.architectures import build, config_from_json
from otzi.networks.published import NanoOetziConfig
from otzi.networks.weights import ModelCard
from otzi.settings import load_settings
from otzi.tiles.infer import TorchModel
from otzi_pipelines.train.network import first_network, network_config
from otzi_pipelines.train.settings import TrainSettings

if TYPE_CHECKING:
    from otzi.networks.network import Network, NetworkConfig

THREE, TWO = ("background", "membrane", "lumen"), ("background", "foreground")
TINY = config_from_json("residual-unet", {"n_classes": 3, "width": 4, "levels": 2})


def settings(**changes: Any) -> TrainSettings:
    return TrainSettings(**({"crop_voxels": 16, "grid_voxels": 8} | changes))


def made(config: NetworkConfig, seed: int = 7) -> Network:
    network = build(config)
    network.initialise(torch.Generator().manual_seed(seed))
    return network


def model(config: NetworkConfig, classes: tuple[str, ...]) -> TorchModel:
    card = ModelCard(classes=classes, config={}, spacing_angstrom=None)
    return TorchModel(made(config), card, Path(), device="cpu", threads=1)


def same(first: Network, second: Network) -> dict[str, bool]:
    other = second.state_dict()
    return {
        name: tensor.shape == other[name].shape and torch.equal(tensor, other[name])
        for name, tensor in first.state_dict().items()
        if name in other
    }


def test_settings_make_the_network() -> None:
    assert network_config(settings(), 4) == config_from_json("residual-unet", {"n_classes": 4})
    wide = {"n_classes": 3, "width": 8, "levels": 3}
    assert network_config(settings(width=8, levels=3), 3) == config_from_json("residual-unet", wide)
    fields = {"width": 8, "levels": 3, "normalisation": "group", "kernel": [1, 3, 3]}
    found = network_config(settings(network={"architecture": "unet"} | fields), 3)
    assert found == config_from_json("unet", {"n_classes": 3} | fields)


@pytest.mark.parametrize(
    ("loss", "head"),
    [
        ("cross-entropy", "softmax"),
        ("bce", "sigmoid"),
        ("mse", "none"),
        ("adaptive-wing", "sigmoid"),
    ],
)
def test_a_loss_has_its_head_where_none_is_named(loss: Any, head: str) -> None:
    assert network_config(settings(loss=loss), 2).head == head
    asked = settings(loss="mse", network={"head": "normalised-relu"})
    assert network_config(asked, 2).head == "normalised-relu"


def test_the_published_network_can_be_trained_anew() -> None:
    table = {"architecture": "nano-oetzi", "width": 4}
    assert network_config(settings(network=table), 3) == NanoOetziConfig(4, 3)
    assert network_config(settings(network=table, loss="mse"), 2) == NanoOetziConfig(4, 1)


def test_a_model_to_start_from_decides() -> None:
    assert network_config(settings(), 5, TINY) == TINY.for_classes(5)
    assert network_config(settings(width=4, network={"kernel": [3, 3, 3]}), 3, TINY) == TINY
    assert network_config(settings(network={"checkpointing": True}), 3, TINY).checkpointing
    two = TINY.for_classes(2, "sigmoid")
    assert network_config(settings(loss="mse"), 2, two) == two
    assert network_config(settings(), 3, two) == TINY


@pytest.mark.parametrize(
    ("changes", "origin", "names"),
    [
        ({"width": 8}, TINY, r"network.width = 8, .* has 4: leave it out"),
        ({"network": {"architecture": "unet"}}, TINY, r"architecture = 'unet', .* has 'residual"),
        ({"levels": 6}, None, "crop_voxels = 16 must be a multiple of 32 for the levels of this"),
        ({"class_weights": (1.0, 2.0)}, None, "class_weights has 2 values for 3 classes"),
        ({"loss": "bce", "network": {"head": "none"}}, None, "'bce' does not go with .* 'none'"),
        ({"network": {"checkpointing": True}}, NanoOetziConfig(2, 3), "a published network has no"),
    ],
)
def test_what_does_not_fit_is_refused(
    changes: dict[str, Any], origin: NetworkConfig | None, names: str
) -> None:
    with pytest.raises(ConfigurationError, match=names):
        network_config(settings(**changes), 3, origin)


def test_the_recipe_of_the_phantoms_is_one_for_their_classes() -> None:
    recipe = load_settings(TrainSettings, Path(__file__).parent / "bench" / "phantom.toml")
    assert network_config(recipe, len(DEFAULT_CLASSES)).width == recipe.width
    with pytest.raises(ConfigurationError, match="class_weights has 4 values for 2 classes"):
        network_config(recipe, 2)


def test_a_seed_decides_the_first_weights() -> None:
    first, again, other = (first_network(TINY, seed, THREE) for seed in (0, 0, 1))
    assert all(same(first, again).values())
    assert not same(first, other)["head.weight"]


def test_a_model_of_the_same_classes_is_taken_whole() -> None:
    origin = model(TINY, THREE)
    found = first_network(TINY, 0, THREE, origin)
    assert all(same(found, origin.network).values())
    found.get_parameter("head.bias").data.fill_(3)
    assert not same(found, origin.network)["head.bias"]


@pytest.mark.parametrize("head", ["softmax", "sigmoid", "normalised-relu", "none"])
def test_two_classes_become_four_by_a_new_last_layer(head: Any) -> None:
    origin = model(TINY.for_classes(2, head), TWO)
    config = network_config(settings(), 4, origin.network.config)
    found = first_network(config, 0, (*THREE, "spikes"), origin)
    assert found.get_parameter("head.weight").shape[0] == 4
    kept = same(found, origin.network)
    assert [name for name, is_same in kept.items() if not is_same] == ["head.weight", "head.bias"]


def test_renamed_classes_have_a_new_last_layer() -> None:
    origin = model(TINY, THREE)
    found = same(first_network(TINY, 0, ("a", "b", "c"), origin), origin.network)
    assert not found["head.weight"]
    assert all(is_same for name, is_same in found.items() if not name.startswith("head."))


def test_the_published_two_classes_become_four() -> None:
    origin = model(NanoOetziConfig(2, 1), TWO)
    config = network_config(settings(), 4, origin.network.config)
    found = first_network(config, 0, (*THREE, "spikes"), origin)
    assert config == NanoOetziConfig(2, 4)
    kept = same(found, origin.network)
    changed = [name for name, is_same in kept.items() if not is_same]
    assert changed == ["final_conv.weight", "final_conv.bias"]
    assert len(kept) == 91
