"""Label volumes of other programs: MRC, TIFF and Zarr, 0 = unlabelled."""

from __future__ import annotations

from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr

from otzi.box import Box, Zyx
from otzi.errors import StrokesError, disk_errors
from otzi.mrc import read_header, slabs
from otzi.stroke_files.kind import kind_of
from otzi.stroke_files.tiff import tiff_blocks
from otzi.stroke_voxels import StrokeVoxels

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

__all__ = ["label_blocks", "read_label_volume"]

_PLANES = 16


def read_label_volume(path: str | Path, shape: Zyx, n_classes: int) -> StrokeVoxels:
    """Give the labelled voxels of a file or folder, as `label_blocks` reads it."""
    return StrokeVoxels.from_labels(shape, label_blocks(path, shape, n_classes))


def label_blocks(
    path: str | Path, shape: Zyx, n_classes: int
) -> Iterator[tuple[Box, NDArray[np.uint8]]]:
    """Yield the labels of a file or folder from z = 0 on, some whole planes at a time.

    Each is a box with its ``(z, y, x)`` uint8 labels: i means class i − 1, 0 unlabelled.

    Parameters
    ----------
    path
        An MRC file of any mode, a TIFF file, or the folder of a Zarr array or of an OME-Zarr image.
    shape
        Of the tomogram, which the labels must have too.
    n_classes
        The largest label.

    Raises
    ------
    NotFoundError
        If nothing is there.
    NotAnMRC, UnsupportedMRC, TruncatedMRC
        If a file is neither a TIFF nor an MRC file.
    ConfigurationError
        If it is a TIFF file and tifffile is not installed.
    StrokesError
        If a folder is no Zarr array, the shape differs, or a voxel is no label.
    """
    path = Path(path)
    blocks_of = {"zarr": _zarr_blocks, "tiff": tiff_blocks}.get(kind_of(path), _mrc_blocks)
    found, blocks = blocks_of(path)
    if found != shape:
        raise StrokesError(
            f"{path} has {_by(found)} voxels, the tomogram has {_by(shape)} (z, y, x): "
            "labels are of level 0, one for each voxel"
        )
    for box, labels in blocks:
        yield box, _checked(labels, n_classes, str(path))


Blocks = tuple[tuple[int, ...], "Iterator[tuple[Box, NDArray[Any]]]"]


def _mrc_blocks(path: Path) -> Blocks:
    header = read_header(path)
    return header.shape, slabs(path, header, _PLANES)


def _zarr_blocks(path: Path) -> Blocks:
    array = _zarr_array(path)
    first = (0,) * sum(1 for _ in takewhile(lambda n: n == 1, array.shape[:-3]))
    shape = array.shape[len(first) :]

    def blocks() -> Iterator[tuple[Box, NDArray[Any]]]:
        depth, height, width = shape
        planes = max(_PLANES, array.chunks[-3])
        for z in range(0, depth, planes):
            box = Box((z, 0, 0), (min(z + planes, depth), height, width))
            with disk_errors(path, "reading"):
                labels = np.asarray(array[(*first, *box.slices)])
            yield box, labels

    return shape, blocks()


def _zarr_array(path: Path) -> Any:
    """Give a Zarr array, or the first level of an OME-Zarr image of any version."""
    try:
        node = zarr.open(path, mode="r")
        if isinstance(node, zarr.Group):
            attributes = dict(node.attrs)
            images: Any = attributes.get("ome", attributes)
            node = node[images["multiscales"][0]["datasets"][0]["path"]]
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise StrokesError(f"{path} is no Zarr array and no OME-Zarr image: {error!r}") from error
    return node


def _checked(labels: NDArray[Any], n_classes: int, source: str) -> NDArray[np.uint8]:
    """Give the labels as integers, if that is what they are."""
    wrong = labels[~((labels >= 0) & (labels <= n_classes) & (labels == np.rint(labels)))]
    if wrong.size:
        raise StrokesError(
            f"{source} has label {wrong.flat[0]:g}: labels are whole numbers, 0 for unlabelled, "
            f"1 to {n_classes} for the classes"
        )
    return labels.astype(np.uint8)


def _by(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape))
