"""What a model is to the tiles, and a network of torch as one."""

from __future__ import annotations

import functools
import sys
import threading
from abc import ABC, abstractmethod
from contextlib import contextmanager, nullcontext
from math import prod
from typing import TYPE_CHECKING, Any, Protocol, get_args

import numpy as np
import torch

from otzi.errors import DeviceUnavailable, MemoryBudgetError, UsageError
from otzi.networks.weights import Device, load_model

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from numpy.typing import NDArray

    from otzi.box import Zyx
    from otzi.networks.network import Network
    from otzi.networks.weights import ModelCard

__all__ = ["CalledOnDevice", "Model", "TorchModel", "choose_device", "naming_memory"]

_SCRATCH_BYTES = 100 * 10**6
"""Beside the channels of a network: `otzi.networks.network.NetworkConfig.working_channels`."""

_loading = threading.Lock()


class Model(Protocol):
    """Anything that gives class probabilities for tiles."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the channels."""
        ...

    @property
    def n_measures(self) -> int:
        """Channels after those of the classes: in [0, 1], and part of no sum."""
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
    if device == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", _own_gpu(torch.cuda.device_count()))


def _own_gpu(n_gpus: int) -> int:
    """Give the GPU of this process: numbered worker processes of one machine share them out.

    Where the scheduler of a cluster shows each worker its own, there is but one.
    """
    if n_gpus < 2 or "distributed" not in sys.modules:
        return 0
    from distributed import get_worker

    try:
        name = str(get_worker().name)
    except ValueError:  # not in a worker
        return 0
    return int(name) % n_gpus if name.isdecimal() else 0


@contextmanager
def naming_memory(what: str, device: torch.device, remedy: str = "--tile") -> Iterator[None]:
    """Say, where the memory of a device runs out, what did not fit, and what to make smaller.

    Raises
    ------
    MemoryBudgetError
        If it does; one that has been told already stays as it is.
    """
    try:
        yield
    except MemoryBudgetError:
        raise
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        raise MemoryBudgetError(
            f"{what} not fit into the memory of the "
            f"{'GPU' if device.type == 'cuda' else 'machine'}: take a smaller {remedy}, or another "
            "--device"
        ) from error


class CalledOnDevice(ABC):
    """What takes and gives arrays of the processor, and infers with tensors on its device."""

    device: torch.device
    turn: AbstractContextManager[Any]
    """Held while its memory is used."""

    def __call__(self, tiles: NDArray[np.float32], /) -> NDArray[np.float32]:
        """Give what `infer` does for ``(b, 1, z, y, x)`` normalised density.

        Raises
        ------
        MemoryBudgetError
            If the tiles do not fit into memory.
        """
        with self.turn:
            there = torch.from_numpy(tiles).to(self.device)
            outputs: NDArray[np.float32] = self.infer(there).cpu().numpy()
        return outputs

    @abstractmethod
    def infer(self, tiles: torch.Tensor) -> torch.Tensor:
        """Give ``(b, channels, z, y, x)`` float32 for ``(b, 1, z, y, x)``, on the device."""


class TorchModel(CalledOnDevice):
    """A network and its card as a `Model`; called from any thread.

    Copies sent to other processes are loaded there from the same folder, once for each process, on
    the device that was asked for: what ``auto`` means is found out where it runs.
    """

    n_measures = 0
    flips = 1

    def __init__(
        self, network: Network, card: ModelCard, path: Path, *, device: Device, threads: int | None
    ) -> None:
        self.card = card
        self.path = path
        self.device = choose_device(device)
        self.threads = threads
        self.network = network.to(self.device).eval()
        self._asked = device
        self._mixed = _mixed_precision(self.device)
        # One batch at a time on a GPU: its memory is not shared out, its work is in order anyway.
        self.turn = threading.Lock() if self.device.type == "cuda" else nullcontext()

    def __str__(self) -> str:
        return f"model {self.path}"

    @property
    def members(self) -> tuple[TorchModel, ...]:
        """The networks of which it is made: itself."""
        return (self,)

    @property
    def identity(self) -> str:
        """SHA-256 of all that decides the probabilities."""
        return self.card.digest

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

    def infer(self, tiles: torch.Tensor) -> torch.Tensor:
        """Give ``(b, c, z, y, x)`` float32 probabilities for ``(b, 1, z, y, x)``, on the device.

        Raises
        ------
        MemoryBudgetError
            If the tiles do not fit into memory.
        """
        if self.threads and torch.get_num_threads() != self.threads:
            torch.set_num_threads(self.threads)
        what = f"{len(tiles)} tiles of {tuple(tiles.shape[2:])} voxels do"
        with naming_memory(what, self.device), torch.inference_mode(), self._precision():
            return self.network.probabilities(tiles).float()

    @property
    def blends_on_device(self) -> bool:
        """Whether quantisation and sums are made where the network is."""
        return self.device.type == "cuda"

    @property
    def arithmetic(self) -> str:
        """What decides the last bits of the probabilities, beside weights, tiles and batches."""
        precision = "" if self._mixed is None else f" in {self._mixed}"
        return f"torch {torch.__version__} on {self.device.type}{precision}"

    def memory_bytes(self, tile: Zyx) -> int:
        """Give the memory that inference of one tile takes beside the weights, rounded up."""
        channels = self.network.config.working_channels
        return _SCRATCH_BYTES + channels * prod(tile) * np.dtype(np.float32).itemsize

    def _precision(self) -> Any:
        if self._mixed is None:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self._mixed)

    def __reduce__(self) -> tuple[Any, ...]:
        return _load_once, (self.path, self.card.digest, self._asked, self.threads)

    def __dask_tokenize__(self) -> tuple[str, str, str]:
        return type(self).__name__, self.card.digest, self.device.type


def _mixed_precision(device: torch.device) -> torch.dtype | None:
    """Give the type of 16 bits that the device has units for.

    A processor without such units is many times slower in it than in float32.
    """
    if device.type != "cuda":
        return None
    if torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.bfloat16
    return torch.float16 if torch.cuda.get_device_capability(device) >= (7, 0) else None


def _is_out_of_memory(error: BaseException) -> bool:
    """Tell whether memory ran out: for that of a processor torch has no error of its own."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        "can't allocate memory" in str(error)
    )


def _load_once(path: Path, digest: str, device: Device, threads: int | None) -> TorchModel:
    with _loading:  # threads of a worker that begin together
        return _loaded(path, digest, device, threads)


@functools.lru_cache(maxsize=16)
def _loaded(path: Path, digest: str, device: Device, threads: int | None) -> TorchModel:
    model = load_model(path, device=device, threads=threads)
    if model.card.digest != digest:
        raise UsageError(f"{path} was replaced while it was in use: start again")
    return model
