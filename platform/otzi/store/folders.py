"""Where the products of a tomogram lie, as ``raw`` and ``labels/NAME``."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from otzi.store.location import Location, PlaceT

__all__ = [
    "NAMED_KINDS",
    "SINGLE_KINDS",
    "is_tomogram",
    "product_folders",
    "tomogram_folders",
    "tomogram_ids",
]

_LOOKS_AT_ONCE = 16

SINGLE_KINDS = ("raw", "view", "strokes")
"""Products of which a tomogram has one."""
NAMED_KINDS = ("labels", "objects", "probs", "ramps", "reports", "spread", "styles")
"""Products of which it has any number, by name."""


def tomogram_folders(collection: PlaceT) -> list[PlaceT]:
    """Give the folders of all tomograms, in the order of their ids."""
    return _folders(collection / "tomograms")


def tomogram_ids(collection: Location) -> tuple[str, ...]:
    """Give the ids of all tomograms that have a ``raw`` product, sorted."""
    folders = tomogram_folders(collection)
    if isinstance(collection, Path):
        return tuple(folder.name for folder in folders if is_tomogram(folder))
    with ThreadPoolExecutor(_LOOKS_AT_ONCE) as pool:
        there = list(pool.map(is_tomogram, folders))
    return tuple(folder.name for folder, is_there in zip(folders, there, strict=True) if is_there)


def is_tomogram(folder: Location) -> bool:
    """Tell whether a tomogram has a ``raw`` product."""
    return (folder / "raw" / "zarr.json").exists()


def product_folders(tomogram: PlaceT) -> dict[str, PlaceT]:
    """Give the folders of what may be published of a tomogram, by product, ``raw`` first."""
    folders = {kind: tomogram / kind for kind in SINGLE_KINDS}
    for kind in NAMED_KINDS:
        for path in _folders(tomogram / kind):
            folders[f"{kind}/{path.name}"] = path
    return folders


def _folders(place: PlaceT) -> list[PlaceT]:
    return sorted(place.glob("[!.]*/"), key=lambda folder: folder.name)
