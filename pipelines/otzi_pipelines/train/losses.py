"""What training makes small: sums over the voxels of which something is known.

A mean is such a sum divided by `known_weight`, both over all crops of a step, wherever they are
computed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from otzi.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from otzi.networks.heads import Head
    from otzi.networks.network import Network
    from otzi_pipelines.train.settings import LossName

__all__ = [
    "HEADS",
    "adaptive_wing",
    "check_head",
    "cross_entropy",
    "known_weight",
    "loss_sum",
]

HEADS: dict[LossName, tuple[Head, ...]] = {
    "cross-entropy": ("softmax",),
    "bce": ("sigmoid", "softmax", "normalised-relu"),
    "mse": ("none", "sigmoid", "softmax", "normalised-relu"),
    "adaptive-wing": ("sigmoid", "softmax", "normalised-relu", "none"),
}
"""Which heads each loss goes with; the first where the settings name none."""

_OMEGA, _EPSILON, _ALPHA, _THETA = 14.0, 1.0, 2.1, 0.5


def check_head(loss: LossName, head: Head) -> None:
    """Check that a loss and a head go together.

    Raises
    ------
    ConfigurationError
        If they do not.
    """
    if head not in HEADS[loss]:
        raise ConfigurationError(
            f"loss {loss!r} does not go with network.head {head!r}: choose one of "
            f"{', '.join(HEADS[loss])}"
        )


def loss_sum(
    loss: LossName,
    network: Network,
    outputs: Tensor,
    target: Tensor,
    class_weights: Tensor | None = None,
) -> Tensor:
    """Give a loss of the outputs of a network, summed over all known voxels, a scalar.

    Parameters
    ----------
    loss, network
        Which go together, see `check_head`.
    outputs
        ``(b, outputs, z, y, x)``, from the last layer.
    target
        ``(b, c, z, y, x)`` float, probabilities; all zero where nothing is known.
    class_weights
        ``(c,)`` float; a voxel counts by the weight of its class.
    """
    outputs = outputs.float()
    if loss == "cross-entropy":
        return cross_entropy(outputs, target, class_weights)
    if loss == "bce" and network.config.head == "sigmoid":
        error: Callable[[Tensor, Tensor], Tensor] = _bce_with_logits
        return _regression(error, outputs, target, class_weights)
    error = {"bce": _bce, "mse": _squared, "adaptive-wing": adaptive_wing}[loss]
    return _regression(error, network.activate(outputs), target, class_weights)


def known_weight(target: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """Give how much all known voxels count together, a scalar: their number, or their weights."""
    return _weighted(target, class_weights).sum()


def cross_entropy(logits: Tensor, target: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """Give the cross-entropy summed over all known voxels, a scalar in nats.

    Parameters
    ----------
    logits
        ``(b, c, z, y, x)`` float.
    target, class_weights
        As of `loss_sum`.
    """
    return -(_weighted(target, class_weights) * torch.log_softmax(logits, dim=1)).sum()


def _regression(
    error: Callable[[Tensor, Tensor], Tensor],
    shares: Tensor,
    target: Tensor,
    class_weights: Tensor | None = None,
) -> Tensor:
    """Give an error, mean over the channels, summed over all known voxels, a scalar.

    Parameters
    ----------
    error
        Of shares and target, voxel by voxel.
    shares
        ``(b, c, z, y, x)`` float; or one channel, that of the second of two classes.
    target, class_weights
        As of `loss_sum`.
    """
    voxel_weights = _weighted(target, class_weights).sum(dim=1)
    if shares.shape[1] == 1:
        target = target[:, 1:]
    return (error(shares, target).mean(dim=1) * voxel_weights).sum()


def adaptive_wing(shares: Tensor, target: Tensor) -> Tensor:
    """Give the adaptive wing loss of every element, of the same shape.

    Wang et al. 2019 (arXiv:1904.07399), ω = 14, ε = 1, α = 2.1, θ = 0.5. The two branches meet at
    an error of θ in value and in slope.
    """
    error = (shares - target).abs()
    power = _ALPHA - target
    ratio = _THETA / _EPSILON
    slope = _OMEGA / (1 + ratio**power) * power * ratio ** (power - 1) / _EPSILON
    offset = _THETA * slope - _OMEGA * torch.log1p(ratio**power)
    # Clipped, so that the branch not taken has a finite gradient, too.
    small = _OMEGA * torch.log1p((error.clamp(max=_THETA) / _EPSILON) ** power)
    return torch.where(error < _THETA, small, slope * error - offset)


def _weighted(target: Tensor, class_weights: Tensor | None) -> Tensor:
    if class_weights is None:
        return target
    return target * class_weights.view(1, -1, *[1] * (target.ndim - 2))


def _bce_with_logits(logits: Tensor, target: Tensor) -> Tensor:
    return functional.binary_cross_entropy_with_logits(logits, target, reduction="none")


def _bce(shares: Tensor, target: Tensor) -> Tensor:
    return functional.binary_cross_entropy(shares, target, reduction="none")


def _squared(shares: Tensor, target: Tensor) -> Tensor:
    return (shares - target) ** 2
