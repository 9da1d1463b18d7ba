"""One tomogram: its products as lazy arrays with coordinates in ångström, and how they are made."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import otzi
from otzi.errors import (
    NotFoundError,
    OtziError,
    TemporaryFailure,
    UsageError,
    checked_name,
)
from otzi.ledger.rebuild import record
from otzi.ledger.sqlite import check_place
from otzi.ome import Multiscale
from otzi.store.folders import NAMED_KINDS, SINGLE_KINDS, product_folders
from otzi.store.groups import current_generation, read_group
from otzi.store.manifest import manifest_digest, read_manifest
from otzi.store.padding import Padding, read_box
from otzi.store.publish import Staging, staged
from otzi.store.reader import LevelArray

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import xarray as xr
    from numpy.typing import DTypeLike, NDArray

    from otzi.box import Box, Zyx
    from otzi.classes import ClassTable
    from otzi.collection import Collection
    from otzi.store.location import Location
    from otzi.store.product import ProductWriter

__all__ = ["Tomogram", "checked_product"]

_BLOCK_VOXELS = 128


def checked_product(product: str) -> str:
    """Give `product` back if it is ``raw``, ``view``, ``strokes``, or a kind and a name.

    Raises
    ------
    UsageError
        If it is none of these.
    """
    kind, slash, name = product.partition("/")
    is_single = kind in SINGLE_KINDS and not slash
    if is_single or (kind in NAMED_KINDS and checked_name(name, f"{kind} name")):
        return product
    raise UsageError(
        f"no product {product!r}: there are {', '.join(SINGLE_KINDS)}, "
        + ", ".join(f"{kind}/NAME" for kind in NAMED_KINDS)
    )


@dataclass(frozen=True)
class Tomogram:
    """A tomogram of a collection."""

    collection: Collection
    id: str

    @property
    def folder(self) -> Location:
        """The tomogram's group."""
        return self.collection.path / "tomograms" / self.id

    @property
    def classes(self) -> ClassTable:
        """The class table of the collection."""
        return self.collection.classes

    @cached_property
    def _raw_image(self) -> Multiscale:
        return self.image("raw")

    @cached_property
    def shape(self) -> Zyx:
        """Extent of level 0 in voxels, z, y, x."""
        z, y, x = self.array("raw").shape
        return z, y, x

    @property
    def spacing_angstrom(self) -> tuple[float, float, float]:
        """Spacing of level 0, z, y, x in ångström."""
        return self._raw_image.spacing_angstrom

    # What there is

    @property
    def products(self) -> tuple[str, ...]:
        """The published products, ``raw`` first."""
        folders = product_folders(self.folder).items()
        return tuple(name for name, folder in folders if current_generation(folder) is not None)

    def has(self, product: str) -> bool:
        """Tell whether a product is published."""
        return current_generation(self.folder / checked_product(product)) is not None

    def path(self, product: str) -> Location:
        """Give the folder of a product's current generation, an OME-Zarr 0.5 group.

        Raises
        ------
        NotFoundError
            If there is no such product; the message lists those there are.
        """
        generation = current_generation(self.folder / checked_product(product))
        if generation is None:
            there = ", ".join(self.products) or "nothing yet"
            raise NotFoundError(f"{self.id} has no {product}: it has {there}")
        return generation

    def attributes(self, product: str) -> dict[str, Any]:
        """Give what a product says of itself: kind, recipe, parents, statistics and more."""
        return dict((read_group(self.path(product)) or {}).get("otzi", {}))

    def image(self, product: str) -> Multiscale:
        """Give the OME-Zarr description of a product: spacing, levels, channels."""
        return Multiscale.from_json(read_group(self.path(product)) or {})

    def digest(self, product: str) -> str:
        """Give the SHA-256 that identifies the published content of a product."""
        return manifest_digest(self.path(product))

    def manifest(self, product: str) -> dict[str, tuple[int, int]]:
        """Give size in bytes and CRC-32C of every file of a product, by path within its folder."""
        return read_manifest(self.path(product))

    def is_made(self, product: str, recipe: Mapping[str, Any], parents: Sequence[str]) -> bool:
        """Tell whether a product is published by this recipe, from these parents as they are."""
        if not self.has(product):
            return False
        made = self.attributes(product)
        return bool(made["recipe"] == dict(recipe) and made["parents"] == self._digests(parents))

    # Reading

    @property
    def raw(self) -> xr.DataArray:
        """The density as acquired: ``(z, y, x)``, lazy, in the stored dtype or its true values.

        Coordinates are voxel centres in ångström; `attrs` hold the statistics of the volume.
        """
        attributes = self.attributes("raw")
        lazy = self.lazy("raw")
        if quantisation := attributes.get("quantisation"):
            scale, offset = (np.float32(quantisation[key]) for key in ("scale", "offset"))
            lazy = lazy.copy(data=lazy.data.astype(np.float32) * scale + offset)
        lazy.attrs["statistics"] = attributes.get("statistics", {})
        return lazy

    @property
    def quantisation(self) -> tuple[float, float]:
        """Scale and offset of ``raw``: its true values are ``stored · scale + offset``."""
        found = self.attributes("raw").get("quantisation") or {"scale": 1.0, "offset": 0.0}
        return found["scale"], found["offset"]

    def probs(self, name: str) -> xr.DataArray:
        """Give class probabilities: ``(c, z, y, x)`` float32 in [0, 1], lazy."""
        return self._soft(f"probs/{name}")

    def labels(self, name: str) -> xr.DataArray:
        """Give soft labels ``(c, z, y, x)`` float32 in [0, 1] or hard ones ``(z, y, x)`` uint8."""
        return self._soft(f"labels/{name}")

    def _soft(self, product: str) -> xr.DataArray:
        lazy = self.lazy(product)
        if lazy.ndim == 3:
            return lazy
        data = lazy.data.astype(np.float32)
        return lazy.copy(data=data / np.float32(255) if lazy.dtype == np.uint8 else data)

    def lazy(self, product: str, level: int = 0) -> xr.DataArray:
        """Give a level of a product as stored, Dask-backed, coordinates in ångström."""
        import dask.array as da
        import xarray as xr

        image = self.image(product)
        array = self.array(product, level)
        blocks = tuple(max(1, _BLOCK_VOXELS // c) * c for c in array.chunk[-3:])
        chunks = blocks if array.ndim == 3 else (array.shape[0], *blocks)
        coordinates: dict[str, Any] = {
            axis: (np.arange(n) * 2**level + (2**level - 1) / 2) * v
            for axis, n, v in zip("zyx", array.shape[-3:], image.spacing_angstrom, strict=True)
        }
        if image.channels is not None:
            coordinates["c"] = list(image.channels)
        return xr.DataArray(
            da.from_array(array, chunks=chunks, asarray=False),
            coords=coordinates,
            dims=image.axes,
            name=product.replace("/", "_"),
            attrs={
                "unit": "angstrom",
                "spacing_angstrom": tuple(v * 2**level for v in image.spacing_angstrom),
                "tomogram": self.id,
            },
        )

    def array(self, product: str, level: int = 0, cache_bytes: int = 0) -> LevelArray:
        """Give a level of a product as an array that is read by index.

        Of decoded chunks up to `cache_bytes` are kept for regions that overlap.

        Raises
        ------
        CorruptShard
            If one of its shards is missing or has another size than was written.
        """
        return LevelArray(self.path(product), level, cache_bytes)

    def read(
        self, product: str, box: Box, level: int = 0, pad: Padding | None = None
    ) -> NDArray[Any]:
        """Give the voxels of a box: ``(z, y, x)`` or ``(c, z, y, x)`` in the stored dtype.

        Parameters
        ----------
        product, level
            What to read from.
        box
            In voxels of that level.
        pad
            What stands beyond the volume: its reflection (``reflect``), its nearest voxel
            (``edge``) or 0 (``constant``), as `numpy.pad` has it.

        Raises
        ------
        UsageError
            Without `pad`, if the box reaches beyond the volume.
        """
        return read_box(self.array(product, level), box, pad)

    # Writing

    @contextmanager
    def write(
        self,
        product: str,
        *,
        dtype: DTypeLike,
        recipe: Mapping[str, Any],
        parents: Sequence[str] = (),
        shape: Zyx | None = None,
        spacing_angstrom: tuple[float, float, float] | None = None,
        channels: Sequence[str] | None = None,
        colors: Sequence[str] | None = None,
        window: tuple[float, float, float, float] | None = None,
        chunk_voxels: int = 64,
        channels_per_chunk: int = 1,
        most_shard_voxels: int | None = None,
        downsample: str = "mean",
        inputs: Mapping[str, Any] | None = None,
    ) -> Iterator[ProductWriter]:
        """Write an image; it is published, with all its levels, on leaving without an exception.

        Parameters
        ----------
        product
            ``raw``, ``view``, ``strokes``, ``labels/NAME`` or ``probs/NAME``.
        dtype
            As stored.
        recipe
            How it is made, as plain JSON; two products of one recipe and parents are the same.
        parents
            The products it is made from.
        shape, spacing_angstrom
            Of level 0, z, y, x; those of ``raw`` where left out.
        channels, colors
            Labels and ``#rrggbb`` of the channel axis; a ``(z, y, x)`` image has no channels, and
            colours for labels 0, 1, 2 … if it is one of labels.
        window
            Minimum, start, end and maximum of the contrast.
        chunk_voxels, channels_per_chunk
            What is compressed together.
        most_shard_voxels
            Side of what lies in one file, which is what an interrupted run keeps; 256 if None.
        downsample
            ``mean``, or ``mode`` for hard labels and strokes.
        inputs
            What else decides the content, as plain JSON: an interrupted run is gone on with only
            where it had the same.
        """
        from otzi.store.grid import MOST_SHARD_VOXELS
        from otzi.store.product import Layout, ProductWriter

        channels = None if channels is None else tuple(channels)
        if channels is not None and window is None:
            window = (0.0, 0.0, 255.0, 255.0)
        kind = checked_product(product).partition("/")[0]
        layout = Layout(
            kind=kind,
            shape=shape or self.shape,
            dtype=np.dtype(dtype),
            n_channels=None if channels is None else len(channels),
            chunk_voxels=chunk_voxels,
            channels_per_chunk=channels_per_chunk,
            most_shard_voxels=most_shard_voxels or MOST_SHARD_VOXELS,
        )
        image = Multiscale(
            name=f"{self.id} {product}",
            spacing_angstrom=spacing_angstrom or self.spacing_angstrom,
            n_levels=len(layout.grids),
            channels=channels,
            colors=None if colors is None else tuple(colors),
            window=window,
            downsample=downsample,
            is_labels=kind in ("labels", "objects", "strokes") and channels is None,
        )
        plan = {"layout": str(layout), "downsample": downsample, **(inputs or {})}
        with self.stage(product, recipe=recipe, parents=parents, inputs=plan) as staging:
            writer = ProductWriter(staging, layout, image)
            yield writer
            writer.finish()

    @contextmanager
    def stage(
        self,
        product: str,
        *,
        recipe: Mapping[str, Any],
        parents: Sequence[str] = (),
        inputs: Mapping[str, Any] | None = None,
    ) -> Iterator[Staging]:
        """Stage a product of any content; it is published on leaving without an exception."""
        self.collection.check_writable()
        made = {
            "kind": checked_product(product).partition("/")[0],
            "tomogram": self.id,
            "recipe": dict(recipe),
            "parents": self._digests(parents),
            "otzi_version": otzi.__version__,
            "state": "complete",
        }
        plan = made | {"inputs": dict(inputs or {})}
        with self._staged(product, plan) as staging:
            staging.attributes.update(made)
            yield staging

    @contextmanager
    def _staged(self, product: str, plan: Mapping[str, Any]) -> Iterator[Staging]:
        collection, key = self.collection.path, f"tomograms/{self.id}/{product}"
        if isinstance(collection, Path):
            check_place(collection)
            try:
                with staged(collection, collection / key, plan) as staging:
                    yield staging
            except TemporaryFailure:
                with suppress(OtziError):  # it may be published, and only a last sync have failed
                    record(collection, self.id, product)
                raise
            record(collection, self.id, product)
        else:
            from otzi.store.upload import uploaded

            with uploaded(collection, collection / key, plan) as staging:
                yield staging

    def _digests(self, products: Sequence[str]) -> dict[str, str]:
        return {product: self.digest(product) for product in products}
