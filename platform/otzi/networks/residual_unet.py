"""A residual symmetric 3-D U-Net, all of it.

After Lee et al. 2017 (arXiv:1706.00120): residual blocks, and skips that are added, so that the
way down and the way up are mirror images. Sections are thicker than pixels, or a wedge is missing:
kernels may be flatter in z, and z need not be pooled. The raw volume comes normalised as a whole,
and no norm sees it: a norm over the voxels of one tile takes away the contrast between tiles, and
shows as seams.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from otzi.errors import ConfigurationError
from otzi.networks.heads import Head, n_outputs
from otzi.networks.layers import Norm, norm
from otzi.networks.names import RESIDUAL_UNET
from otzi.networks.network import Network, check_config
from otzi.normalise import ROBUST
from otzi.settings import STRICT

if TYPE_CHECKING:
    from otzi.box import Zyx

__all__ = ["ResidualBlock", "ResidualSymmetricUNet", "ResidualSymmetricUNetConfig"]


@dataclass(frozen=True, slots=True)
class ResidualSymmetricUNetConfig:
    """What the network is made of."""

    __pydantic_config__ = STRICT
    architecture: ClassVar[str] = RESIDUAL_UNET
    density_normalisation: ClassVar[str] = ROBUST

    n_classes: int
    in_channels: int = 1
    width: int = 16
    """Channels of the finest level; each coarser level has twice as many."""
    levels: int = 4
    """Resolutions, the finest included."""
    kernel: tuple[int, int, int] = (3, 3, 3)
    """Of every convolution in a block, z, y, x; odd. As published: (5, 7, 7)."""
    pool: tuple[int, int, int] = (2, 2, 2)
    """By how much each level is coarser, z, y, x, 1 or 2; (1, 2, 2) keeps all of z."""
    normalisation: Norm = "batch"
    head: Head = "softmax"
    checkpointing: bool = False
    """Compute blocks again on the way back, to save memory; changes nothing of the result."""

    def __post_init__(self) -> None:
        check_config(self)
        if not set(self.pool) <= {1, 2}:
            raise ConfigurationError(f"pool {self.pool} must be 1 or 2 on each axis")

    @property
    def outputs(self) -> int:
        """Channels of the last layer."""
        return n_outputs(self.n_classes, self.head)

    @property
    def size_multiples(self) -> Zyx:
        """What the sides of a tile are multiples of, in voxels, z, y, x."""
        z, y, x = (int(factor ** (self.levels - 1)) for factor in self.pool)
        return z, y, x

    @property
    def size_multiple(self) -> int:
        """What all sides of a tile may be multiples of, in voxels."""
        return max(self.size_multiples)

    @property
    def working_channels(self) -> int:
        """Full-resolution float32 channels that inference takes at its peak, measured."""
        # Peak of one tile of 128³ in all, torch 2.13 on a CPU, 4 classes: 501 MB (width 8), 753 MB
        # (16); of 96³ 694 MB (32), 389 MB (16, pool (1, 2, 2)), 369 MB (16, group norms).
        # `otzi.tiles.infer` adds 100 MB for what is not of the tile.
        return 6 * self.width + 3 * self.n_classes

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level, finest first."""
        return tuple(self.width * 2**level for level in range(self.levels))

    def for_classes(self, n_classes: int, head: Head | None = None) -> ResidualSymmetricUNetConfig:
        """Give the same network with another last layer."""
        return replace(self, n_classes=n_classes, head=head or self.head)


class ResidualBlock(nn.Module):
    """Three convolutions; what the last two find is added to what the first one made."""

    def __init__(
        self, in_channels: int, channels: int, config: ResidualSymmetricUNetConfig
    ) -> None:
        super().__init__()

        def convolution(channels_in: int) -> nn.Conv3d:
            return nn.Conv3d(channels_in, channels, config.kernel, padding="same", bias=False)

        self.project = convolution(in_channels)
        self.norm1 = norm(config.normalisation, channels)
        self.convolution1 = convolution(channels)
        self.norm2 = norm(config.normalisation, channels)
        self.convolution2 = convolution(channels)
        self.norm3 = norm(config.normalisation, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Give ``(b, channels, z, y, x)`` for ``(b, in_channels, z, y, x)``."""
        x = torch.relu_(self.norm1(self.project(x)))
        residual = self.convolution1(x)
        residual = torch.relu_(self.norm2(residual))
        residual = self.norm3(self.convolution2(residual))
        return torch.relu_(residual + x)


class ResidualSymmetricUNet(Network):
    """The network."""

    config: ResidualSymmetricUNetConfig

    def __init__(self, config: ResidualSymmetricUNetConfig) -> None:
        super().__init__(config)
        widths = config.widths
        self.encoders = nn.ModuleList(
            ResidualBlock(before, width, config)
            for before, width in zip((config.in_channels, *widths), widths, strict=False)
        )
        self.pool = nn.MaxPool3d(config.pool)
        coarse_to_fine = list(zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.upsamplers = nn.ModuleList(
            nn.ConvTranspose3d(coarse, fine, kernel_size=config.pool, stride=config.pool)
            for coarse, fine in coarse_to_fine
        )
        self.decoders = nn.ModuleList(
            ResidualBlock(fine, fine, config) for _, fine in coarse_to_fine
        )
        self.head = nn.Conv3d(config.width, config.outputs, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """Give the outputs of a batch of tiles.

        Parameters
        ----------
        x
            ``(b, in_channels, z, y, x)`` float32, normalised; sides multiples of `size_multiples`.

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
        skips: list[Tensor] = []
        for level, encoder in enumerate(self.encoders):
            # (b, width · 2^level, z / pool^level, …)
            x = self.through(encoder, self.pool(x) if level else x)
            skips.append(x)
        skips.pop()
        for upsample, decoder in zip(self.upsamplers, self.decoders, strict=True):
            # Back to the shape of the skip, which is added.
            x = self.through(decoder, upsample(x).add_(skips.pop()))
        outputs: Tensor = self.head(x)
        return outputs

    def initialise(self, generator: torch.Generator) -> None:
        """Draw all weights anew; residual branches begin at zero."""
        super().initialise(generator)
        for module in self.modules():
            if isinstance(module, ResidualBlock):
                nn.init.zeros_(module.norm3.weight)  # type: ignore[arg-type]
