"""Several networks, or mirror images of a tile, as one model: their mean and their spread."""

from __future__ import annotations

import hashlib
import threading
from contextlib import nullcontext
from itertools import combinations
from math import lcm, prod
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from otzi.errors import ModelError, UsageError
from otzi.tiles.infer import CalledOnDevice

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otzi.box import Zyx
    from otzi.tiles.infer import TorchModel

__all__ = ["FLIPS", "Ensemble", "ensemble_of"]

_Z, _Y, _X = 2, 3, 4


def _mirrors(*axes: int) -> tuple[tuple[int, ...], ...]:
    return tuple(some for n in range(len(axes) + 1) for some in combinations(axes, n))


FLIPS = {1: _mirrors(), 4: _mirrors(_Y, _X), 8: _mirrors(_Z, _Y, _X)}
"""Axes of ``(b, c, z, y, x)`` that are mirrored together, by the number of images.

Four leave z as it is: what lies on the grid has an upper and a lower side.
"""


def ensemble_of(models: Sequence[TorchModel], flips: int = 1) -> TorchModel | Ensemble:
    """Give one model: the only one as it is, if there is nothing to average.

    Raises
    ------
    UsageError
        If there is no such number of mirror images.
    ModelError
        If the models do not go together.
    """
    return models[0] if len(models) == 1 and flips == 1 else Ensemble(models, flips)


class Ensemble(CalledOnDevice):
    """The mean of the probabilities of all members and mirror images, as a `Model`.

    Its measure, after the classes, is their spread: the standard deviation, over members and
    images, of the probability of the class that wins in the mean; 0 where all agree, at most 0.5.

    Raises
    ------
    UsageError
        If there is no such number of mirror images.
    ModelError
        If members have other classes, or want the density normalised in another way.
    """

    n_measures = 1

    def __init__(self, members: Sequence[TorchModel], flips: int = 1) -> None:
        if flips not in FLIPS:
            raise UsageError(f"{flips} mirror images: choose {', '.join(map(str, FLIPS))}")
        first = members[0]
        for other in members[1:]:
            for name in ("classes", "normalisation"):
                one, another = getattr(first, name), getattr(other, name)
                if one != another:
                    raise ModelError(
                        f"{first} and {other} cannot be averaged, their {name} are {one} and "
                        f"{another}: take models of one kind"
                    )
        self.members = tuple(members)
        self.flips = flips
        self.classes = first.classes
        self.normalisation = first.normalisation
        self.size_multiple = lcm(*(member.size_multiple for member in members))
        self.device = first.device
        self.turn = threading.Lock() if self.blends_on_device else nullcontext()

    def __str__(self) -> str:
        return " and ".join(map(str, self.members))

    @property
    def identity(self) -> str:
        """SHA-256 of all that decides the probabilities."""
        parts = [*(member.identity for member in self.members), f"{self.flips} images"]
        return hashlib.sha256(" ".join(parts).encode()).hexdigest()

    @property
    def blends_on_device(self) -> bool:
        """Whether quantisation and sums are made where the networks are."""
        return self.members[0].blends_on_device

    @property
    def arithmetic(self) -> str:
        """What decides the last bits of the probabilities, beside weights, tiles and batches."""
        return self.members[0].arithmetic

    def memory_bytes(self, tile: Zyx) -> int:
        """Give the memory that inference of one tile takes beside the weights, rounded up."""
        channels = 4 * len(self.classes) + 1
        own = channels * prod(tile) * np.dtype(np.float32).itemsize
        return own + max(member.memory_bytes(tile) for member in self.members)

    def infer(self, tiles: torch.Tensor) -> torch.Tensor:
        """Give ``(b, c + 1, z, y, x)`` float32 for ``(b, 1, z, y, x)``, on the device.

        Mean and squared deviations are running ones: B. P. Welford, Technometrics 4,
        419 (1962).

        Raises
        ------
        MemoryBudgetError
            If the tiles do not fit into memory.
        """
        with torch.inference_mode():
            shape = (len(tiles), len(self.classes), *tiles.shape[2:])
            mean, squares = torch.zeros((2, *shape), device=tiles.device)
            n_seen = 0
            for member in self.members:
                for axes in FLIPS[self.flips]:
                    probabilities = member.infer(tiles.flip(axes)).flip(axes)
                    n_seen += 1
                    difference = probabilities - mean
                    mean += difference / n_seen
                    squares += difference * (probabilities - mean)
            winner = mean.argmax(dim=1, keepdim=True)
            spread = (squares.gather(1, winner) / n_seen).clamp(min=0).sqrt()
            return torch.cat([mean, spread], dim=1)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.members, self.flips)

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        members = tuple(member.__dask_tokenize__() for member in self.members)
        return type(self).__name__, members, self.flips
