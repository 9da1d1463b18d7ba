"""A batch norm over the crops of all processes that train one network together.

The one of torch sees those of its own process only, and `torch.nn.SyncBatchNorm` needs a GPU.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["BatchNorm", "Together", "train_together"]

_AXES = (0, 2, 3, 4)


class Together(Protocol):
    """The processes that train together; each has as many crops, and they compute in step."""

    @property
    def size(self) -> int:
        """How many they are."""
        ...

    def mean(self, tensor: Tensor) -> Tensor:
        """Give the mean of what all processes have; nothing flows back through it."""
        ...


class BatchNorm(nn.BatchNorm3d):
    """That of torch, until `train_together` tells it of other processes."""

    team: Together | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Give ``(b, c, z, y, x)``; in training each channel has mean 0 and sd 1 over all crops."""
        if self.team is None or not self.training:
            return super().forward(x)
        mean, variance = _moments(x.detach(), self.team)
        self._remember(mean, variance, x.numel() // x.shape[1] * self.team.size)
        normalised: Tensor = _Normalised.apply(  # type: ignore[no-untyped-call]
            x, self.weight, self.bias, mean, variance, self.eps, self.team
        )
        return normalised

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor, n_voxels: int) -> None:
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        unbiased = variance * (n_voxels / max(n_voxels - 1, 1))
        for kept, seen in ((self.running_mean, mean), (self.running_var, unbiased)):
            kept.lerp_(seen, self.momentum)  # type: ignore[union-attr, arg-type]


def train_together(network: nn.Module, team: Together) -> int:
    """Have the batch norms of a network see the crops of all processes; give how many there are."""
    norms = [module for module in network.modules() if isinstance(module, BatchNorm)]
    for norm in norms:
        norm.team = team
    return len(norms)


def _moments(x: Tensor, team: Together) -> tuple[Tensor, Tensor]:
    """Give mean and variance over the crops of all processes, ``(c,)`` float32 each."""
    variance, mean = (m.double() for m in torch.var_mean(x.float(), _AXES, correction=0))
    mean, square = team.mean(torch.stack([mean, variance + mean.square()]))
    return mean.float(), (square - mean.square()).clamp(min=0).float()


class _Normalised(torch.autograd.Function):
    """What the mean and variance of all crops make of those of this process.

    On the way back the loss is the sum of those of all processes: every one of them depends on each
    crop by the mean and the variance (Ioffe and Szegedy 2015, arXiv:1502.03167, section 3).
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        mean: Tensor,
        variance: Tensor,
        eps: float,
        team: Together,
    ) -> Tensor:
        ctx.save_for_backward(x, weight, mean, variance)
        ctx.eps, ctx.team = eps, team
        return functional.batch_norm(x, mean, variance, weight, bias, eps=eps)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, variance = ctx.saved_tensors
        gradient = gradients[0].float()
        scale = torch.rsqrt(variance + ctx.eps)
        normalised = functional.batch_norm(x.float(), mean, variance, eps=ctx.eps)
        of_bias = gradient.sum(_AXES)
        of_weight = (gradient * normalised).sum(_AXES)
        n_voxels = x.numel() // x.shape[1]
        shift, slope = (
            _spread(m) for m in ctx.team.mean(torch.stack([of_bias, of_weight]) / n_voxels)
        )
        of_x = (gradient - shift - normalised * slope) * _spread(weight * scale)
        return of_x.to(x.dtype), of_weight, of_bias, None, None, None, None


def _spread(values: Tensor) -> Tensor:
    """Give ``(c,)`` as it multiplies ``(b, c, z, y, x)``."""
    return values.view(-1, 1, 1, 1)
