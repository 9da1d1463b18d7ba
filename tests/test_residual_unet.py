"""The residual symmetric U-Net: its symmetry, its options, and the names of its weights."""

from __future__ import annotations

import pytest
import torch

from otzi.errors import ConfigurationError, UsageError
from otzi.networks.residual_unet import ResidualSymmetricUNet, ResidualSymmetricUNetConfig
from references import residual_unet


def small(**changes: object) -> ResidualSymmetricUNet:
    torch.set_num_threads(1)
    fields = {"n_classes": 3, "width": 4, "levels": 3} | changes
    network = ResidualSymmetricUNet(ResidualSymmetricUNetConfig(**fields))
    network.initialise(torch.Generator().manual_seed(0))
    return network.eval()


def test_the_way_up_mirrors_the_way_down() -> None:
    network = small(n_classes=2, width=4, levels=4)
    assert network.config.widths == (4, 8, 16, 32)
    assert [e.convolution2.out_channels for e in network.encoders] == [4, 8, 16, 32]
    assert [d.convolution2.out_channels for d in network.decoders] == [16, 8, 4]


def test_a_model_made_before_fits() -> None:
    """Names and shapes are those of model folders that are in use."""
    network = small()
    block = ["project", "norm1", "convolution1", "norm2", "convolution2", "norm3"]
    places = [f"encoders.{i}" for i in range(3)] + [f"decoders.{i}" for i in range(2)]
    parameters = dict(network.named_parameters())
    wanted = {f"{place}.{layer}.weight" for place in places for layer in block}
    wanted |= {f"{place}.norm{i}.bias" for place in places for i in (1, 2, 3)}
    wanted |= {f"upsamplers.{i}.{part}" for i in range(2) for part in ("weight", "bias")}
    wanted |= {"head.weight", "head.bias"}
    assert set(parameters) == wanted
    assert parameters["encoders.1.project.weight"].shape == (8, 4, 3, 3, 3)
    assert parameters["upsamplers.0.weight"].shape == (16, 8, 2, 2, 2)
    assert parameters["head.weight"].shape == (3, 4, 1, 1, 1)


@pytest.mark.parametrize("width", [16, 32])
def test_parameters_are_counted(width: int) -> None:
    with torch.device("meta"):
        network = ResidualSymmetricUNet(ResidualSymmetricUNetConfig(4, width=width))
    f = [1, width, 2 * width, 4 * width, 8 * width]
    down = sum(27 * (f[i - 1] * f[i] + 2 * f[i] ** 2) + 6 * f[i] for i in (1, 2, 3, 4))
    up = sum(8 * f[i + 1] * f[i] + f[i] + 27 * 3 * f[i] ** 2 + 6 * f[i] for i in (1, 2, 3))
    assert sum(p.numel() for p in network.parameters()) == down + up + 4 * width + 4


def test_residual_branches_begin_at_zero() -> None:
    network = small(levels=1, n_classes=2)
    x = torch.randn(1, 1, 4, 4, 4)
    (block,) = network.encoders
    with torch.inference_mode():
        expected = torch.relu(block.norm1(block.project(x)))
        torch.testing.assert_close(block(x), expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("changes", "sides"),
    [({}, (8, 12, 4)), ({"kernel": (3, 5, 5), "pool": (1, 2, 2)}, (5, 8, 4))],
)
def test_it_computes_what_the_description_says(changes: dict, sides: tuple) -> None:
    network = small(**changes).double()
    generator = torch.Generator().manual_seed(1)
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape, generator=generator) - 0.3 * (tensor.ndim > 1))
    tile = torch.randn(2, 1, *sides, generator=generator).double()
    with torch.inference_mode():
        found = network(tile)
    expected = residual_unet(network.state_dict(), tile, network.config.pool)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_z_need_not_be_pooled() -> None:
    network = small(kernel=(5, 7, 7), pool=(1, 2, 2))
    assert network.config.size_multiples == (1, 4, 4)
    assert network.config.size_multiple == 4
    with torch.inference_mode():
        assert network(torch.zeros(1, 1, 5, 8, 8)).shape == (1, 3, 5, 8, 8)
    with pytest.raises(UsageError, match=r"\(5, 8, 6\).*multiples of \(1, 4, 4\) \(z, y, x\)"):
        network(torch.zeros(1, 1, 5, 8, 6))


def test_a_pool_of_three_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"pool \(1, 3, 3\)"):
        ResidualSymmetricUNetConfig(2, pool=(1, 3, 3))
