"""Label volumes as a source of strokes: MRC files and Zarr arrays, 0 = unlabelled."""

from __future__ import annotations

from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr

from otzi.box import Box, Zyx
from otzi.errors import NotFoundError, StrokesError, disk_errors
from otzi.mrc import read_header, slabs
from otzi.stroke_voxels import StrokeVoxels

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

__all__ = ["read_label_volume"]

_PLANES = 16


def read_label_volume(path: str | Path, shape: Zyx, n_classes: int) -> StrokeVoxels:
    """Give the labelled voxels of a file or folder: label i means class i − 1.

    Parameters
    ----------
    path
        An MRC file of any mode, or the folder of a Zarr array or of an OME-Zarr image.
    shape
        Of the tomogram, which the labels must have too.
    n_classes
        The largest label.

    Raises
    ------
    NotFoundError
        If nothing is there.
    NotAnMRC, UnsupportedMRC, TruncatedMRC
        If a file is no MRC file.
    StrokesError
        If a folder is no Zarr array, the shape differs, or a voxel is no label.
    """
    path = Path(path)
    if not path.exists():
        raise NotFoundError(f"label volume {path} is not there")
    found, blocks = _zarr_blocks(path) if path.is_dir() else _mrc_blocks(path)
    if found != shape:
        raise StrokesError(
            f"{path} has {_by(found)} voxels, the tomogram has {_by(shape)} (z, y, x): "
            "labels are of level 0, one for each voxel"
        )
    return StrokeVoxels.from_labels(
        shape, ((box, _checked(labels, n_classes, str(path))) for box, labels in blocks)
    )


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


def _checked(labels: NDArray[Any], n_classes: int, source: str) -> NDArray[Any]:
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
