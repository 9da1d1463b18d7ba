"""The slow, obvious versions: oracles of the fast ones, one section for each part."""

from __future__ import annotations

import numpy as np

# Pyramids: eight voxels at a time


def mean_level(values: np.ndarray) -> np.ndarray:
    """Give the 2×2×2 mean of ``(…, z, y, x)``, rounded for integers, by NumPy alone."""
    z, y, x = (n // 2 for n in values.shape[-3:])
    even = values[..., : 2 * z, : 2 * y, : 2 * x].astype(np.float64)
    blocks = even.reshape(*values.shape[:-3], z, 2, y, 2, x, 2).mean(axis=(-5, -3, -1))
    return (np.rint(blocks) if values.dtype.kind in "iu" else blocks).astype(values.dtype)


def mode_level(labels: np.ndarray) -> np.ndarray:
    """Give the most frequent label of 2×2×2 blocks, the smallest of several."""
    z, y, x = (n // 2 for n in labels.shape)
    mode = np.zeros((z, y, x), labels.dtype)
    for i, j, k in np.ndindex(z, y, x):
        block = labels[2 * i : 2 * i + 2, 2 * j : 2 * j + 2, 2 * k : 2 * k + 2]
        mode[i, j, k] = np.bincount(block.ravel()).argmax()
    return mode


# Ramps: the threshold by its definition


def isodata_of_values(values: np.ndarray) -> float:
    """Give the Ridler-Calvard threshold of values in [0, 1], NaN where all are the same."""
    if len(np.unique(values)) < 2:
        return float("nan")
    threshold = values.mean()
    for _ in range(1000):
        following = (values[values <= threshold].mean() + values[values > threshold].mean()) / 2
        if abs(following - threshold) < 1e-15:
            break
        threshold = following
    return float(threshold)
