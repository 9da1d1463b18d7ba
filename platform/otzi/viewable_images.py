"""What Neuroglancer cannot show of a collection or of an OME-Zarr image, by its metadata."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from otzi.collection import open_collection
from otzi.errors import NotACollection, NotFoundError, OtziError, VerificationError
from otzi.store.groups import read_group
from otzi.viewable import viewing_problems

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["image_problems", "problems_below"]


def problems_below(place: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield each image of a collection, or the image at a place, with why it cannot be shown.

    Raises
    ------
    NotFoundError
        If nothing is there.
    """
    if not place.exists():
        raise NotFoundError(f"{place} is not there: name a collection or an OME-Zarr image")
    try:
        collection = open_collection(place)
    except NotACollection:
        yield str(place), _problems(place)
        return
    for tomo in collection:
        for product in tomo.products:
            folder = Path(str(tomo.path(product)))
            for path in (folder, folder / "overview"):
                if "ome" in (read_group(path) or {}):
                    yield str(path.relative_to(place / "tomograms")), _problems(path)


def image_problems(folder: Path) -> list[str]:
    """Give why an OME-Zarr image cannot be shown, each with its remedy, once for all levels.

    Raises
    ------
    VerificationError
        If it has no metadata of an OME-Zarr 0.5 image, or damaged ones.
    """
    ome = (read_group(folder) or {}).get("ome", {})
    problems: dict[str, None] = {}
    try:
        image = ome["multiscales"][0]
        for dataset in image["datasets"]:
            array: dict[str, Any] = json.loads(
                (folder / dataset["path"] / "zarr.json").read_bytes()
            )
            problems |= dict.fromkeys(viewing_problems(array, image["axes"]))
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise VerificationError(f"{folder} is no OME-Zarr 0.5 image: {error!r}") from error
    return list(problems)


def _problems(folder: Path) -> list[str]:
    try:
        return image_problems(folder)
    except OtziError as error:
        return [str(error)]
