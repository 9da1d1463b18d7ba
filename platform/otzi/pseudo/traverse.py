"""Votes of a packed forest: many voxels descend a tree side by side, so that loads overlap.

A node is one uint64: left child << 40 | channel << 32 | threshold; the right child follows the
left. A leaf is its own left child, and no value exceeds its threshold. Values and thresholds are
compared as integers that are ordered like the floats they stand for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from otzi.compiled import fused, inlined

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["MOST_CHANNELS", "MOST_NODES", "count_votes", "packed_nodes"]

MOST_CHANNELS = 256
MOST_NODES = 2**24

_LANES = 16
"""Voxels that descend side by side."""
_BLOCK = 128
"""Voxels whose channels stay in the nearest cache while all trees pass by."""

_MAGNITUDE = np.int32(0x7FFFFFFF)
_INFINITY = np.int32(0x7F800000)
_CHILD_BITS, _CHANNEL_BITS, _CHANNEL_MASK = np.uint64(40), np.uint64(32), np.uint64(255)


def packed_nodes(
    child: NDArray[np.int32], channel: NDArray[np.uint8], threshold: NDArray[np.float32]
) -> NDArray[np.uint64]:
    """Give the nodes as `count_votes` takes them, ``(node,)`` uint64.

    Parameters
    ----------
    child, channel, threshold
        ``(node,)``: a voxel goes to `child` where its `channel` is at most the `threshold`, and
        else to the node after that; a leaf is its own child.
    """
    is_leaf = child == np.arange(len(child))
    bits = (threshold + np.float32(0)).view(np.int32)  # there is a -0, and it is equal to 0
    key = np.where(is_leaf, _MAGNITUDE, bits ^ (bits >> 31 & _MAGNITUDE)).astype(np.int32)
    nodes: NDArray[np.uint64] = child.astype(np.uint64) << _CHILD_BITS
    nodes |= channel.astype(np.uint64) << _CHANNEL_BITS
    nodes |= key.view(np.uint32)
    return nodes


@inlined
def _in_order(bits: np.int32) -> np.int32:
    """Give an integer ordered like the float of these bits."""
    return bits ^ ((bits >> np.int32(31)) & _MAGNITUDE)


@fused
def count_votes(
    features: NDArray[np.float32],
    nodes: NDArray[np.uint64],
    shares: NDArray[np.float32],
    roots: NDArray[np.int32],
    early_trees: int,
    early_votes: float,
    probabilities: NDArray[np.float32],
) -> int:
    """Write the mean share of every class, and give how many voxels saw all trees.

    A voxel with a NaN among its channels has no share of any class. The result of a voxel does not
    depend on those around it.

    Parameters
    ----------
    features
        ``(channel, voxel)`` float32, C-contiguous.
    nodes
        From `packed_nodes`.
    shares
        ``(node, class)`` float32: of a leaf, summing to 1.
    roots
        ``(tree,)``: the first node of each.
    early_trees, early_votes
        A voxel with a class of at least this mean share after so many trees sees no more.
    probabilities
        ``(class, voxel)`` float32, to be written.
    """
    n_channels, n_voxels = features.shape
    n_classes, n_trees = shares.shape[1], len(roots)
    bits = features.view(np.int32)
    width = np.uint64(n_channels)
    # The row after the last is for lanes that have no voxel.
    values = np.zeros((_BLOCK + 1) * n_channels, np.int32)
    votes = np.zeros((_BLOCK + 1, n_classes), np.float32)
    is_missing = np.zeros(_BLOCK, np.bool_)
    trees_seen = np.zeros(_BLOCK, np.float32)
    waiting = np.full(_BLOCK + _LANES, _BLOCK, np.int64)
    row = np.zeros(_LANES, np.uint64)
    node = np.zeros(_LANES, np.uint64)
    n_continued = 0
    for start in range(0, n_voxels, _BLOCK):
        n = min(_BLOCK, n_voxels - start)
        is_missing[:] = False
        for c in range(n_channels):
            for j in range(n):
                value = bits[c, start + j]
                values[j * n_channels + c] = _in_order(value)
                is_missing[j] |= (value & _MAGNITUDE) > _INFINITY
        votes[:] = 0
        trees_seen[:] = n_trees
        for j in range(n):
            waiting[j] = j
        waiting[n:] = _BLOCK
        n_waiting = n
        for tree in range(n_trees):
            if tree == early_trees:
                n_left = 0
                for i in range(n_waiting):
                    j = waiting[i]
                    if votes[j].max() >= early_votes * tree:
                        trees_seen[j] = tree
                    else:
                        waiting[n_left] = j
                        n_left += 1
                waiting[n_left:] = _BLOCK
                n_waiting = n_left
            for first in range(0, n_waiting, _LANES):
                for lane in range(_LANES):
                    row[lane] = np.uint64(waiting[first + lane]) * width
                    node[lane] = np.uint64(roots[tree])
                moved = np.uint64(1)
                while moved:
                    moved = np.uint64(0)
                    for lane in range(_LANES):
                        here = node[lane]
                        packed = nodes[here]
                        channel = (packed >> _CHANNEL_BITS) & _CHANNEL_MASK
                        is_right = values[row[lane] + channel] > np.int32(packed)
                        following = (packed >> _CHILD_BITS) + np.uint64(is_right)
                        moved |= following ^ here
                        node[lane] = following
                for lane in range(_LANES):
                    j = waiting[first + lane]
                    for k in range(n_classes):
                        votes[j, k] += shares[node[lane], k]
        n_continued += n_waiting
        for k in range(n_classes):
            for j in range(n):
                share = votes[j, k] / trees_seen[j]
                probabilities[k, start + j] = np.float32(0) if is_missing[j] else share
    return n_continued
