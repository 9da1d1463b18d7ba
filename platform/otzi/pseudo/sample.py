"""The channels of stroke voxels: only blocks that carry strokes are computed, each once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from otzi.events import Listener, ignore
from otzi.parallel import in_threads
from otzi.pseudo.lazy import slab_planes

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from otzi.box import Box
    from otzi.pseudo.bank import FeatureBank
    from otzi.stroke_voxels import StrokeVoxels

__all__ = ["BLOCK_VOXELS", "sample"]

BLOCK_VOXELS = 64


def sample(
    bank: FeatureBank,
    read: Callable[[Box], NDArray[Any]],
    voxels: StrokeVoxels,
    *,
    workers: int = 1,
    listen: Listener = ignore,
) -> NDArray[np.float32]:
    """Give the channels of some voxels: ``(voxel, channel)`` float32, in their order.

    Parameters
    ----------
    bank
        Of the channels.
    read
        Gives the density of a box, ``(z, y, x)`` of any real dtype, from any thread.
    voxels
        Of a volume that the bank accepts.
    workers
        Blocks of at most 64 voxels a side at the same time.
    listen
        Told of every block.

    Raises
    ------
    UsageError
        If the volume is too thin for the bank.
    """
    bank.check(voxels.shape)
    samples = np.empty((len(voxels), len(bank.names)), np.float32)

    def one(block: tuple[Box, NDArray[np.intp]]) -> None:
        inner, rows = block
        held = inner.grow(bank.halo_voxels).clip(voxels.shape)
        planes = slab_planes(bank, inner)
        depth = voxels.coordinates[rows, 0]
        for slab, channels in bank.slabs(read(held), held, inner, planes):
            here = rows[(depth >= slab.start[0]) & (depth < slab.stop[0])]
            z, y, x = (voxels.coordinates[here] - slab.start).T
            samples[here] = channels[:, z, y, x].T

    blocks = list(voxels.by_block(BLOCK_VOXELS))
    for _ in in_threads(one, blocks, "features of strokes", "blocks", listen, workers):
        pass
    return samples
