"""The network: shapes, sizes, symmetry, and weights that follow from a seed."""

from __future__ import annotations

import pytest
import torch

from otzi.errors import ConfigurationError, UsageError
from otzi.networks.unet import UNet, UNetConfig


def small(**changes: object) -> UNet:
    torch.set_num_threads(1)
    network = UNet(UNetConfig(**({"n_classes": 3, "width": 4, "levels": 3} | changes)))
    network.initialise(torch.Generator().manual_seed(0))
    return network.eval()


@pytest.mark.parametrize(
    ("changes", "sides"),
    [
        ({}, (8, 12, 16)),
        ({"levels": 1}, (3, 5, 7)),
        ({"levels": 4}, (8, 8, 24)),
        ({"kernel": (3, 5, 5)}, (4, 8, 8)),
        ({"in_channels": 2, "n_classes": 5}, (4, 4, 8)),
    ],
)
def test_one_logit_for_each_class_and_voxel(changes: dict, sides: tuple) -> None:
    network = small(**changes)
    tiles = torch.randn(2, network.config.in_channels, *sides)
    with torch.inference_mode():
        assert network(tiles).shape == (2, network.config.n_classes, *sides)


def test_sides_must_be_multiples_of_what_the_levels_need() -> None:
    network = small()
    assert network.config.size_multiple == 4
    with pytest.raises(UsageError, match=r"\(8, 10, 8\).*multiples of 4"):
        network(torch.zeros(1, 1, 8, 10, 8))


def test_every_parameter_learns() -> None:
    network = small().train()
    # Residual branches begin at zero weight; one step moves them, then all that lies before them.
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1)
    before = {name: p.clone() for name, p in network.named_parameters()}
    tiles = torch.randn(1, 1, 8, 8, 8, generator=torch.Generator().manual_seed(1))
    for _ in range(2):
        optimiser.zero_grad()
        network(tiles).square().mean().backward()
        optimiser.step()
    unmoved = [n for n, p in network.named_parameters() if torch.equal(p, before[n])]
    assert not unmoved


def test_no_norm_sees_the_raw_density() -> None:
    """Twice the contrast must not give the same answer, as a norm of the input would."""
    network = small()
    seen = []
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[1]))
    network(torch.randn(1, 1, 8, 8, 8))
    assert min(seen) == network.config.width


def test_what_is_beyond_the_view_does_not_matter() -> None:
    """The answer at a voxel follows from its surroundings, not from the tile it is inferred in."""
    network = small(levels=2)
    tile = torch.randn(1, 1, 8, 8, 64, generator=torch.Generator().manual_seed(1))
    other = tile.clone()
    other[..., 32:] = 9
    with torch.inference_mode():
        first, second = network(tile), network(other)
    assert torch.equal(first[..., :8], second[..., :8])
    assert not torch.equal(first, second)


def test_the_way_up_mirrors_the_way_down() -> None:
    config = UNetConfig(n_classes=2, width=4, levels=4)
    network = UNet(config)
    assert config.widths == (4, 8, 16, 32)
    assert [e.convolution2.out_channels for e in network.encoders] == [4, 8, 16, 32]
    assert [d.convolution2.out_channels for d in network.decoders] == [16, 8, 4]


def test_a_seed_gives_the_weights() -> None:
    first, second = small().state_dict(), small().state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    other = UNet(UNetConfig(n_classes=3, width=4, levels=3))
    other.initialise(torch.Generator().manual_seed(1))
    assert not torch.equal(first["head.weight"], other.state_dict()["head.weight"])


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"levels": 0}, "levels 0"),
        ({"width": 0}, "width 0"),
        ({"kernel": (3, 4, 3)}, "kernel"),
        ({"n_classes": 1}, "n_classes 1"),
    ],
)
def test_a_network_that_cannot_be_built_is_refused(changes: dict, names: str) -> None:
    with pytest.raises(ConfigurationError, match=names):
        UNetConfig(**({"n_classes": 3} | changes))
