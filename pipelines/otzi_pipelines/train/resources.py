"""What a step takes of its device: the type of its products, and memory, or what to lower."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from otzi.errors import MemoryBudgetError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otzi_pipelines.train.settings import TrainSettings

__all__ = ["enough_memory", "precision_of"]


def precision_of(settings: TrainSettings, device: torch.device) -> torch.dtype:
    """Give the type of products: float32, or 16 bit that the device computes with."""
    is_gpu = device.type == "cuda"
    if settings.precision == "full" or (settings.precision == "auto" and not is_gpu):
        return torch.float32
    if is_gpu and not torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.float16
    return torch.bfloat16


@contextmanager
def enough_memory(settings: TrainSettings, device: torch.device) -> Iterator[None]:
    """Turn the lack of memory for a step into an error that names what to lower.

    Raises
    ------
    MemoryBudgetError
        If there is too little.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        # On a processor torch has no error of its own for it.
        lacks = isinstance(error, torch.OutOfMemoryError | MemoryError)
        if not lacks and "allocate memory" not in str(error):
            raise
        raise MemoryBudgetError(
            f"a step of {settings.batch} crops of {settings.crop_voxels} voxels in "
            f"{settings.accumulate} parts does not fit into the memory of the {device.type}: raise "
            "accumulate up to batch, lower crop_voxels or network.width, or set "
            "network.checkpointing = true"
        ) from error
