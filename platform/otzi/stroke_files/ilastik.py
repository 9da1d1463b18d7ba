"""The labels of an ilastik pixel classification project (``.ilp``, an HDF5 file).

Source: ilastik's `PixelClassificationSerializer`, `SerialBlockSlot` and `DataSelectionSerializer`.
``PixelClassification/LabelSets/labels000`` holds the blocks of the first image: arrays with the
attributes ``blockSlice``, as ``[0:9,3:7,2:8,0:1]``, and, in later versions, ``axistags``.
``PixelClassification/LabelNames`` are the names of labels 1, 2 …, and ``Input
Data/infos/lane0000/Raw Data`` says what the first image is: ``nickname``, ``shape``, ``axistags``.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from otzi.box import Box, Zyx
from otzi.errors import OtziError, StrokesError
from otzi.stroke_files.class_names import class_named
from otzi.stroke_files.kind import needing
from otzi.stroke_voxels import StrokeVoxels

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from otzi.classes import ClassTable

__all__ = ["read_ilastik_labels"]

_LABELS, _NAMES = "PixelClassification/LabelSets", "PixelClassification/LabelNames"
_LANES = "Input Data/infos"
# What ilastik arranged images to before it wrote down their axes.
_AXES_WITHOUT_TAGS = {3: "yxc", 4: "zyxc", 5: "tzyxc"}


def read_ilastik_labels(path: Path, tomogram: str, shape: Zyx, classes: ClassTable) -> StrokeVoxels:
    """Give the labelled voxels of a tomogram in an ilastik project.

    Of several images it is the one whose nickname is the tomogram's id, also with the name of a
    dataset behind it, as in ``ts_016-exported_data``; a project of one image is taken as it is
    named. Names of labels are those of classes, as `class_named` takes them.

    Parameters
    ----------
    path
        The project.
    tomogram, shape, classes
        Id, voxels (z, y, x) and class table of the tomogram.

    Raises
    ------
    ConfigurationError
        If h5py is not installed.
    StrokesError
        If it is no such project, none of its images is this tomogram, or a label that was drawn is
        none of the classes.
    """
    with needing("ilastik", path):
        import h5py
    try:
        with h5py.File(path, "r") as project:
            if _LABELS not in project:
                raise StrokesError(
                    f"{path} holds no labels of a pixel classification, but "
                    f"{', '.join(project) or 'nothing'}: give the project, saved after drawing"
                )
            lane = _lane_of(project, tomogram, path)
            _check_shape(project, lane, shape, path)
            names = [_text(name) for name in project[_NAMES]]
            blocks = _blocks(project[f"{_LABELS}/labels{lane:03d}"], shape, path)
            return StrokeVoxels.from_labels(
                shape, ((box, _translated(labels, names, classes, path)) for box, labels in blocks)
            )
    except (OSError, LookupError, ValueError, TypeError, AttributeError) as error:
        if isinstance(error, OtziError):
            raise
        raise StrokesError(f"{path} is no ilastik project that can be read: {error}") from error


def _lane_of(project: Any, tomogram: str, path: Path) -> int:
    """Give the number of the image that is the tomogram."""
    lanes = sorted(int(name.removeprefix("labels")) for name in project[_LABELS])
    names = {lane: _text(_facts(project, lane).get("nickname", b"")) for lane in lanes}
    fitting = [lane for lane, name in names.items() if name == tomogram] or [
        lane for lane, name in names.items() if name.startswith(f"{tomogram}-")
    ]
    if len(lanes) == 1 or len(fitting) == 1:
        return (fitting or lanes)[0]
    raise StrokesError(
        f"{path} has the images {', '.join(names.values()) or 'none'}, {len(fitting)} of them "
        f"for tomogram {tomogram!r}: give one of them this nickname in ilastik"
    )


def _facts(project: Any, lane: int) -> dict[str, Any]:
    """Give what the project says of an image."""
    group = project.get(f"{_LANES}/lane{lane:04d}/Raw Data", {})
    wanted = ("nickname", "shape", "axistags")
    return {key: group[key][()] for key in wanted if key in group}


def _check_shape(project: Any, lane: int, shape: Zyx, path: Path) -> None:
    """Check that the image has the tomogram's shape, where the project says which it has."""
    facts = _facts(project, lane)
    axes = _axes(facts["axistags"]) if "axistags" in facts else ""
    extents = facts.get("shape", ())
    if not axes or len(axes) != len(extents):
        return
    by_axis = dict(zip(axes, extents, strict=True))
    found = tuple(int(by_axis.get(axis, 1)) for axis in "zyx")
    if found != shape:
        raise StrokesError(
            f"{path} labels an image of {' × '.join(map(str, found))} voxels, the tomogram has "
            f"{' × '.join(map(str, shape))} (z, y, x): label level 0 of this tomogram"
        )


def _blocks(group: Any, shape: Zyx, path: Path) -> Iterator[tuple[Box, NDArray[Any]]]:
    """Yield the blocks of an image, ``(z, y, x)``, with the labels of the project."""
    for block in group.values():
        spans = re.findall(r"(\d+):(\d+)", _text(block.attrs["blockSlice"]))
        tags = block.attrs.get("axistags")
        axes = _AXES_WITHOUT_TAGS[len(spans)] if tags is None else _axes(tags)
        if not set("zyx") <= set(axes):
            raise StrokesError(f"{path} labels an image with axes {axes}, a tomogram has z, y, x")
        order = [axes.index(axis) for axis in "zyx"]
        others = [i for i in range(len(axes)) if i not in order]
        if any(spans[i] != ("0", "1") for i in others):
            raise StrokesError(f"{path} has labels at several times or channels ({axes})")
        z, y, x = ((int(spans[i][0]), int(spans[i][1])) for i in order)
        box = Box((z[0], y[0], x[0]), (z[1], y[1], x[1]))
        if box.clip(shape) != box:
            raise StrokesError(
                f"{path} has labels up to (z, y, x) = {_last(box.stop)}, outside the volume, "
                f"which ends at {_last(shape)}: label level 0 of this tomogram"
            )
        yield box, np.asarray(block[()]).transpose(*others, *order).reshape(box.shape)


def _translated(
    labels: NDArray[Any], names: list[str], classes: ClassTable, path: Path
) -> NDArray[np.uint8]:
    """Give labels of the class table, 0 or class index + 1, for those of the project."""
    known = {name: i for i, name in enumerate(classes.names, 1)}
    translation = [0, *(known.get(class_named(name, classes) or "", 0) for name in names)]
    for label in np.unique(labels[labels != 0]).tolist():
        if label >= len(translation) or not translation[label]:
            raise StrokesError(
                f"{path} has strokes of label {label}, of the labels {', '.join(names)}; the "
                f"classes are {', '.join(classes.names)}: name the labels so in ilastik"
            )
    return np.take(np.array(translation, np.uint8), labels)


def _axes(tags: Any) -> str:
    """Give the axes in order, as ``zyxc``, of vigra's description of them."""
    return "".join(axis["key"] for axis in json.loads(_text(tags))["axes"])


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _last(stop: Zyx) -> str:
    return f"({', '.join(str(n - 1) for n in stop)})"
