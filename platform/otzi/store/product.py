"""The writer of a product: all levels of an OME-Zarr 0.5 image, from blocks of level 0."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr

from otzi.events import Listener, step
from otzi.store.encoding import Encoding, encoding_for
from otzi.store.grid import LevelGrid, level_grids
from otzi.store.pyramid import Downsample, write_next_level
from otzi.store.shards import ArrayWriter

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from otzi.box import Zyx
    from otzi.events import Step
    from otzi.ome import Multiscale
    from otzi.store.publish import Staging

__all__ = ["Layout", "ProductWriter"]


@dataclass(frozen=True, slots=True)
class Layout:
    """How a product is cut and stored."""

    kind: str
    """``raw``, ``view``, ``labels`` or ``probs``: decides the compression."""
    shape: Zyx
    """Of level 0, without channels."""
    dtype: np.dtype[Any]
    n_channels: int | None
    """Number of channels, or None for an array without that axis."""
    chunk_voxels: int = 64
    channels_per_chunk: int = 1

    @property
    def encoding(self) -> Encoding:
        """How chunks become bytes."""
        return encoding_for(self.kind, self.dtype)

    @property
    def grids(self) -> tuple[LevelGrid, ...]:
        """The grids of all levels."""
        return level_grids(
            self.shape,
            n_channels=self.n_channels,
            chunk_voxels=self.chunk_voxels,
            channels_per_chunk=self.channels_per_chunk,
        )


class ProductWriter:
    """The writer of a product: ``writer[region] = block`` for level 0, then `finish`.

    Regions consist of whole chunks, come in any order and from any thread, each voxel once: so it
    is a target of `dask.array.store` with ``lock=False``.
    """

    def __init__(
        self, staging: Staging, layout: Layout, image: Multiscale, listen: Listener
    ) -> None:
        self.layout = layout
        self.image = image
        self.attributes = staging.attributes
        self._staging = staging
        self._listen = listen
        self._level0 = self._create(0)

    @property
    def path(self) -> Path:
        """The staging folder: whatever else is put there is published with the product."""
        return self._staging.path

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of level 0, channels first where there are any."""
        return self._level0.shape

    def __setitem__(self, region: tuple[slice, ...], block: NDArray[Any]) -> None:
        """Write a block of level 0."""
        self._level0[region] = block

    def finish(self) -> None:
        """Check level 0, write the other levels and say what the image is."""
        self._staging.record("0", self._level0.finish())
        grids = self.layout.grids
        total = sum(prod(grid.shards_per_axis) for grid in grids[1:])
        with step(self._listen, "pyramid", total, "shards") as work:
            for level in range(1, len(grids)):
                self._write_level(level, work)
        self._staging.ome = self.image.to_json()

    def _write_level(self, level: int, work: Step) -> None:
        finer: zarr.Array[Any] = zarr.open_array(self.path / str(level - 1), mode="r")
        writer = self._create(level)
        method: Downsample = "mode" if self.image.downsample == "mode" else "mean"
        write_next_level(lambda region: np.asarray(finer[region]), writer, method)
        records = writer.finish()
        self._staging.record(str(level), records)
        work.advance(len(records))

    def _create(self, level: int) -> ArrayWriter:
        grid = self.layout.grids[level]
        dtype = self.layout.dtype.newbyteorder("<")
        folder = self.path / str(level)
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
        return ArrayWriter(folder, grid, dtype, self.layout.encoding)
