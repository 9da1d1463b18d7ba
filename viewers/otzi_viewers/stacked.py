"""Density and classes as one OME-Zarr image, uint8, that exists only chunk by chunk.

Neuroglancer's shaders need all channels of a voxel in one chunk; probabilities and soft labels are
stored with a chunk for each channel. The image has the layout and the meaning of the product
``view``: levels ``0``, ``1``, …, and ``overview`` with one level in one chunk.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from otzi.ome import Multiscale
from otzi.store.groups import group_text

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from otzi.store.reader import LevelArray
    from otzi.tomogram import Tomogram
    from otzi_viewers.segmentation import Segmentation

__all__ = ["StackedImage"]

_CHUNK_VOXELS = 64
_OVERVIEW = "overview"


@dataclass(frozen=True)
class StackedImage:
    """The image of a segmentation; a file of it is there by its path."""

    tomo: Tomogram
    segmentation: Segmentation

    def file(self, path: str) -> bytes | None:
        """Give the content of a file, None if there is none of this name.

        Raises
        ------
        CorruptShard
            If what a chunk is made of is damaged.
        """
        folder, _, name = path.rpartition("/")
        if name == "zarr.json":
            return self._metadata(folder)
        start, _, index = path.partition("/c/")
        grid = self._grids.get(start)
        try:
            place = tuple(int(i) for i in index.split("/"))
        except ValueError:
            return None
        if grid is None or len(place) != 4 or place[0]:
            return None
        level, shape, chunk = grid
        if any(not 0 <= i * c < n for i, c, n in zip(place[1:], chunk, shape, strict=True)):
            return None
        return self._chunk(level, place[1:], chunk).tobytes()

    @cached_property
    def _levels(self) -> list[tuple[LevelArray, LevelArray]]:
        """Density and probabilities of each level."""
        product = self.segmentation.product
        assert product is not None
        density = "view" if self.tomo.has("view") else "raw"
        return [
            (self.tomo.array(density, level), self.tomo.array(product, level))
            for level in range(self.tomo.image(product).n_levels)
        ]

    @cached_property
    def _order(self) -> list[int]:
        """Channel of each class in the product."""
        channels = self.tomo.image(self.segmentation.product or "").channels or ()
        return [channels.index(c.name) for c in self.segmentation.classes]

    @cached_property
    def _window(self) -> tuple[np.float32, np.float32]:
        """What becomes black and white of ``raw``: matter is dark there."""
        percentiles = self.tomo.attributes("raw")["statistics"]["percentiles"]
        scale, offset = self.tomo.quantisation
        low, high = (np.float32((percentiles[p] - offset) / scale) for p in ("0.5", "99.5"))
        return high, low

    @cached_property
    def _grids(self) -> dict[str, tuple[int, tuple[int, ...], tuple[int, ...]]]:
        """Level, extent and chunk, z, y, x, of each array by its path."""
        grids = {
            str(i): (i, probs.shape[-3:], (_CHUNK_VOXELS,) * 3)
            for i, (_, probs) in enumerate(self._levels)
        }
        level = self.segmentation.overview_level
        whole = self._levels[level][1].shape[-3:]
        return grids | {f"{_OVERVIEW}/0": (level, whole, whole)}

    def _metadata(self, folder: str) -> bytes | None:
        if folder in ("", _OVERVIEW):
            ome = Multiscale(
                name=f"{self.tomo.id} {self.segmentation.product}",
                spacing_angstrom=self.tomo.spacing_angstrom,
                n_levels=len(self._levels),
                channels=self.segmentation.channels,
                window=(0.0, 0.0, 255.0, 255.0),
            ).to_json()
            if folder == _OVERVIEW:
                image = ome["multiscales"][0]
                level = self.segmentation.overview_level
                image["datasets"] = [image["datasets"][level] | {"path": "0"}]
            return group_text({"ome": ome}).encode()
        if folder not in self._grids:
            return None
        _, shape, chunk = self._grids[folder]
        return json.dumps(_array(len(self.segmentation.channels), shape, chunk)).encode()

    def _chunk(
        self, level: int, place: tuple[int, ...], chunk: tuple[int, ...]
    ) -> NDArray[np.uint8]:
        density, probs = self._levels[level]
        region = tuple(
            slice(i * c, min((i + 1) * c, n))
            for i, c, n in zip(place, chunk, probs.shape[-3:], strict=True)
        )
        values = np.zeros((len(self.segmentation.channels), *chunk), np.uint8)
        z, y, x = (s.stop - s.start for s in region)
        values[0, :z, :y, :x] = self._density(density, region)
        # One channel after the other, as they are stored.
        for channel, index in enumerate(self._order, 1):
            values[channel, :z, :y, :x] = _codes(probs[(index, *region)])
        return values

    def _density(self, array: LevelArray, region: tuple[slice, ...]) -> NDArray[np.uint8]:
        if array.ndim == 4:
            stored: NDArray[np.uint8] = array[(0, *region)]
            return stored
        black, white = self._window
        return _codes((array[region].astype(np.float32) - black) / ((white - black) or 1))


def _codes(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Give values in [0, 1] in 255ths; stored ones as they are."""
    if values.dtype == np.uint8:
        return values
    codes = np.rint(np.clip(values.astype(np.float32), 0, 1) * np.float32(255))
    return np.asarray(codes, np.uint8)


def _array(n_channels: int, shape: tuple[int, ...], chunk: tuple[int, ...]) -> dict[str, Any]:
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [n_channels, *shape],
        "data_type": "uint8",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [n_channels, *chunk]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 0,
        "codecs": [{"name": "bytes"}],
        "dimension_names": ["c", "z", "y", "x"],
        "attributes": {},
    }
