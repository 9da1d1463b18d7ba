"""Norms of features, and blocks that keep nothing for the way back."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from math import gcd
from typing import TYPE_CHECKING, Literal

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from otzi.networks.batch_norm import BatchNorm
from otzi.networks.volume_norm import VolumeNorm

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Norm", "norm", "recomputing"]

Norm = Literal["batch", "group", "volume"]
"""How features are normalised.

``batch``: by statistics remembered from training, the same for all tiles. ``volume``: the same, but
measured over whole volumes, see `otzi.networks.volume_norm`. ``group``: by the tile's own, for
batches of one; contrast between tiles is lost, and shows as seams.
"""

_GROUPS = 8


def norm(kind: Norm, channels: int) -> nn.Module:
    """Give the layer that normalises ``(b, channels, z, y, x)``."""
    if kind == "group":
        return nn.GroupNorm(gcd(_GROUPS, channels), channels)
    return VolumeNorm(channels) if kind == "volume" else BatchNorm(channels)


def recomputing(block: nn.Module, x: Tensor) -> Tensor:
    """Give ``block(x)``, of which only the input is kept for the way back.

    There the block is computed once more. Statistics that norms remember are updated only the
    first time.
    """
    # Peak of a step with one crop of 128³, width 16, torch 2.13 on a CPU: residual U-Net 2.5 GB
    # without, 1.5 GB with it; U-Net 2.0 and 1.4 GB; DenseNet 4.5 and 3.1 GB.
    features: Tensor = checkpoint(
        block,
        x,
        use_reentrant=False,
        context_fn=lambda: (nullcontext(), _statistics_held(block)),
    )
    return features


@contextmanager
def _statistics_held(block: nn.Module) -> Iterator[None]:
    norms = [module for module in block.modules() if isinstance(module, BatchNorm)]
    before = [(norm, norm.momentum) for norm in norms]
    counted = [norm.num_batches_tracked for norm in norms]
    try:
        for norm in norms:
            norm.momentum = 0.0
            norm.num_batches_tracked = None
        yield
    finally:
        for (norm, momentum), count in zip(before, counted, strict=True):
            norm.momentum = momentum
            norm.num_batches_tracked = count
