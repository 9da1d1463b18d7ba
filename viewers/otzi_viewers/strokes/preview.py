"""Pseudo-labels of the block that somebody looks at, before those of the whole volume are there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from otzi.box import Box
from otzi.memory import usable_cores
from otzi.pseudo.bank import FeatureBank
from otzi.pseudo.forest import StrokeForest
from otzi.pseudo.lazy import label_block
from otzi.pseudo.sample import sample

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from otzi.box import Zyx
    from otzi.stroke_voxels import StrokeVoxels
    from otzi.tomogram import Tomogram

__all__ = ["PREVIEW_VOXELS", "BlockLabels", "label_preview", "preview_box"]

PREVIEW_VOXELS: Zyx = (32, 192, 192)
"""z, y, x: flat, as a slice is; some seconds of work."""


@dataclass(frozen=True)
class BlockLabels:
    """A label volume that has one block: ``labels[region]`` is ``(z, y, x)`` uint8, 0 elsewhere."""

    shape: Zyx
    box: Box
    block: NDArray[np.uint8]
    """Of the box: class index + 1."""
    dtype = np.dtype(np.uint8)
    ndim = 3

    def __getitem__(self, region: tuple[slice, slice, slice]) -> NDArray[np.uint8]:
        spans = [s.indices(n)[:2] for s, n in zip(region, self.shape, strict=True)]
        (z, z_stop), (y, y_stop), (x, x_stop) = spans
        asked = Box((z, y, x), (z_stop, y_stop, x_stop))
        labels = np.zeros(asked.shape, np.uint8)
        common = self.box.intersect(asked)
        if common.n_voxels:
            labels[common.within(asked)] = self.block[common.within(self.box)]
        return labels


def preview_box(shape: Zyx, center: tuple[float, float, float]) -> Box:
    """Give the block around a place, z, y, x in voxels, moved so far that it is in the volume."""
    starts = [
        min(max(0, round(c) - side // 2), max(0, n - side))
        for c, side, n in zip(center, PREVIEW_VOXELS, shape, strict=True)
    ]
    z, y, x = starts
    d, h, w = PREVIEW_VOXELS
    return Box((z, y, x), (z + d, y + h, x + w)).clip(shape)


def label_preview(
    tomo: Tomogram, voxels: StrokeVoxels, box: Box, *, n_trees: int = 100, seed: int = 0
) -> BlockLabels:
    """Give the most probable classes of a block, by the forest that `otzi pseudolabel` would grow.

    Parameters
    ----------
    tomo
        The tomogram.
    voxels
        Of the strokes.
    box
        The block.
    n_trees, seed
        Of the forest.

    Raises
    ------
    UsageError
        If the volume is too thin for the features.
    StrokesError
        If the strokes are of one class only.
    """
    bank, density = FeatureBank(), tomo.raw.data

    def read(region: Box) -> NDArray[Any]:
        return np.asarray(density[region.slices].compute(scheduler="synchronous"))

    workers = usable_cores()
    samples = sample(bank, read, voxels, workers=workers)
    forest = StrokeForest.fit(
        samples,
        voxels.classes,
        bank=bank,
        classes=tomo.classes.names,
        n_trees=n_trees,
        seed=seed,
        workers=workers,
    )
    held = box.grow(bank.halo_voxels).clip(tomo.shape)
    probabilities, _ = label_block(read(held), held, box, forest)
    classes = np.asarray(probabilities.argmax(axis=0), np.uint8)
    return BlockLabels(tomo.shape, box, classes + np.uint8(1))
