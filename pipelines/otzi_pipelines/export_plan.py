"""What an exported MRC file holds: which values, of which classes, under which header."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import otzi
from otzi.errors import NotFoundError, UsageError
from otzi.mrc_fields import mode_of
from otzi.mrc_writer import MrcImage
from otzi.ome import level_scale, level_translation

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from otzi.box import Zyx
    from otzi.ome import Spacing
    from otzi.tomogram import Tomogram

__all__ = ["DoesNotFit", "Values", "image_of", "name_files", "values_of"]

_WRITTEN_INTEGERS = (np.dtype(np.int8), np.dtype(np.int16), np.dtype(np.uint16))
_PLACEHOLDER = "{class}"
_MOST_SOURCE_LABELS = 8


class DoesNotFit(Exception):
    """A class number or code that the mode cannot hold."""


@dataclass(frozen=True, slots=True)
class Values:
    """Which values of a product are written, and how they come from the stored ones."""

    dtypes: tuple[np.dtype[Any], ...]
    """Types to write, to be tried in this order; the last one holds them, if any does."""
    text: str
    """What they are, for people."""
    channel: int | None = None
    scale: float = 1.0
    offset: float = 0.0

    def of(self, stored: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Give a block as it is written, ``stored * scale + offset`` where that is float32.

        Raises
        ------
        DoesNotFit
            If the type does not hold it.
        """
        if dtype == stored.dtype:
            return stored
        if dtype.kind != "f":
            if stored.max() > np.iinfo(dtype).max:
                raise DoesNotFit
            return stored.astype(dtype)
        values = stored.astype(np.float32)
        if (self.scale, self.offset) != (1.0, 0.0):
            values = values * np.float32(self.scale) + np.float32(self.offset)
        return values


def name_files(
    path: str, channels: tuple[str, ...] | None, classes: tuple[str, ...], product: str
) -> dict[str, Path]:
    """Give the file of each class that is wanted; of the one image under no name."""
    if channels is None:
        if classes:
            raise UsageError(f"{product} has no classes: leave --class out")
        return {"": Path(path)}
    there = ", ".join(channels)
    for name in classes:
        if name not in channels:
            raise NotFoundError(f"{product} has no class {name!r}: there are {there}")
    wanted = classes or (channels if _PLACEHOLDER in path else ())
    if not wanted:
        raise UsageError(
            f"{product} has the classes {there}: choose by --class, or put {_PLACEHOLDER} into the "
            "file name for all"
        )
    files = {name: Path(path.replace(_PLACEHOLDER, name)) for name in wanted}
    if len(set(files.values())) < len(files):
        raise UsageError(f"{len(files)} classes into {path}: put {_PLACEHOLDER} into the file name")
    return files


def values_of(tomo: Tomogram, product: str, name: str, *, stored: bool) -> Values:
    """Give what is written of a product, or of the class of this name.

    Parameters
    ----------
    tomo, product, name
        The name is empty for a product without classes.
    stored
        Leave the values as they are stored.
    """
    attributes, image = tomo.attributes(product), tomo.image(product)
    dtype = tomo.array(product).dtype
    own = (dtype,) if mode_of(dtype) is not None and not image.is_labels else _WRITTEN_INTEGERS
    channel = None if image.channels is None else image.channels.index(name)
    scale, offset = 1.0, 0.0
    meant = attributes.get("source", {}).get("header", {}).get("dtype", dtype.name)
    if quantisation := attributes.get("quantisation"):
        scale, offset = quantisation["scale"], quantisation["offset"]
    elif channel is not None and product.startswith(("probs/", "labels/")):
        scale, meant = 1 / 255 if dtype == np.uint8 else 1.0, "float32"
    is_true = (scale, offset) == (1.0, 0.0) and meant == dtype.name
    text = f"{product} {name}".rstrip()
    if stored and (scale, offset) != (1.0, 0.0):
        text = f"stored {text}, value = stored * {scale:.9g} + {offset:.9g}"
    dtypes = own if stored or is_true else (np.dtype(np.float32),)
    return Values(dtypes, text, channel, scale, offset)


def image_of(
    tomo: Tomogram, product: str, values: Values, dtype: np.dtype[Any], level: int
) -> MrcImage:
    """Give what the header of a level says: size, spacing, position and labels.

    The labels say who wrote what of which source, then what the source's labels said.
    """
    spacing = tomo.image(product).spacing_angstrom
    z, y, x = tomo.array(product, level).shape[-3:]
    origin, start = _position(tomo, spacing, level)
    source = _source(tomo)
    of = f", of {source['name']}" if "name" in source else ""
    before: list[str] = source.get("header", {}).get("labels", [])
    return MrcImage(
        shape=(z, y, x),
        dtype=dtype,
        spacing_angstrom=level_scale(spacing, level),
        origin_angstrom=origin,
        start_voxels=start,
        labels=(
            f"otzi {otzi.__version__}: {tomo.id}{of}, level {level}",
            values.text,
            *before[:_MOST_SOURCE_LABELS],
        ),
    )


def _position(tomo: Tomogram, spacing: Spacing, level: int) -> tuple[Spacing, Zyx]:
    """Give origin and start as the source has them; of a coarser level all in the origin."""
    header = _source(tomo).get("header", {})
    z, y, x = header.get("origin_angstrom", (0.0, 0.0, 0.0))
    start_z, start_y, start_x = header.get("start_voxels", (0, 0, 0))
    if level == 0:
        return (z, y, x), (start_z, start_y, start_x)
    if (z, y, x) == (0.0, 0.0, 0.0):
        z, y, x = (n * v for n, v in zip((start_z, start_y, start_x), spacing, strict=True))
    shift = level_translation(spacing, level)
    z, y, x = (a + b for a, b in zip((z, y, x), shift, strict=True))
    return (z, y, x), (0, 0, 0)


def _source(tomo: Tomogram) -> Mapping[str, Any]:
    source: Mapping[str, Any] = tomo.attributes("raw").get("source", {})
    return source
