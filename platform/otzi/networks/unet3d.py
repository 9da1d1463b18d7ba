"""A 3-D U-Net, all of it.

After Çiçek et al. 2016 (arXiv:1606.06650): two convolutions a level, each with norm and ReLU, and
skips that are concatenated. The raw volume comes normalised as a whole, and no norm sees it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from otzi.networks.heads import Head, n_outputs
from otzi.networks.layers import Norm, norm
from otzi.networks.names import UNET
from otzi.networks.network import Network, check_config
from otzi.normalise import ROBUST
from otzi.settings import STRICT

if TYPE_CHECKING:
    from otzi.box import Zyx

__all__ = ["UNet3D", "UNet3DConfig"]


@dataclass(frozen=True, slots=True)
class UNet3DConfig:
    """What the network is made of."""

    __pydantic_config__ = STRICT
    architecture: ClassVar[str] = UNET
    density_normalisation: ClassVar[str] = ROBUST

    n_classes: int
    in_channels: int = 1
    width: int = 16
    """Channels of the finest level; each coarser level has twice as many."""
    levels: int = 4
    """Resolutions, the finest included."""
    kernel: tuple[int, int, int] = (3, 3, 3)
    """Of every convolution in a block, z, y, x; odd."""
    normalisation: Norm = "batch"
    head: Head = "softmax"
    checkpointing: bool = False
    """Compute blocks again on the way back, to save memory; changes nothing of the result."""

    def __post_init__(self) -> None:
        check_config(self)

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
        # Peak of one tile of 128³ in all, torch 2.13 on a CPU, 4 classes: 560 MB (width 8), 795 MB
        # (16); of 96³ 734 MB (32). `otzi.tiles.infer` adds 100 MB for what is not of the tile.
        return 6 * self.width + 3 * self.n_classes

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level, finest first."""
        return tuple(self.width * 2**level for level in range(self.levels))

    def for_classes(self, n_classes: int, head: Head | None = None) -> UNet3DConfig:
        """Give the same network with another last layer."""
        return replace(self, n_classes=n_classes, head=head or self.head)


def _block(before: int, channels: int, config: UNet3DConfig) -> nn.Sequential:
    """Give two convolutions, each with norm and ReLU."""
    layers: list[nn.Module] = []
    for channels_in in (before, channels):
        layers += [
            nn.Conv3d(channels_in, channels, config.kernel, padding="same", bias=False),
            norm(config.normalisation, channels),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)


class UNet3D(Network):
    """The network."""

    def __init__(self, config: UNet3DConfig) -> None:
        super().__init__(config)
        widths = config.widths
        self.encoders = nn.ModuleList(
            _block(before, width, config)
            for before, width in zip((config.in_channels, *widths), widths, strict=False)
        )
        self.pool = nn.MaxPool3d(2)
        coarse_to_fine = list(zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.upsamplers = nn.ModuleList(
            nn.ConvTranspose3d(coarse, fine, kernel_size=2, stride=2)
            for coarse, fine in coarse_to_fine
        )
        self.decoders = nn.ModuleList(_block(2 * fine, fine, config) for _, fine in coarse_to_fine)
        self.head = nn.Conv3d(config.width, config.outputs, kernel_size=1)

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
        skips: list[Tensor] = []
        for level, encoder in enumerate(self.encoders):
            # (b, width · 2^level, z / 2^level, …)
            x = self.through(encoder, self.pool(x) if level else x)
            skips.append(x)
        skips.pop()
        for upsample, decoder in zip(self.upsamplers, self.decoders, strict=True):
            # Back to the shape of the skip, which is set beside it: twice the channels.
            x = self.through(decoder, torch.cat([skips.pop(), upsample(x)], dim=1))
        outputs: Tensor = self.head(x)
        return outputs
