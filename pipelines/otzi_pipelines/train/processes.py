"""The processes that train one network together, as ``torchrun`` starts them.

Each computes its share of every batch, and what they found is summed: the gradient is that of the
whole batch, however many they are. The first one alone writes and speaks.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import torch
    from torch import Tensor

__all__ = ["ALONE", "Team", "is_first", "together"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Team:
    """A process among those that train together."""

    rank: int = 0
    size: int = 1

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """Give the items that are this process's: each item is one process's."""
        return items[self.rank :: self.size]

    def add(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors, of one dtype and device, by their sums over all processes."""
        if self.size == 1:
            return
        import torch
        from torch import distributed

        flat = torch.cat([tensor.flatten() for tensor in tensors])
        distributed.all_reduce(flat)
        parts = torch.split(flat, [tensor.numel() for tensor in tensors])
        for tensor, total in zip(tensors, parts, strict=True):
            tensor.copy_(total.view(tensor.shape))

    def mean(self, tensor: Tensor) -> Tensor:
        """Give the mean of what all processes have; nothing flows back through it."""
        total = tensor.detach().clone()
        self.add([total])
        return total / self.size

    def gather(self, value: T) -> list[T]:
        """Give what all processes have said, in the order of their ranks."""
        if self.size == 1:
            return [value]
        from torch import distributed

        said: list[Any] = [None] * self.size
        distributed.all_gather_object(said, value)
        return said


ALONE = Team()
"""A process that trains by itself."""


def is_first() -> bool:
    """Tell whether this process is the one that writes and speaks."""
    return int(os.environ.get("RANK", "0")) == 0 if _is_launched() else True


@contextmanager
def together(device: torch.device) -> Iterator[tuple[Team, torch.device]]:
    """Join the others, if ``torchrun`` started this process; give the team and the own device.

    They speak by NCCL between GPUs, one for each process, and by Gloo otherwise.
    """
    if not _is_launched():
        yield ALONE, device
        return
    import torch
    from torch import distributed

    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Team(distributed.get_rank(), distributed.get_world_size()), device
        distributed.barrier()  # whoever leaves earlier would take the others' connections along
    finally:
        distributed.destroy_process_group()


def _is_launched() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ
