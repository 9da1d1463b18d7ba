"""Centroids of objects as a RELION particle file, for sub-tomogram averaging.

Coordinates are those of RELION 5: in voxels of the tomogram, the centre of its first voxel being 0,
and in ångström from its middle, which is half its number of voxels.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from otzi.errors import ConfigurationError, UsageError, disk_errors
from otzi.files import writing_whole
from otzi_pipelines.objects.find import JSON

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from otzi.tomogram import Tomogram

__all__ = ["checked_star", "particle_columns", "save_star"]


def checked_star(path: Path) -> None:
    """Check, before any work, that a STAR file can be written.

    Raises
    ------
    UsageError
        If the name does not end in ``.star``.
    ConfigurationError
        If the package for it is missing.
    """
    if path.suffix != ".star":
        raise UsageError(f"--star {path}: the name of a STAR file ends in .star")
    try:
        import starfile  # type: ignore[import-untyped]  # noqa: F401
    except ImportError as error:
        raise ConfigurationError(
            "STAR files need the package starfile: pip install 'otzi[star]'"
        ) from error


def save_star(tomograms: Sequence[Tomogram], product: str, path: Path) -> None:
    """Write the centroids of the objects of tomograms, in their order, into one file.

    Raises
    ------
    OutOfSpace, AccessDenied
        If it cannot be written.
    """
    import pandas  # type: ignore[import-untyped]
    import starfile

    columns: dict[str, list[Any]] = {}
    for tomo in tomograms:
        document = json.loads((tomo.path(product) / JSON).read_text())
        for name, values in particle_columns(document).items():
            columns.setdefault(name, []).extend(values)
    text = starfile.to_string({"particles": pandas.DataFrame(columns)})
    with disk_errors(path, "writing"), writing_whole(path) as file:
        file.write(text.encode())


def particle_columns(document: dict[str, Any]) -> dict[str, list[Any]]:
    """Give the columns of a particle table from what ``objects.json`` holds."""
    objects, classes = document["objects"], list(document["classes"])
    columns: dict[str, list[Any]] = {"rlnTomoName": [document["tomogram"]] * len(objects)}
    sides = dict(zip("zyx", document["shape"], strict=True))
    spacing = dict(zip("zyx", document["spacing_angstrom"], strict=True))
    for axis in "xyz":
        places = [found[f"centroid_{axis}_voxels"] for found in objects]
        columns[f"rlnCoordinate{axis.upper()}"] = places
        columns[f"rlnCenteredCoordinate{axis.upper()}Angst"] = [
            round((place - sides[axis] / 2) * spacing[axis], 4) for place in places
        ]
    columns["rlnTomoParticleId"] = [found["id"] for found in objects]
    columns["rlnClassNumber"] = [classes.index(found["class"]) + 1 for found in objects]
    if document["thresholds"] is not None:
        columns["rlnAutopickFigureOfMerit"] = [found["mean_probability"] for found in objects]
    return columns
