"""What a model is to the tiles, and a network of torch as one."""

from __future__ import annotations

import functools
import threading
from contextlib import nullcontext
from math import prod
from typing import TYPE_CHECKING, Any, Protocol, get_args

import numpy as np
import torch

from otzi.errors import DeviceUnavailable, MemoryBudgetError, UsageError
from otzi.networks.weights import NANO_OETZI, RESIDUAL_UNET, Device, load_model

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from otzi.box import Zyx
    from otzi.networks.weights import ModelCard, Network

__all__ = ["Model", "TorchModel", "choose_device"]

# Measured as the peak resident set of one tile less that of an empty run, torch 2.13 on a CPU:
# 541 MB (width 8, 4 levels, 128³), 762 MB (16, 4, 128³), 699 MB (32, 4, 96³), 136 MB (8, 3, 64³).
# Published networks: 461 MB (width 4, 128³), 768 MB (8, 128³), 1038 MB (16, 128³).
_FULL_RESOLUTION_TENSORS = {RESIDUAL_UNET: 6, NANO_OETZI: 9}
_SCRATCH_BYTES = 100 * 10**6


class Model(Protocol):
    """Anything that gives class probabilities for tiles."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the channels."""
        ...

    @property
    def size_multiple(self) -> int:
        """What the sides of a tile must be multiples of, in voxels."""
        ...

    @property
    def normalisation(self) -> str:
        """How the density is normalised, one of `otzi.normalise`."""
        ...

    def __call__(self, tiles: NDArray[np.float32], /) -> NDArray[np.float32]:
        """Give ``(b, c, z, y, x)`` probabilities for ``(b, 1, z, y, x)`` normalised density."""
        ...


def choose_device(device: Device) -> torch.device:
    """Give the torch device of a name; ``auto`` is a CUDA device where there is one.

    Raises
    ------
    DeviceUnavailable
        If it is ``cuda`` and there is none.
    UsageError
        If it is no device.
    """
    if device not in get_args(Device):
        raise UsageError(f"device {device!r}: choose one of {', '.join(get_args(Device))}")
    if device == "cuda" and not torch.cuda.is_available():
        raise DeviceUnavailable(
            f"no CUDA device: torch {torch.__version__} sees none here; pass --device cpu"
        )
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(device)


class TorchModel:
    """A network and its card as a `Model`; called from any thread.

    Copies sent to other processes are loaded there from the same folder, once for each process.
    """

    def __init__(
        self, network: Network, card: ModelCard, path: Path, *, device: Device, threads: int | None
    ) -> None:
        self.card = card
        self.path = path
        self.device = choose_device(device)
        self.threads = threads
        self.network = network.to(self.device).eval()
        # One tile at a time on a GPU: its memory is not shared out, its work is in order anyway.
        self._turn = threading.Lock() if self.device.type == "cuda" else nullcontext()

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the channels."""
        return self.card.classes

    @property
    def size_multiple(self) -> int:
        """What the sides of a tile must be multiples of, in voxels."""
        return self.network.config.size_multiple

    @property
    def normalisation(self) -> str:
        """How the density is normalised."""
        return self.card.normalisation

    def __call__(self, tiles: NDArray[np.float32], /) -> NDArray[np.float32]:
        """Give ``(b, c, z, y, x)`` probabilities for ``(b, 1, z, y, x)`` normalised density.

        Raises
        ------
        MemoryBudgetError
            If the tiles do not fit into the memory of the GPU.
        """
        if self.threads and torch.get_num_threads() != self.threads:
            torch.set_num_threads(self.threads)
        with self._turn, torch.inference_mode():
            try:
                seen = torch.from_numpy(tiles).to(self.device)
                probabilities = self.network.probabilities(seen).cpu().numpy()
            except torch.OutOfMemoryError as error:
                raise MemoryBudgetError(
                    f"tiles of {tiles.shape[2:]} voxels do not fit into the GPU's memory: take a "
                    "smaller --tile, or --device cpu"
                ) from error
        return np.asarray(probabilities, np.float32)

    @property
    def arithmetic(self) -> str:
        """What decides the last bits of the probabilities, beside weights and tiles."""
        return f"torch {torch.__version__} on {self.device.type}"

    def memory_bytes(self, tile: Zyx) -> int:
        """Give the memory that inference of one tile takes beside the weights, rounded up."""
        tensors = _FULL_RESOLUTION_TENSORS[self.card.architecture]
        channels = tensors * self.network.config.width + 3 * len(self.classes)
        return _SCRATCH_BYTES + channels * prod(tile) * np.dtype(np.float32).itemsize

    def __reduce__(self) -> tuple[Any, ...]:
        return _load_once, (self.path, self.card.sha256, self.device.type, self.threads)

    def __dask_tokenize__(self) -> tuple[str, str, str]:
        return type(self).__name__, self.card.sha256, self.device.type


@functools.lru_cache(maxsize=2)
def _load_once(path: Path, sha256: str, device: Device, threads: int | None) -> TorchModel:
    model = load_model(path, device=device, threads=threads)
    if model.card.sha256 != sha256:
        raise UsageError(f"{path} was replaced while it was in use: start again")
    return model
