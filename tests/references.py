"""The slow, obvious versions: oracles of the fast ones, one section for each part."""

from __future__ import annotations

import itertools

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


# Tiles: every weight by its definition, every sum in Python's own order


def tile_starts(n: int, tile: int, overlap: int) -> list[int]:
    """Give where the tiles of an axis of `n` voxels begin nominally."""
    starts = [0]
    while starts[-1] + tile < n:
        starts.append(starts[-1] + tile - overlap)
    return starts


def tile_weight(v: int, start: int, n: int, tile: int, overlap: int) -> int:
    """Give the weight, of 64, of the tile that begins at `start` for voxel `v` of an axis."""
    starts = tile_starts(n, tile, overlap)
    if not start <= v < start + tile:
        return 0
    if start > 0 and v < start + overlap:
        return round(64 * (v - start + 0.5) / overlap)
    following = start + tile - overlap
    if following in starts and v >= following:
        return 64 - round(64 * (v - following + 0.5) / overlap)
    return 64


def steps_of_probabilities(probabilities: np.ndarray, n_steps: int) -> np.ndarray:
    """Give ``(c, z, y, x)`` integers that sum to `n_steps`, by rounding the cumulative sum."""
    upto = np.rint(np.cumsum(probabilities.astype(np.float32), axis=0, dtype=np.float32) * n_steps)
    upto[-1] = n_steps
    return np.diff(upto.astype(np.int64), axis=0, prepend=0)


def blended(volume: np.ndarray, model, tile: int, overlap: int) -> np.ndarray:
    """Give ``(c, z, y, x)`` int64, 16383 · 2¹⁸ times the blended probabilities of a volume."""
    total = np.zeros((len(model.classes), *volume.shape), np.int64)
    axes = [
        [
            (
                min(start, max(0, n - tile)),
                [tile_weight(v, start, n, tile, overlap) for v in range(n)],
            )
            for start in tile_starts(n, tile, overlap)
        ]
        for n in volume.shape
    ]
    for (z, wz), (y, wy), (x, wx) in itertools.product(*axes):
        seen = volume[z : z + tile, y : y + tile, x : x + tile]
        missing = [(0, -n % model.size_multiple) for n in seen.shape]
        inferred = model(np.pad(seen, missing, mode="reflect")[None, None])[0]
        steps = np.zeros_like(total)
        region = np.s_[:, z : z + seen.shape[0], y : y + seen.shape[1], x : x + seen.shape[2]]
        inside = inferred[:, : seen.shape[0], : seen.shape[1], : seen.shape[2]]
        steps[region] = steps_of_probabilities(inside, 16383)
        total += np.einsum("czyx,z,y,x->czyx", steps, wz, wy, wx)
    return total


def blended_uint8(total: np.ndarray) -> np.ndarray:
    """Give what is stored of `blended`: 255 steps, the cumulative sum rounded half up."""
    whole = 16383 * 2**18
    upto = (np.cumsum(total, axis=0) * 255 + whole // 2) // whole
    return np.diff(upto, axis=0, prepend=0).astype(np.uint8)
