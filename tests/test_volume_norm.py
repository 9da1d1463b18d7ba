"""Statistics of whole volumes: exact for what comes first, and the same in any order."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from otzi.networks.architectures import build, config_from_json
from otzi.networks.layers import norm
from otzi.networks.volume_norm import VolumeNorm, measure_statistics
from test_architectures import TINY, tile


def pieces(volume: torch.Tensor, side: int = 8) -> list[torch.Tensor]:
    """Cut ``(z, y, x)`` into tiles that cover it without overlap."""
    z, y, x = (range(0, n, side) for n in volume.shape)
    return [
        volume[None, None, i : i + side, j : j + side, k : k + side]
        for i in z
        for j in y
        for k in x
    ]


def test_the_statistics_are_those_of_the_whole_volume() -> None:
    torch.manual_seed(0)
    layer = nn.Conv3d(1, 3, 1)
    network = nn.Sequential(layer, norm("volume", 3))
    volume = torch.randn(16, 8, 24) * 5 + 100
    measure_statistics(network, lambda: pieces(volume), rounds=1)
    with torch.inference_mode():
        features = layer(volume[None, None].clone()).double()
    np.testing.assert_allclose(network[1].running_mean, features.mean((0, 2, 3, 4)), rtol=1e-5)
    variance = features.var((0, 2, 3, 4), correction=0)
    np.testing.assert_allclose(network[1].running_var, variance, rtol=1e-4)


def test_each_round_makes_one_norm_more_exact() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv3d(1, 2, 1), norm("volume", 2), nn.ReLU(), nn.Conv3d(2, 3, 1), norm("volume", 3)
    )
    volume = torch.randn(8, 8, 16) * 3 + 7

    def statistics(rounds: int) -> list[torch.Tensor]:
        for module in network:
            if isinstance(module, VolumeNorm):
                module.reset_running_stats()
        measure_statistics(network, lambda: pieces(volume), rounds=rounds)
        return [network[i].running_mean.clone() for i in (1, 4)]

    once, twice, thrice = (statistics(rounds) for rounds in (1, 2, 3))
    assert torch.equal(once[0], twice[0])
    assert not torch.allclose(once[1], twice[1], rtol=1e-2)
    assert torch.equal(twice[1], thrice[1])
    with torch.inference_mode():
        out = network.eval()(volume[None, None])
    shift, scale = network[4].bias, network[4].weight
    torch.testing.assert_close(out.mean((0, 2, 3, 4)), shift, rtol=0, atol=1e-4)
    torch.testing.assert_close(out.std((0, 2, 3, 4)), scale, rtol=1e-3, atol=0)


@pytest.mark.parametrize("architecture", ["unet", "residual-unet", "dense-net"])
def test_tiles_do_not_differ_by_what_else_they_hold(architecture: str) -> None:
    torch.set_num_threads(1)
    fields = TINY[architecture] | {"normalisation": "volume"}
    network = build(config_from_json(architecture, fields)).train()
    network.initialise(torch.Generator().manual_seed(0))
    volume = tile(16, 16, 16)
    before = {name: t.clone() for name, t in network.state_dict().items()}
    measure_statistics(network, lambda: pieces(volume))
    assert network.training
    changed = {n for n, t in network.state_dict().items() if not torch.equal(t, before[n])}
    assert changed == {n for n in before if n.endswith(("running_mean", "running_var"))}
    reference = {name: t.clone() for name, t in network.state_dict().items()}
    network.load_state_dict(before)
    measure_statistics(network, lambda: reversed(pieces(volume)))
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(tensor, reference[name], rtol=1e-5, atol=1e-6)


def test_other_norms_are_left_alone() -> None:
    network = nn.Sequential(nn.Conv3d(1, 2, 1), norm("batch", 2), norm("group", 2))
    measure_statistics(network, lambda: [torch.ones(1, 1, 2, 2, 2)])
    assert torch.equal(network[1].running_mean, torch.zeros(2))
