"""A residual symmetric 3-D U-Net, all of it.

After Lee et al. 2017 (arXiv:1706.00120): residual blocks, and skips that are added, so that the
way down and the way up are mirror images. The raw volume comes normalised as a whole, and inside
are batch norms, whose statistics are fixed after training: a norm over the voxels of one tile takes
away the contrast between tiles, and shows as seams.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from otzi.errors import ConfigurationError, UsageError
from otzi.settings import STRICT

__all__ = ["ResidualBlock", "UNet", "UNetConfig"]


@dataclass(frozen=True, slots=True)
class UNetConfig:
    """What the network is made of."""

    __pydantic_config__ = STRICT

    n_classes: int
    in_channels: int = 1
    width: int = 16
    """Channels of the finest level; each coarser level has twice as many."""
    levels: int = 4
    """Resolutions, the finest included: sides are multiples of ``2**(levels - 1)``."""
    kernel: tuple[int, int, int] = (3, 3, 3)
    """Of every convolution in a block, z, y, x; odd."""

    def __post_init__(self) -> None:
        if self.n_classes < 2 or self.in_channels < 1:
            raise ConfigurationError(
                f"n_classes {self.n_classes} must be at least 2, in_channels {self.in_channels} "
                "at least 1"
            )
        if not 1 <= self.levels <= 8:
            raise ConfigurationError(f"levels {self.levels} must be 1 to 8")
        if self.width < 1:
            raise ConfigurationError(f"width {self.width} must be at least 1")
        if any(k < 1 or k % 2 == 0 for k in self.kernel):
            raise ConfigurationError(f"kernel {self.kernel} must be odd on each axis")

    @property
    def size_multiple(self) -> int:
        """What the sides of a tile are multiples of, in voxels."""
        return int(2 ** (self.levels - 1))

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level, finest first."""
        return tuple(self.width * 2**level for level in range(self.levels))


class ResidualBlock(nn.Module):
    """Three convolutions; what the last two find is added to what the first one made."""

    def __init__(self, in_channels: int, channels: int, config: UNetConfig) -> None:
        super().__init__()

        def convolution(channels_in: int) -> nn.Conv3d:
            return nn.Conv3d(channels_in, channels, config.kernel, padding="same", bias=False)

        def norm() -> nn.BatchNorm3d:
            return nn.BatchNorm3d(channels)

        self.project = convolution(in_channels)
        self.norm1 = norm()
        self.convolution1 = convolution(channels)
        self.norm2 = norm()
        self.convolution2 = convolution(channels)
        self.norm3 = norm()

    def forward(self, x: Tensor) -> Tensor:
        """Give ``(b, channels, z, y, x)`` for ``(b, in_channels, z, y, x)``."""
        x = torch.relu_(self.norm1(self.project(x)))
        residual = self.convolution1(x)
        residual = torch.relu_(self.norm2(residual))
        residual = self.norm3(self.convolution2(residual))
        return torch.relu_(residual + x)


class UNet(nn.Module):
    """The network: a tile in, one logit for each class and voxel out."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        widths = config.widths
        self.encoders = nn.ModuleList(
            ResidualBlock(before, width, config)
            for before, width in zip((config.in_channels, *widths), widths, strict=False)
        )
        self.pool = nn.MaxPool3d(2)
        coarse_to_fine = list(zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.upsamplers = nn.ModuleList(
            nn.ConvTranspose3d(coarse, fine, kernel_size=2, stride=2)
            for coarse, fine in coarse_to_fine
        )
        self.decoders = nn.ModuleList(
            ResidualBlock(fine, fine, config) for _, fine in coarse_to_fine
        )
        self.head = nn.Conv3d(config.width, config.n_classes, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """Give the logits of a batch of tiles.

        Parameters
        ----------
        x
            ``(b, in_channels, z, y, x)`` float32, normalised; sides multiples of `size_multiple`.

        Returns
        -------
        Tensor
            ``(b, n_classes, z, y, x)`` float32.

        Raises
        ------
        UsageError
            If the sides are no such multiples.
        """
        _b, _c, *sides = x.shape
        if any(side % self.config.size_multiple for side in sides):
            raise UsageError(
                f"a tile of {tuple(sides)} voxels does not fit {self.config.levels} levels: take "
                f"multiples of {self.config.size_multiple}"
            )
        skips: list[Tensor] = []
        for level, encoder in enumerate(self.encoders):
            x = encoder(self.pool(x) if level else x)
            skips.append(x)
        skips.pop()
        for upsample, decoder in zip(self.upsamplers, self.decoders, strict=True):
            x = decoder(upsample(x).add_(skips.pop()))
        logits: Tensor = self.head(x)
        return logits

    def probabilities(self, x: Tensor) -> Tensor:
        """Give ``(b, n_classes, z, y, x)`` in [0, 1], summing to 1 over the classes."""
        return torch.softmax(self(x), dim=1)

    def initialise(self, generator: torch.Generator) -> None:
        """Draw all weights anew: He et al. 2015 (arXiv:1502.01852), residual branches at zero."""
        for module in self.modules():
            if isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, ResidualBlock):
                nn.init.zeros_(module.norm3.weight)
