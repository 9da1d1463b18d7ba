"""The writer of a product: all levels of an OME-Zarr 0.5 image, from blocks of level 0."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr

from otzi.errors import UsageError
from otzi.store.crashpoints import reach
from otzi.store.encoding import Encoding, encoding_for
from otzi.store.grid import MOST_SHARD_VOXELS, LevelGrid, level_grids
from otzi.store.pyramid import CoarserLevel, Downsample
from otzi.store.shards import ArrayWriter

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from otzi.box import Zyx
    from otzi.ome import Multiscale
    from otzi.store.journal import ShardRecord
    from otzi.store.publish import Staging

__all__ = ["Layout", "ProductWriter"]


@dataclass(frozen=True, slots=True)
class Layout:
    """How a product is cut and stored.

    Raises
    ------
    UsageError
        If the chunks cannot be halved.
    """

    kind: str
    """``raw``, ``view``, ``labels``, ``probs`` …: decides the compression."""
    shape: Zyx
    """Of level 0, without channels."""
    dtype: np.dtype[Any]
    n_channels: int | None
    """Number of channels, or None for an array without that axis."""
    chunk_voxels: int = 64
    channels_per_chunk: int = 1
    most_shard_voxels: int = MOST_SHARD_VOXELS

    def __post_init__(self) -> None:
        if self.chunk_voxels < 2 or self.chunk_voxels % 2:
            raise UsageError(
                f"chunks of {self.chunk_voxels} voxels cannot be halved for the pyramid: take an "
                "even number (for tiles: an even --tile less --overlap)"
            )

    @property
    def encoding(self) -> Encoding:
        """How chunks become bytes."""
        return encoding_for(self.kind, self.dtype, has_channels=self.n_channels is not None)

    @property
    def grids(self) -> tuple[LevelGrid, ...]:
        """The grids of all levels."""
        return level_grids(
            self.shape,
            n_channels=self.n_channels,
            chunk_voxels=self.chunk_voxels,
            channels_per_chunk=self.channels_per_chunk,
            most_shard_voxels=self.most_shard_voxels,
        )


class ProductWriter:
    """The writer of a product: ``writer[region] = block`` for level 0, then `finish`.

    Regions consist of whole chunks, come in any order and from any thread, each voxel once: so it
    is a target of `dask.array.store` with ``lock=False``. The coarser levels are made of the same
    blocks on the way. What an interrupted run of the same plan has written is not written again.
    """

    def __init__(self, staging: Staging, layout: Layout, image: Multiscale) -> None:
        self.layout = layout
        self.image = image
        self.attributes = staging.attributes
        self._staging = staging
        self._levels = self._open_levels()
        self._take_up()

    @property
    def path(self) -> Path:
        """The staging folder: whatever else is put there is published with the product."""
        return self._staging.path

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of level 0, channels first where there are any."""
        return self._levels[0].shape

    def is_done(self, region: tuple[slice, ...]) -> bool:
        """Tell whether an interrupted run of the same plan has written a region of level 0."""
        level0 = self._levels[0]
        spans = [s.indices(n)[:2] for s, n in zip(region, level0.shape, strict=True)]
        start, stop = tuple(a for a, _ in spans), tuple(b for _, b in spans)
        return all(map(level0.is_done, level0.grid.chunk_indices(start, stop)))

    def done(self, region: tuple[slice, ...]) -> NDArray[Any]:
        """Give a region of level 0 that an interrupted run has written."""
        stored: zarr.Array[Any] = zarr.open_array(self._levels[0].folder, mode="r")
        return np.asarray(stored[region])

    def __setitem__(self, region: tuple[slice, ...], block: NDArray[Any]) -> None:
        """Write a block of level 0."""
        self._levels[0][region] = block

    def finish(self) -> None:
        """Check that all levels are whole and say what the image is."""
        for level in self._levels:
            level.finish()
        self._staging.ome = self.image.to_json()

    def _open_levels(self) -> list[ArrayWriter]:
        """Give the writers of all levels, each feeding the next."""
        method: Downsample = "mode" if self.image.downsample == "mode" else "mean"
        levels = [self._open(number, grid) for number, grid in enumerate(self.layout.grids)]
        for finer, coarser in pairwise(levels):
            finer.wrote = CoarserLevel(finer.grid, coarser, method).take
        return levels

    def _open(self, number: int, grid: LevelGrid) -> ArrayWriter:
        dtype = self.layout.dtype.newbyteorder("<")
        folder = self.path / str(number)
        zarr.create_array(
            folder,
            shape=grid.shape,
            dtype=dtype,
            chunks=grid.chunk,
            shards=grid.shard,
            compressors=self.layout.encoding.zarr_codecs(dtype.itemsize),
            fill_value=0,
            dimension_names=self.image.axes,
        )
        return ArrayWriter(
            folder,
            grid,
            dtype,
            self.layout.encoding,
            done=self._staging.shards_of(number),
            sealed=partial(self._record, number),
        )

    def _record(self, number: int, record: ShardRecord) -> None:
        self._staging.journal.add(replace(record, key=f"{number}/{record.key}"))
        reach("shard-recorded")

    def _take_up(self) -> None:
        """Feed the coarser levels from the shards that an interrupted run has written."""
        for level in self._levels[:-1]:
            stored: zarr.Array[Any] = zarr.open_array(level.folder, mode="r")
            for shard in sorted(level.done):
                for index in level.grid.chunks_of(shard):
                    level.wrote(index, np.asarray(stored[level.grid.chunk_slices(index)]))
