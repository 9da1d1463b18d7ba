"""What the numbers of the last layer mean: shares of classes, and from these probabilities."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

__all__ = ["Head", "NormalisedReLU", "as_probabilities", "n_outputs"]

Head = Literal["softmax", "sigmoid", "normalised-relu", "none"]
"""The activation after the last layer. All but the softmax leave the classes apart, as a regression
of soft labels does."""


def n_outputs(n_classes: int, head: Head) -> int:
    """Give the channels of the last layer: one, of the foreground, for a regression of two."""
    return 1 if n_classes == 2 and head != "softmax" else n_classes


def as_probabilities(shares: Tensor) -> Tensor:
    """Give ``(b, c, z, y, x)`` in [0, 1], summing to 1 over the classes.

    Parameters
    ----------
    shares
        ``(b, c, z, y, x)`` float, what a head gives; one channel is the foreground of two classes.
        Outside [0, 1] they are clipped; where all are 0, nothing is known and all classes are
        alike. What is no number stays so.
    """
    shares = shares.clamp(0, 1)
    if shares.shape[1] == 1:
        return torch.cat([1 - shares, shares], dim=1)
    total = shares.sum(dim=1, keepdim=True)
    return torch.where(total == 0, 1 / shares.shape[1], shares / total)


class NormalisedReLU(nn.Module):
    """What is above zero, as a share of the largest (Gros et al. 2021, arXiv:2011.09041).

    In training the largest is that of the tile. What is remembered of it serves in evaluation, so
    that tiles do not differ.
    """

    _MOMENTUM = 0.1
    _LEAST = 1e-6

    def __init__(self) -> None:
        super().__init__()
        self.maximum: Tensor
        self.register_buffer("maximum", torch.ones(()))

    def forward(self, outputs: Tensor) -> Tensor:
        """Give ``(b, c, z, y, x)`` in [0, 1]."""
        positive = torch.relu(outputs)
        if not self.training:
            return (positive / self.maximum).clamp(max=1)
        maximum = positive.amax(dim=(1, 2, 3, 4), keepdim=True).clamp(min=self._LEAST)
        with torch.no_grad():
            self.maximum.lerp_(maximum.mean().to(self.maximum), self._MOMENTUM)
        return positive / maximum
