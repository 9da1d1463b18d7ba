"""Label volumes as TIFF files, one plane after the other."""

from __future__ import annotations

import struct
import zlib
from contextlib import contextmanager
from itertools import takewhile
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from otzi.box import Box
from otzi.errors import OtziError, StrokesError, disk_errors
from otzi.stroke_files.kind import needing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["tiff_blocks"]


def tiff_blocks(path: Path) -> tuple[tuple[int, ...], Iterator[tuple[Box, NDArray[Any]]]]:
    """Give the shape of a TIFF file's first image, and its planes, each when it is asked for.

    Leading axes of length 1 are left out; the others are taken to be z, y, x.

    Raises
    ------
    ConfigurationError
        If tifffile is not installed.
    StrokesError
        If the file is damaged, or compressed in a way that cannot be read here.
    """
    with needing("tiff", path):
        import tifffile
    with _readable(path), tifffile.TiffFile(path) as file:
        whole = tuple(int(n) for n in file.series[0].shape)
    n_leading = sum(1 for _ in takewhile(lambda n: n == 1, whole[:-3]))
    shape = whole[n_leading:]

    def blocks() -> Iterator[tuple[Box, NDArray[Any]]]:
        _, height, width = shape
        for z, plane in enumerate(_planes(path)):
            yield Box((z, 0, 0), (z + 1, height, width)), plane[None]

    return shape, blocks()


def _planes(path: Path) -> Iterator[NDArray[Any]]:
    """Yield the planes of the first image; only one is in memory."""
    import tifffile

    with _readable(path), tifffile.TiffFile(path) as file:
        series = file.series[0]
        if series.dataoffset is not None:  # plain numbers, one after the other
            volume = np.asarray(tifffile.memmap(path, mode="r"))
            yield from volume.reshape(prod(volume.shape[:-2]), *volume.shape[-2:])
            return
        for i, page in enumerate(series.pages):
            if page is None:
                raise StrokesError(f"{path} has no page {i + 1}: save the labels as one file")
            yield from np.asarray(page.asarray()).reshape(-1, *series.shape[-2:])


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Say which file it is that cannot be read."""
    try:
        with disk_errors(path, "reading"):
            yield
    except (ValueError, LookupError, TypeError, RuntimeError, struct.error, zlib.error) as error:
        if isinstance(error, OtziError):
            raise
        raise StrokesError(
            f"{path} is no TIFF file that can be read here: {error}; save the labels uncompressed "
            "or with zlib, as uint8 or uint16"
        ) from error
