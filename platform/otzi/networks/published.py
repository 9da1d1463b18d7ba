"""The published Nano-Ötzi network, its names those of its checkpoints.

Its first layer is a norm of the raw tile, which takes away the contrast between tiles: that is kept
for the sake of equal results. Our own networks have none, see `otzi.networks.residual_unet`.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from otzi.errors import ConfigurationError
from otzi.networks.names import NANO_OETZI
from otzi.networks.network import Network
from otzi.normalise import MIN_MAX
from otzi.settings import STRICT

if TYPE_CHECKING:
    from otzi.box import Zyx
    from otzi.networks.heads import Head

__all__ = ["NanoOetziConfig", "ResidualUNet3D"]

_LEVELS = 5


@dataclass(frozen=True, slots=True)
class NanoOetziConfig:
    """What differs between the published networks."""

    __pydantic_config__ = STRICT
    architecture: ClassVar[str] = NANO_OETZI
    density_normalisation: ClassVar[str] = MIN_MAX

    width: int
    """Channels of the finest level; each coarser level has twice as many."""
    outputs: int
    """Channels of the last layer: one for each class, or 1 for the foreground alone."""

    def __post_init__(self) -> None:
        if self.width < 1 or (self.width > 1 and self.width % 2):
            raise ConfigurationError(f"width {self.width} must be 1 or even: norms have two groups")
        if self.outputs < 1:
            raise ConfigurationError(f"outputs {self.outputs} must be at least 1")

    @property
    def n_classes(self) -> int:
        """Classes of which it gives the probabilities."""
        return max(2, self.outputs)

    @property
    def in_channels(self) -> int:
        """Channels of the density."""
        return 1

    @property
    def head(self) -> Head:
        """What the outputs mean."""
        return "softmax" if self.outputs > 1 else "none"

    @property
    def checkpointing(self) -> bool:
        """Whether blocks are computed again on the way back: never."""
        return False

    @property
    def size_multiples(self) -> Zyx:
        """What the sides of a tile are multiples of, in voxels, z, y, x."""
        return (self.size_multiple,) * 3

    @property
    def size_multiple(self) -> int:
        """What the sides of a tile are multiples of, in voxels."""
        return int(2 ** (_LEVELS - 1))

    @property
    def working_channels(self) -> int:
        """Full-resolution float32 channels that inference takes at its peak, measured."""
        # Peak of one tile of 128³ in all, torch 2.13 on a CPU: 461 MB (width 4), 768 MB (8),
        # 1038 MB (16). `otzi.tiles.infer` adds 100 MB for what is not of the tile.
        return 9 * self.width + 3 * self.n_classes

    def for_classes(self, n_classes: int, head: Head | None = None) -> NanoOetziConfig:
        """Give the same network with another last layer.

        Raises
        ------
        ConfigurationError
            If there is no such network.
        """
        if n_classes == 2 and (head or self.head) == "none":
            return replace(self, outputs=1)
        if n_classes < 2 or head not in (None, "softmax"):
            raise ConfigurationError(
                f"{n_classes} classes with head {head}: a published network takes softmax, or "
                "none for 2 classes"
            )
        return replace(self, outputs=n_classes)


def _convolution(before: int, channels: int, *, rectified: bool = True) -> nn.Sequential:
    layers: list[tuple[str, nn.Module]] = [
        ("groupnorm", nn.GroupNorm(min(2, before), before, eps=1e-5)),
        ("conv", nn.Conv3d(before, channels, 3, padding=1, bias=False)),
    ]
    return nn.Sequential(OrderedDict(layers + [("ReLU", nn.ReLU(inplace=True))] * rectified))


class _Block(nn.Module):
    """Three convolutions; what the last two find is added to what the first one made."""

    def __init__(self, before: int, channels: int) -> None:
        super().__init__()
        self.conv1 = _convolution(before, channels)
        self.conv2 = _convolution(channels, channels)
        self.conv3 = _convolution(channels, channels, rectified=False)

    def forward(self, x: Tensor) -> Tensor:
        """Give ``(b, channels, z, y, x)`` for ``(b, before, z, y, x)``."""
        x = self.conv1(x)
        return torch.relu_(self.conv3(self.conv2(x)).add_(x))


class _Encoder(nn.Module):
    def __init__(self, before: int, channels: int) -> None:
        super().__init__()
        self.basic_module = _Block(before, channels)

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.basic_module(x)
        return features


class _Decoder(nn.Module):
    def __init__(self, coarse: int, fine: int) -> None:
        super().__init__()
        # From n to 2n voxels, as many as the skip has.
        upsample = nn.ConvTranspose3d(coarse, fine, 3, stride=2, padding=1, output_padding=1)
        self.upsampling = nn.Sequential(OrderedDict(upsample=upsample))
        self.basic_module = _Block(fine, fine)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        features: Tensor = self.basic_module(self.upsampling(x).add_(skip))
        return features


class ResidualUNet3D(Network):
    """The network: a tile in, one number for each output and voxel out.

    After Lee et al. 2017 (arXiv:1706.00120), in the variant of pytorch-3dunet, version 1.
    """

    HEAD_PREFIX = "final_conv."

    def __init__(self, config: NanoOetziConfig) -> None:
        super().__init__(config)
        widths = [config.width * 2**level for level in range(_LEVELS)]
        self.encoders = nn.ModuleList(
            _Encoder(before, width) for before, width in zip((1, *widths), widths, strict=False)
        )
        self.pool = nn.MaxPool3d(2)
        self.decoders = nn.ModuleList(
            _Decoder(coarse, fine)
            for coarse, fine in zip(widths[:0:-1], widths[-2::-1], strict=True)
        )
        self.final_conv = nn.Conv3d(config.width, config.outputs, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """Give ``(b, outputs, z, y, x)`` float32 for ``(b, 1, z, y, x)`` normalised density.

        Raises
        ------
        UsageError
            If the sides are no multiples of 16.
        """
        self.check_sides(x)
        skips: list[Tensor] = []
        for level, encoder in enumerate(self.encoders):
            x = encoder(self.pool(x) if level else x)
            skips.append(x)
        skips.pop()
        for decoder in self.decoders:
            x = decoder(x, skips.pop())
        outputs: Tensor = self.final_conv(x)
        return outputs
