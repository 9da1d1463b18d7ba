"""A skip-connected 3-D DenseNet, all of it.

After Bui et al. 2019 (Biomedical Signal Processing and Control 54, 101613): dense blocks, each at
half the resolution of the one before, whose features are upsampled straight to full size and
concatenated. Every layer of a block sees the features of all before it (Huang et al. 2017,
arXiv:1608.06993). The raw volume comes normalised as a whole, and no norm sees it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from otzi.errors import ConfigurationError
from otzi.networks.heads import Head, n_outputs
from otzi.networks.layers import Norm, norm
from otzi.networks.names import DENSE_NET
from otzi.networks.network import Network, check_config
from otzi.normalise import ROBUST
from otzi.settings import STRICT

if TYPE_CHECKING:
    from otzi.box import Zyx

__all__ = ["DenseNet3D", "DenseNet3DConfig"]


@dataclass(frozen=True, slots=True)
class DenseNet3DConfig:
    """What the network is made of."""

    __pydantic_config__ = STRICT
    architecture: ClassVar[str] = DENSE_NET
    density_normalisation: ClassVar[str] = ROBUST

    n_classes: int
    in_channels: int = 1
    width: int = 32
    """Channels at full resolution, before the first block."""
    levels: int = 5
    """Resolutions, the finest included: one dense block for each coarser one."""
    kernel: tuple[int, int, int] = (3, 3, 3)
    """Of every convolution that looks around, z, y, x; odd."""
    layers: int = 4
    """Of a dense block."""
    growth: int = 16
    """Channels that a layer adds, and that a block gives to full resolution."""
    normalisation: Norm = "batch"
    head: Head = "softmax"
    checkpointing: bool = False
    """Compute blocks again on the way back, to save memory; changes nothing of the result."""

    def __post_init__(self) -> None:
        check_config(self)
        if self.layers < 1 or self.growth < 1:
            raise ConfigurationError(
                f"layers {self.layers} and growth {self.growth} must be at least 1"
            )

    @property
    def outputs(self) -> int:
        """Channels of the last layer."""
        return n_outputs(self.n_classes, self.head)

    @property
    def size_multiples(self) -> Zyx:
        """What the sides of a tile are multiples of, in voxels, z, y, x."""
        return (self.size_multiple,) * 3

    @property
    def size_multiple(self) -> int:
        """What all sides of a tile are multiples of, in voxels."""
        return int(2 ** (self.levels - 1))

    @property
    def working_channels(self) -> int:
        """Full-resolution float32 channels that inference takes at its peak, measured."""
        # Peak of one tile of 96³ in all, torch 2.13 on a CPU, 4 classes: 683 MB, 574 MB (width 16),
        # 301 MB (width 8, growth 8). `otzi.tiles.infer` adds 100 MB for what is not of the tile.
        together = self.width + (self.levels - 1) * self.growth
        return 2 * together + 3 * self.n_classes

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels that enter each dense block, finest first: half of what left the one before."""
        entering = [self.width]
        for _ in range(self.levels - 2):
            entering.append(max(1, (entering[-1] + self.layers * self.growth) // 2))
        return tuple(entering[: self.levels - 1])

    def for_classes(self, n_classes: int, head: Head | None = None) -> DenseNet3DConfig:
        """Give the same network with another last layer."""
        return replace(self, n_classes=n_classes, head=head or self.head)


class _Unit(nn.Module):
    """Norm, ReLU and convolution, in this order."""

    def __init__(
        self, before: int, channels: int, kernel: Zyx, kind: Norm, *, stride: int = 1
    ) -> None:
        super().__init__()
        self.norm = norm(kind, before)
        z, y, x = (k // 2 for k in kernel)
        self.convolution = nn.Conv3d(before, channels, kernel, stride, (z, y, x), bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Give ``(b, channels, z / stride, …)`` for ``(b, before, z, y, x)``."""
        features: Tensor = self.convolution(torch.relu_(self.norm(x)))
        return features


class _DenseBlock(nn.Module):
    """Half the resolution, then layers that each see all before them."""

    def __init__(self, before: int, channels: int, config: DenseNet3DConfig) -> None:
        super().__init__()
        kernel, kind, growth = config.kernel, config.normalisation, config.growth
        self.enter = _Unit(before, channels, kernel, kind, stride=2)
        self.layers = nn.ModuleList(
            nn.Sequential(
                # A bottleneck of four times the growth, as in Huang et al.
                _Unit(channels + i * growth, 4 * growth, (1, 1, 1), kind),
                _Unit(4 * growth, growth, kernel, kind),
            )
            for i in range(config.layers)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Give ``(b, channels + layers · growth, z / 2, …)`` for ``(b, before, z, y, x)``."""
        x = self.enter(x)
        for layer in self.layers:
            x = torch.cat([x, layer(x)], dim=1)
        return x


class DenseNet3D(Network):
    """The network."""

    def __init__(self, config: DenseNet3DConfig) -> None:
        super().__init__(config)
        kernel, kind, growth = config.kernel, config.normalisation, config.growth
        self.stem = nn.Sequential(
            nn.Conv3d(config.in_channels, config.width, kernel, padding="same", bias=False),
            _Unit(config.width, config.width, kernel, kind),
        )
        leaving = [width + config.layers * growth for width in config.widths]
        self.blocks = nn.ModuleList(
            _DenseBlock(before, width, config)
            for before, width in zip((config.width, *leaving), config.widths, strict=False)
        )
        self.upsamplers = nn.ModuleList(
            nn.Sequential(
                _Unit(channels, growth, (1, 1, 1), kind),
                nn.Upsample(scale_factor=2**level, mode="trilinear"),
            )
            for level, channels in enumerate(leaving, 1)
        )
        together = config.width + len(leaving) * growth
        self.last_norm = norm(kind, together)
        self.head = nn.Conv3d(together, config.outputs, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """Give the outputs of a batch of tiles.

        Parameters
        ----------
        x
            ``(b, in_channels, z, y, x)`` float32, normalised; sides multiples of `size_multiple`.

        Returns
        -------
        Tensor
            ``(b, outputs, z, y, x)`` float32; logits where the head is softmax or sigmoid.

        Raises
        ------
        UsageError
            If the sides are no such multiples.
        """
        self.check_sides(x)
        outputs: Tensor = self.head(torch.relu_(self.last_norm(self._features(x))))
        return outputs

    def _features(self, x: Tensor) -> Tensor:
        """Give those of all resolutions, at full size: ``(b, width + blocks · growth, z, y, x)``.

        A method of its own, so that its parts are let go before the norm.
        """
        x = self.through(self.stem, x)  # (b, width, z, y, x)
        at_full_size = [x]
        for block, upsample in zip(self.blocks, self.upsamplers, strict=True):
            x = self.through(block, x)  # (b, …, z / 2^level, …)
            at_full_size.append(upsample(x))  # (b, growth, z, y, x)
        return torch.cat(at_full_size, dim=1)
