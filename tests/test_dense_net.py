"""The skip-connected DenseNet: the numbers and names of its weights, and its arithmetic."""

from __future__ import annotations

import pytest
import torch

from otzi.errors import ConfigurationError
from otzi.networks.dense_net import DenseNet3D, DenseNet3DConfig
from references import dense_net


def test_it_is_the_one_described() -> None:
    """Four dense blocks of four layers, growth 16, four ways straight up to full size."""
    with torch.device("meta"):
        network = DenseNet3D(DenseNet3DConfig(4))
    assert sum(p.numel() for p in network.parameters()) == 1_075_324
    assert [len(block.layers) for block in network.blocks] == [4] * 4
    assert {block.layers[3][1].convolution.out_channels for block in network.blocks} == {16}
    assert [up[1].scale_factor for up in network.upsamplers] == [2, 4, 8, 16]
    assert network.config.widths == (32, 48, 56, 60)
    assert network.head.in_channels == 32 + 4 * 16
    assert network.config.size_multiple == 16


def test_it_computes_what_the_description_says() -> None:
    torch.set_num_threads(1)
    config = DenseNet3DConfig(3, width=3, levels=3, layers=2, growth=2, kernel=(3, 3, 5))
    network = DenseNet3D(config).double().eval()
    generator = torch.Generator().manual_seed(1)
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape, generator=generator) - 0.3 * (tensor.ndim > 1))
    tile = torch.randn(2, 1, 8, 12, 4, generator=generator).double()
    with torch.inference_mode():
        found = network(tile)
    torch.testing.assert_close(found, dense_net(network.state_dict(), tile), rtol=1e-9, atol=1e-9)
    assert found.std() > 0.05


@pytest.mark.parametrize("changes", [{"layers": 0}, {"growth": 0}])
def test_a_block_must_have_layers(changes: dict) -> None:
    with pytest.raises(ConfigurationError, match="must be at least 1"):
        DenseNet3DConfig(3, **changes)
