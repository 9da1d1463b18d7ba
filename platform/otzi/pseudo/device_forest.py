"""The forest on a device of torch, and the labels of a block there."""

from __future__ import annotations

import functools
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from otzi.errors import UsageError
from otzi.pseudo.device import DeviceBank, fitting_device, working_memory_bytes
from otzi.pseudo.forest import checked_early_exit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from otzi.box import Box
    from otzi.pseudo.forest import EarlyExit, StrokeForest

__all__ = ["DeviceForest", "device_arithmetic", "label_block_on"]

_BYTES_OF_A_DESCENT = 48
"""Of a voxel in a tree: node, channel and following node, value and threshold, and a share."""
_TURN = threading.Lock()
"""A GPU's memory is not shared out, and its work is in order anyway."""


class DeviceForest:
    """A forest whose voxels descend all trees side by side, a level at a time."""

    def __init__(self, forest: StrokeForest, device: torch.device) -> None:
        is_leaf = forest.child == np.arange(len(forest.child))
        # Nothing exceeds the threshold of a leaf: who has arrived stays.
        threshold = np.where(is_leaf, np.float32(np.inf), forest.threshold)
        self.device = device
        self._roots = torch.from_numpy(forest.roots.astype(np.int64)).to(device)
        self._child = torch.from_numpy(forest.child.astype(np.int64)).to(device)
        self._channel = torch.from_numpy(forest.channel.astype(np.int64)).to(device)
        self._threshold = torch.from_numpy(threshold).to(device)
        self._shares = torch.from_numpy(forest.shares.T.copy()).to(device)
        self._n_channels = len(forest.bank.names)
        self._depth = _depth(forest)

    def predict(
        self, features: torch.Tensor, early_exit: EarlyExit | None = None
    ) -> tuple[torch.Tensor, int]:
        """Give the probabilities, as `StrokeForest.predict`, and how many voxels saw all trees.

        Parameters
        ----------
        features
            ``(channel, voxel)`` float32 on the device.
        early_exit
            None for the exact forest.

        Returns
        -------
        tuple
            ``(class, voxel)`` float32 on the device, and the number.

        Raises
        ------
        UsageError
            For another number of channels, or an early exit that makes no sense.
        """
        if len(features) != self._n_channels:
            raise UsageError(f"{len(features)} channels, the forest has learned {self._n_channels}")
        early_exit = checked_early_exit(early_exit)
        n_trees = len(self._roots)
        at_once = working_memory_bytes(self.device) // (_BYTES_OF_A_DESCENT * n_trees)
        parts, n_continued = [], 0
        for part in torch.split(features, max(1, at_once), dim=1):
            if early_exit is None or early_exit[0] >= n_trees:
                shares, n = self._votes(part, self._roots) / n_trees, part.shape[1]
            else:
                shares, n = self._until_clear(part, *early_exit)
            parts.append(shares.masked_fill_(part.isnan().any(dim=0), 0))
            n_continued += n
        return torch.cat(parts, dim=1), n_continued

    def _until_clear(
        self, features: torch.Tensor, early_trees: int, early_votes: float
    ) -> tuple[torch.Tensor, int]:
        votes = self._votes(features, self._roots[:early_trees])
        goes_on = (votes.amax(dim=0) < early_votes * early_trees).nonzero()[:, 0]
        shares = votes / early_trees
        later = self._votes(features[:, goes_on], self._roots[early_trees:])
        shares[:, goes_on] = (votes[:, goes_on] + later) / len(self._roots)
        return shares, len(goes_on)

    def _votes(self, features: torch.Tensor, roots: torch.Tensor) -> torch.Tensor:
        """Give the sum over trees of the shares of each class, ``(class, voxel)`` float32."""
        node = roots[:, None].expand(-1, features.shape[1])
        for _ in range(self._depth):
            value = features.gather(0, self._channel[node])
            node = self._child[node] + (value > self._threshold[node])
        return torch.stack([shares[node].sum(dim=0) for shares in self._shares])


def label_block_on(
    volume: NDArray[Any],
    held: Box,
    inner: Box,
    forest: StrokeForest,
    early_exit: EarlyExit | None = None,
    *,
    device: torch.device,
) -> tuple[NDArray[np.float32], int]:
    """Give the probabilities of a block as `otzi.pseudo.lazy.label_block` does, from a device.

    From any thread: one block at a time is on the device, the others wait.

    Raises
    ------
    MemoryBudgetError
        If the block does not fit into the device's memory.
    """
    bank = DeviceBank(forest.bank, device)
    probabilities = np.empty((len(forest.classes), *inner.shape), np.float32)
    n_continued = 0
    with _TURN, torch.inference_mode(), fitting_device(inner):
        on_device = _on_device(forest, device)
        for slab, channels in bank.slabs(volume, held, inner):
            part, n = on_device.predict(channels.flatten(1), early_exit)
            probabilities[(slice(None), *slab.within(inner))] = part.reshape(-1, *slab.shape).cpu()
            n_continued += n
    return probabilities, n_continued


def device_arithmetic(device: torch.device) -> str:
    """Give what decides the last bits of probabilities from a device."""
    return f"torch {torch.__version__} on {device.type}"


@functools.lru_cache(maxsize=1)
def _on_device(forest: StrokeForest, device: torch.device) -> DeviceForest:
    return DeviceForest(forest, device)


def _depth(forest: StrokeForest) -> int:
    """Give the number of steps from a root to the furthest leaf."""
    depth, nodes = 0, forest.roots
    while True:
        nodes = nodes[forest.child[nodes] != nodes]
        if not len(nodes):
            return depth
        nodes = np.concatenate([forest.child[nodes], forest.child[nodes] + 1])
        depth += 1
