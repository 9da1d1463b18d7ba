"""A batch norm of several processes is that of one which has the crops of all."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

from otzi.networks.batch_norm import BatchNorm, train_together
from otzi.networks.layers import recomputing
from test_architectures import OWN, tile, tiny

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

N_TOGETHER = 3


class Threads:
    """Threads that wait for each other as processes do."""

    def __init__(self) -> None:
        self.size = N_TOGETHER
        self._said: list[Tensor] = []
        self._barrier = Barrier(self.size)

    def mean(self, tensor: Tensor) -> Tensor:
        if self._barrier.wait(timeout=60) == 0:
            self._said.clear()
        self._barrier.wait(timeout=60)
        self._said.append(tensor.detach())
        self._barrier.wait(timeout=60)
        return torch.stack(self._said).mean(0)


def step(network: nn.Module, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Give the outputs of a step, and the gradient of x of a loss that is a sum."""
    x = x.clone().requires_grad_()
    outputs = network(x)
    (outputs.float().square() * weight).sum().backward()
    assert x.grad is not None
    return outputs.detach(), x.grad


def steps_together(
    networks: Sequence[nn.Module], x: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor]:
    """Give the same of networks that have a share of the crops each, put together again."""
    team = Threads()
    for network in networks:
        assert train_together(network, team) > 0
    shares = zip(networks, x.chunk(N_TOGETHER), weight.chunk(N_TOGETHER), strict=True)
    with ThreadPoolExecutor(N_TOGETHER) as pool:
        outputs, gradients = zip(*pool.map(lambda share: step(*share), shares), strict=True)
    return torch.cat(outputs), torch.cat(gradients)


class Block(nn.Module):
    """A norm that is computed again on the way back."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = norm()

    def forward(self, x: Tensor) -> Tensor:
        return recomputing(self.norm, x)


def norm() -> BatchNorm:
    made = BatchNorm(4)
    with torch.no_grad():
        made.weight.copy_(torch.tensor([0.5, 1, -2, 3]))
        made.bias.copy_(torch.tensor([0, 1, 2, -3]))
    return made


def crops(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Give crops that differ much from each other, and what their voxels count in the loss."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(6, 4, 3, 4, 5, generator=generator)
    x = x * torch.arange(1, 7).view(6, 1, 1, 1, 1) + 100 * torch.arange(4).view(4, 1, 1, 1)
    return x.to(dtype), torch.rand(6, 1, 3, 4, 5, generator=generator)


@pytest.mark.parametrize("make", [norm, Block])
def test_each_sees_the_crops_of_all(make: type[nn.Module]) -> None:
    x, weight = crops()
    alone, members = make(), [make() for _ in range(N_TOGETHER)]
    expected, gradient = step(alone, x, weight)
    found, found_gradient = steps_together(members, x, weight)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found_gradient, gradient, rtol=1e-4, atol=1e-4)
    for name, parameter in alone.named_parameters():
        total = sum(dict(member.named_parameters())[name].grad for member in members)
        torch.testing.assert_close(total, parameter.grad, rtol=1e-4, atol=1e-2)
    for member in members:
        for name, kept in alone.named_buffers():
            found_buffer = dict(member.named_buffers())[name]
            torch.testing.assert_close(found_buffer, kept, rtol=1e-5, atol=1e-6)


def test_in_16_bit_the_statistics_are_not() -> None:
    x, weight = crops(torch.bfloat16)
    expected, gradient = step(norm(), x.float(), weight)
    members = [norm() for _ in range(N_TOGETHER)]
    found, found_gradient = steps_together(members, x, weight)
    assert found.dtype == found_gradient.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), expected, rtol=2e-2, atol=2e-2)
    torch.testing.assert_close(found_gradient.float(), gradient, rtol=5e-2, atol=5e-2)
    assert members[0].running_var.dtype == torch.float32


@pytest.mark.parametrize("architecture", OWN)
def test_networks_learn_together_what_one_learns(architecture: str) -> None:
    x = torch.cat([tile(1, 1, 8, 8, 8, seed=i) * (1 + i) for i in range(N_TOGETHER)])
    alone, *members = (tiny(architecture).train() for _ in range(1 + N_TOGETHER))
    weight = torch.ones(N_TOGETHER, 1, 1, 1, 1)
    expected, gradient = step(alone, x, weight)
    found, found_gradient = steps_together(members, x, weight)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(found_gradient, gradient, rtol=1e-3, atol=1e-2)


def test_in_evaluation_nobody_waits() -> None:
    member, alone = norm().eval(), norm().eval()
    train_together(member, Threads())
    x, _ = crops()
    assert torch.equal(member(x), alone(x))


def test_norms_of_a_crop_by_itself_wait_for_nobody() -> None:
    assert train_together(nn.Sequential(nn.GroupNorm(1, 4), nn.BatchNorm1d(3)), Threads()) == 0
