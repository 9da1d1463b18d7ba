"""The architectures by name, as cards and settings say them; without torch."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ARCHITECTURES", "DENSE_NET", "NANO_OETZI", "RESIDUAL_UNET", "UNET"]

UNET = "unet"
RESIDUAL_UNET = "residual-unet"
DENSE_NET = "dense-net"
NANO_OETZI = "nano-oetzi"

ARCHITECTURES: Mapping[str, str] = MappingProxyType(
    {
        UNET: "3-D U-Net: two convolutions a level, skips concatenated",
        RESIDUAL_UNET: "residual symmetric U-Net: three convolutions a level, skips added",
        DENSE_NET: "skip-connected 3-D DenseNet: four dense blocks, each upsampled to full size",
        NANO_OETZI: "the network of the published Nano-Ötzi models, names as in their checkpoints",
    }
)
"""Each with one line for people."""
