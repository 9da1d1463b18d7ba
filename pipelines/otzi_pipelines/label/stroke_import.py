"""Strokes of a file into the product ``strokes`` of a tomogram, and back as voxels."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from otzi.box import tile
from otzi.errors import NotFoundError, StrokesError
from otzi.events import Listener, Noted, ignore
from otzi.label_volume import read_label_volume
from otzi.stroke_files.ilastik import read_ilastik_labels
from otzi.stroke_files.kind import kind_of
from otzi.stroke_files.napari import read_napari_table
from otzi.stroke_voxels import StrokeVoxels, rasterise
from otzi.strokes import Strokes, read_strokes, write_strokes

if TYPE_CHECKING:
    from otzi.tomogram import Tomogram

__all__ = ["import_strokes", "stroke_voxels"]

_BLOCK = (256, 256, 256)
_FILE = "strokes.json"
_TRANSPARENT = "#00000000"


def import_strokes(
    tomo: Tomogram, source: str | Path, *, append: bool = False, listen: Listener = ignore
) -> bool:
    """Publish ``strokes`` from a file, and tell whether there was anything to do.

    The product is a label image, 0 = unlabelled, i = class i − 1; strokes that came as JSON are in
    its folder as ``strokes.json`` too.

    Parameters
    ----------
    tomo
        Of a collection open for writing.
    source
        Strokes as JSON; a label volume as the folder of a Zarr array or OME-Zarr image, as TIFF or
        as MRC; an ilastik project; or a table of points or shapes of napari. Which of these it is
        shows in its first bytes or its name.
    append
        Add to the strokes that there are, over them, instead of replacing them.
    listen
        Told of the progress.

    Raises
    ------
    NotFoundError
        If the source is not there.
    StrokesError
        If it does not belong to this tomogram or labels no voxel.
    NotAnMRC, UnsupportedMRC, TruncatedMRC
        If it is none of these files.
    ConfigurationError
        If the library for such a file is not installed.
    """
    strokes, voxels, digest = _read(tomo, Path(source))
    if not len(voxels):
        raise StrokesError(f"{source} labels no voxel: draw strokes, with a radius of 1 or more")
    has_earlier = append and tomo.has("strokes")
    earlier: list[str] = tomo.attributes("strokes")["recipe"]["sources"] if has_earlier else []
    sources = earlier if digest in earlier else [*earlier, digest]
    recipe = {"verb": "strokes", "sources": sources}
    if tomo.is_made("strokes", recipe, ("raw",)):
        listen(Noted(f"{tomo.id} has these strokes already"))
        return False
    if has_earlier:
        voxels = stroke_voxels(tomo).overlaid(voxels)
        strokes = _joined(_kept(tomo), strokes)
    with tomo.write(
        "strokes",
        dtype=np.uint8,
        colors=[_TRANSPARENT, *(c.color for c in tomo.classes)],
        downsample="mode",
        recipe=recipe,
        parents=("raw",),
    ) as writer:
        for box in tile(tomo.shape, _BLOCK):
            if not writer.is_done(box.slices):
                writer[box.slices] = voxels.labels(box)
        if strokes is not None:
            write_strokes(writer.path / _FILE, strokes)
        counts = voxels.counts(len(tomo.classes))
        writer.attributes["n_voxels"] = dict(zip(tomo.classes.names, counts, strict=True))
    return True


def stroke_voxels(tomo: Tomogram) -> StrokeVoxels:
    """Give the voxels of the product ``strokes``.

    Raises
    ------
    NotFoundError
        If there is none.
    StrokesError
        If it was drawn on a ``raw`` of another shape, which is there no more.
    """
    if not tomo.has("strokes"):
        raise NotFoundError(
            f"{tomo.id} has no strokes: draw some and import them with "
            f"`otzi strokes {tomo.collection.path} {tomo.id} FILE`"
        )
    array = tomo.array("strokes")
    if array.shape != tomo.shape:
        drawn, there = (" × ".join(map(str, shape)) for shape in (array.shape, tomo.shape))
        raise StrokesError(
            f"the strokes of {tomo.id} were drawn on {drawn} voxels, its raw has {there} now: "
            "import strokes of that"
        )
    blocks = ((box, array[box.slices]) for box in tile(tomo.shape, _BLOCK))
    return StrokeVoxels.from_labels(tomo.shape, blocks)


def _read(tomo: Tomogram, source: Path) -> tuple[Strokes | None, StrokeVoxels, str]:
    """Give the strokes, where they are polylines, their voxels, and what identifies them."""
    kind = kind_of(source)
    if kind in ("json", "table"):
        if kind == "json":
            strokes = read_strokes(source)
        else:
            strokes = read_napari_table(source, tomo.id, tomo.classes)
        strokes.check(tomo.id, tomo.shape, tomo.classes)
        voxels = rasterise(strokes.strokes, tomo.classes, tomo.shape)
        return strokes, voxels, _digest(strokes.to_json())
    if kind == "ilastik":
        voxels = read_ilastik_labels(source, tomo.id, tomo.shape, tomo.classes)
    else:
        voxels = read_label_volume(source, tomo.shape, len(tomo.classes))
    return None, voxels, voxels.sha256


def _digest(document: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(document).encode()).hexdigest()


def _kept(tomo: Tomogram) -> Strokes | None:
    path = tomo.path("strokes") / _FILE
    return Strokes.from_json(json.loads(path.read_text()), str(path)) if path.exists() else None


def _joined(earlier: Strokes | None, later: Strokes | None) -> Strokes | None:
    if earlier is None or later is None:
        return earlier or later
    classes = dict.fromkeys(earlier.classes + later.classes)
    return Strokes(later.tomogram, tuple(classes), earlier.strokes + later.strokes)
