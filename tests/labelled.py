"""Volumes that a small network can learn, and labels for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dask.array as da
import numpy as np

if TYPE_CHECKING:
    from otzi.tomogram import Tomogram

__all__ = ["UNKNOWN", "add_labels", "one_hot", "shells"]

UNKNOWN = 255
"""In hard labels: nothing is known."""


def shells(shape: tuple[int, int, int], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Give noisy int16 density and hard labels of balls of lumen in a membrane."""
    rng = np.random.default_rng(seed)
    grid = np.moveaxis(np.indices(shape), 0, -1)
    distance = np.full(shape, np.inf)
    for _ in range(max(2, int(np.prod(shape)) // 5000)):
        centre = rng.uniform(0, shape)
        distance = np.minimum(distance, np.linalg.norm(grid - centre, axis=-1))
    labels = np.select([distance < 6, distance < 9], [2, 1], 0).astype(np.uint8)
    density = np.array([0, -80, 60])[labels] + rng.normal(0, 15, shape)
    return density.astype(np.int16), labels


def one_hot(labels: np.ndarray, n_classes: int = 3) -> np.ndarray:
    """Give hard labels as soft ones, ``(c, z, y, x)`` float32."""
    return (labels == np.arange(n_classes)[:, None, None, None]).astype(np.float32)


def add_labels(
    tomo: Tomogram, labels: np.ndarray, name: str = "net", classes: tuple[str, ...] | None = None
) -> None:
    """Publish ``labels/NAME``: hard ``(z, y, x)`` or soft ``(c, z, y, x)``."""
    soft = labels.ndim == 4
    with tomo.write(
        f"labels/{name}",
        dtype=labels.dtype,
        channels=(classes or tomo.classes.names) if soft else None,
        downsample="mean" if soft else "mode",
        recipe={"made": "by a test"},
        parents=("raw",),
    ) as writer:
        chunks = (*labels.shape[:-3], 64, 64, 64)
        da.store(da.from_array(labels, chunks=chunks), writer, lock=False)
        writer.attributes["classes"] = list(classes or tomo.classes.names)
