"""Norms whose statistics are those of whole volumes.

A batch norm remembers a running mean over the crops it was trained on, which are drawn so that rare
classes are seen often: no volume has such statistics. Here they are measured over tiles that cover
volumes, once training is done, after Wu and Johnson 2021 (arXiv:2105.07576).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from otzi.networks.batch_norm import BatchNorm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["VolumeNorm", "measure_statistics"]


class VolumeNorm(BatchNorm):
    """A batch norm whose statistics are to be measured."""


def measure_statistics(
    network: nn.Module, tiles: Callable[[], Iterable[Tensor]], *, rounds: int = 3
) -> None:
    """Give each `VolumeNorm` of a network the mean and variance of all that it sees of the tiles.

    What a norm sees depends on those before it: after n rounds the first n are exact, and the
    others follow from nearly the same. Other modules are left as they are.

    Parameters
    ----------
    network
        It is changed.
    tiles
        Yields ``(b, c, z, y, x)`` float32, normalised, where the network is; asked once a round.
        Tiles that cover volumes without overlap give the statistics of these.
    rounds
        Times that all tiles are seen.
    """
    norms = [module for module in network.modules() if isinstance(module, VolumeNorm)]
    if not norms:
        return
    was_training = network.training
    network.eval()
    try:
        for _ in range(rounds):
            _one_round(network, norms, tiles())
    finally:
        network.train(was_training)


@torch.no_grad()
def _one_round(network: nn.Module, norms: list[VolumeNorm], tiles: Iterable[Tensor]) -> None:
    sums = {norm: _Moments(norm.num_features) for norm in norms}

    def see(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        sums[norm].add(inputs[0])  # type: ignore[index]

    hooks = [norm.register_forward_pre_hook(see) for norm in norms]
    try:
        for tile in tiles:
            network(tile)
    finally:
        for hook in hooks:
            hook.remove()
    for norm, moments in sums.items():
        if moments.n_voxels:
            mean, variance = moments.result()
            norm.running_mean.copy_(mean)  # type: ignore[union-attr]
            norm.running_var.copy_(variance)  # type: ignore[union-attr]


class _Moments:
    """Sums over voxels, in float64: tiles may be in any order."""

    def __init__(self, n_channels: int) -> None:
        self.n_voxels = 0
        self.sums = torch.zeros(2, n_channels, dtype=torch.float64)

    def add(self, features: Tensor) -> None:
        values = features.detach().double()
        axes = (0, 2, 3, 4)
        self.n_voxels += values.numel() // values.shape[1]
        self.sums += torch.stack([values.sum(axes), values.square().sum(axes)]).cpu()

    def result(self) -> tuple[Tensor, Tensor]:
        """Give mean and variance, ``(c,)`` each."""
        mean, square = self.sums / self.n_voxels
        return mean, (square - mean.square()).clamp(min=0)
