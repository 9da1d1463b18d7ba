"""The 3-D U-Net: the numbers and names of its weights, and its arithmetic."""

from __future__ import annotations

import pytest
import torch

from otzi.networks.unet3d import UNet3D, UNet3DConfig
from references import unet3d


@pytest.mark.parametrize("width", [16, 32])
def test_parameters_are_counted(width: int) -> None:
    with torch.device("meta"):
        network = UNet3D(UNet3DConfig(4, width=width))
    f = [1, width, 2 * width, 4 * width, 8 * width]
    down = sum(27 * (f[i - 1] * f[i] + f[i] ** 2) + 4 * f[i] for i in (1, 2, 3, 4))
    up = sum(8 * f[i + 1] * f[i] + f[i] + 27 * 3 * f[i] ** 2 + 4 * f[i] for i in (1, 2, 3))
    assert sum(p.numel() for p in network.parameters()) == down + up + 4 * width + 4


def test_skips_are_concatenated() -> None:
    network = UNet3D(UNet3DConfig(3, width=4, levels=3))
    shapes = {name: tuple(p.shape) for name, p in network.named_parameters()}
    assert shapes["encoders.0.0.weight"] == (4, 1, 3, 3, 3)
    assert shapes["encoders.2.3.weight"] == (16, 16, 3, 3, 3)
    assert shapes["upsamplers.0.weight"] == (16, 8, 2, 2, 2)
    assert shapes["decoders.0.0.weight"] == (8, 16, 3, 3, 3)
    assert shapes["decoders.1.3.weight"] == (4, 4, 3, 3, 3)
    assert shapes["head.weight"] == (3, 4, 1, 1, 1)
    assert len(shapes) == 5 * 2 * 3 + 2 * 2 + 2


def test_it_computes_what_the_description_says() -> None:
    torch.set_num_threads(1)
    network = UNet3D(UNet3DConfig(3, width=2, levels=3, kernel=(3, 5, 3))).double().eval()
    generator = torch.Generator().manual_seed(1)
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape, generator=generator) - 0.3 * (tensor.ndim > 1))
    tile = torch.randn(2, 1, 8, 12, 4, generator=generator).double()
    with torch.inference_mode():
        found = network(tile)
    torch.testing.assert_close(found, unet3d(network.state_dict(), tile), rtol=1e-9, atol=1e-9)
    assert found.std() > 0.05
