"""The table of objects: what is said of each, in columns.  Pure."""

from __future__ import annotations

import csv
from io import StringIO
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from otzi_pipelines.objects.surface import surface_areas

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from otzi.box import Zyx
    from otzi.ome import Spacing
    from otzi_pipelines.objects.parts import Parts

__all__ = ["Columns", "class_counts", "object_columns", "table_csv", "table_rows"]

Columns = dict[str, "NDArray[Any]"]
"""Equally long, by name."""

_ANGSTROM_PER_NM = 10.0
_DIGITS = 9


def object_columns(
    objects: Parts,
    classes: Sequence[str],
    shape: Zyx,
    spacing_angstrom: Spacing,
    whole_code: int | None,
) -> Columns:
    """Give what is said of objects.

    ``id`` (from 1), ``class``, ``voxels``, ``volume_nm3``, ``diameter_nm`` (of a ball of this
    volume), ``surface_nm2`` (`otzi_pipelines.objects.surface`), ``centroid_z_angstrom`` …,
    ``centroid_z_voxels`` … (voxel centres lie at whole numbers), ``start_z_voxels`` …,
    ``stop_z_voxels`` … of the bounding box, half-open, ``mean_probability`` where there are
    probabilities, and ``touches_border``: whether it may go on beyond the volume.

    Parameters
    ----------
    objects
        In the order of their ids.
    classes
        By their numbers in `objects`, from 1.
    shape, spacing_angstrom
        Of the volume, z, y, x.
    whole_code
        The code of probability 1; None where there are no probabilities.
    """
    spacing = np.array(spacing_angstrom)
    centroids = objects.positions / objects.voxels[:, None]
    volumes = objects.voxels * (prod(spacing_angstrom) / _ANGSTROM_PER_NM**3)
    areas = surface_areas(objects.crossings, spacing_angstrom)
    is_cut = (objects.start == 0) | (objects.stop == np.array(shape))
    columns: Columns = {
        "id": np.arange(1, len(objects) + 1),
        "class": np.array(classes, dtype=object)[objects.kinds - 1],
        "voxels": objects.voxels,
        "volume_nm3": volumes,
        "diameter_nm": np.cbrt(6 * volumes / np.pi),
        "surface_nm2": areas / _ANGSTROM_PER_NM**2,
    }
    for name, unit, values in (
        ("centroid", "angstrom", centroids * spacing),
        ("centroid", "voxels", centroids),
        ("start", "voxels", objects.start),
        ("stop", "voxels", objects.stop),
    ):
        columns |= {f"{name}_{axis}_{unit}": values[:, i] for i, axis in enumerate("zyx")}
    if whole_code is not None:
        columns["mean_probability"] = objects.codes / objects.voxels / whole_code
    columns["touches_border"] = is_cut.any(axis=1)
    return columns


def table_csv(columns: Columns) -> str:
    """Give the table as comma-separated values with a line of names; nine digits are kept."""
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*map(_words, columns.values()), strict=True))
    return text.getvalue()


def table_rows(columns: Columns) -> list[dict[str, Any]]:
    """Give the table as plain JSON, a dictionary for each object."""
    lists = (
        _rounded(column) if column.dtype.kind == "f" else column.tolist()
        for column in columns.values()
    )
    return [dict(zip(columns, row, strict=True)) for row in zip(*lists, strict=True)]


def class_counts(columns: Columns, classes: Sequence[str]) -> Mapping[str, Mapping[str, Any]]:
    """Give for each class the number of its objects, their volume and the largest one's."""
    counts = {}
    for name in classes:
        volumes = columns["volume_nm3"][columns["class"] == name]
        counts[name] = {
            "objects": len(volumes),
            "volume_nm3": float(f"{volumes.sum():.{_DIGITS}g}"),
            "largest_nm3": float(f"{volumes.max(initial=0.0):.{_DIGITS}g}"),
        }
    return counts


def _words(column: NDArray[Any]) -> list[Any]:
    if column.dtype.kind == "f":
        return _rounded(column)
    if column.dtype.kind == "b":
        return ["true" if value else "false" for value in column]
    return list(column.tolist())


def _rounded(column: NDArray[Any]) -> list[float]:
    return [float(f"{value:.{_DIGITS}g}") for value in column]
