"""Verb import-labels: a label volume of every voxel, such as a truth, becomes ``labels/NAME``."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

from otzi.arguments import CollectionArgument, TomogramArgument
from otzi.box import Box
from otzi.cli import verb
from otzi.collection import open_collection
from otzi.console import Console
from otzi.errors import SourceError, StrokesError
from otzi.events import Listener, Noted, ignore, step
from otzi.label_volume import label_blocks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from otzi.box import Zyx
    from otzi.tomogram import Tomogram

    Blocks = Iterator[tuple[Box, NDArray[np.uint8]]]

__all__ = ["command", "import_labels"]

_CHUNK_VOXELS = 64


def import_labels(
    tomo: Tomogram, source: str | Path, name: str, *, listen: Listener = ignore
) -> bool:
    """Publish hard labels ``labels/NAME`` of a label volume; tell whether there was work to do.

    The product is ``(z, y, x)`` uint8: the class, or 255 where nothing is labelled. The source is
    read twice, once to check it; only some planes of it are in memory.

    Parameters
    ----------
    tomo
        Of a collection open for writing.
    source
        MRC, TIFF, Zarr array or OME-Zarr image: 0 = unlabelled, i = class i − 1.
    name
        Of the labels.
    listen
        Told of the progress.

    Raises
    ------
    NotFoundError
        If the source is not there.
    NotAnMRC, UnsupportedMRC, TruncatedMRC
        If it is none of these files.
    StrokesError
        If its shape is not the tomogram's, a voxel is no label, or all are 0.
    SourceError
        If it is changed while it is read.
    """
    source, product, n_classes = Path(source), f"labels/{name}", len(tomo.classes)
    with step(listen, f"labels of {tomo.id}", 2 * tomo.shape[0], "planes") as work:
        counts, digest = np.zeros(n_classes + 1, np.int64), hashlib.sha256()
        for box, labels in label_blocks(source, tomo.shape, n_classes):
            counts += np.bincount(labels.ravel(), minlength=n_classes + 1)
            digest.update(labels.tobytes())
            work.advance(box.shape[0])
        n_unlabelled, *n_voxels = counts.tolist()
        if not any(n_voxels):
            raise StrokesError(f"{source} labels no voxel: 1 is {tomo.classes.names[0]}, not 0")
        recipe = {"verb": "import-labels", "sha256": digest.hexdigest()}
        if tomo.is_made(product, recipe, ("raw",)):
            listen(Noted(f"{tomo.id} has this {product} already"))
            return False
        with tomo.write(
            product,
            dtype=np.uint8,
            colors=[c.color for c in tomo.classes],
            chunk_voxels=_CHUNK_VOXELS,
            downsample="mode",
            recipe=recipe,
            parents=("raw",),
        ) as writer:
            found = hashlib.sha256()
            for box, labels in _slabs(label_blocks(source, tomo.shape, n_classes), tomo.shape):
                if not writer.is_done(box.slices):
                    writer[box.slices] = labels - np.uint8(1)  # 0, unlabelled, becomes 255
                found.update(labels.tobytes())
                work.advance(box.shape[0])
            if found.digest() != digest.digest():
                raise SourceError(f"{source} was changed while it was read: wait until it is whole")
            writer.attributes["classes"] = list(tomo.classes.names)
            writer.attributes["n_voxels"] = dict(zip(tomo.classes.names, n_voxels, strict=True))
            writer.attributes["n_unlabelled"] = n_unlabelled
    return True


def _slabs(blocks: Blocks, shape: Zyx) -> Blocks:
    """Yield the same as slabs of whole chunks; an array given is valid until the next one."""
    depth, height, width = shape
    slab = np.empty((min(_CHUNK_VOXELS, depth), height, width), np.uint8)
    for box, labels in blocks:
        for z, plane in enumerate(labels, box.start[0]):
            row = z % _CHUNK_VOXELS
            slab[row] = plane
            if row + 1 == _CHUNK_VOXELS or z + 1 == depth:
                yield Box((z - row, 0, 0), (z + 1, height, width)), slab[: row + 1]


@verb
def command(
    console: Console,
    collection: CollectionArgument,
    tomogram: TomogramArgument,
    file: Annotated[
        Path, typer.Argument(help="MRC, TIFF or Zarr: 0 = unlabelled, i = class i - 1.")
    ],
    *,
    name: Annotated[str, typer.Option(help="Of the labels.")],
) -> None:
    """Import a label volume of all voxels, such as a known truth, as hard labels."""
    tomo = open_collection(collection, mode="r+")[tomogram]
    made = import_labels(tomo, file, name, listen=console)
    product = f"labels/{name}"
    path, attributes = str(tomo.path(product)), tomo.attributes(product)
    document = {
        "tomogram": tomo.id,
        "made": made,
        "path": path,
        "voxels": attributes["n_voxels"],
        "unlabelled": attributes["n_unlabelled"],
    }
    listed = ", ".join(f"{key} {n:,}" for key, n in attributes["n_voxels"].items())
    unlabelled = attributes["n_unlabelled"]
    console.result(document, f"{tomo.id}: {path}: {listed}, unlabelled {unlabelled:,}")
