"""What training makes small."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["cross_entropy"]


def cross_entropy(logits: Tensor, target: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """Give the mean cross-entropy over all labelled voxels, a scalar in nats.

    Where nothing is labelled it is 0, and so is its gradient.

    Parameters
    ----------
    logits
        ``(b, c, z, y, x)`` float.
    target
        ``(b, c, z, y, x)`` float, probabilities; all zero where nothing is known.
    class_weights
        ``(c,)`` float; a voxel counts by the weight of its class, and the mean is over weights.
    """
    weighted = target
    if class_weights is not None:
        weighted = target * class_weights.view(1, -1, *[1] * (target.ndim - 2))
    surprise = -(weighted * torch.log_softmax(logits, dim=1)).sum()
    total = weighted.sum()
    return surprise / torch.where(total > 0, total, 1)
