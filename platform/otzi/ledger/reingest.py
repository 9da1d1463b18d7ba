"""``raw`` once more, from its source file: what repair takes damaged files from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from otzi.cli import call
from otzi.errors import NotFoundError, disk_errors
from otzi.files import sha256_of_file
from otzi.ledger.sqlite import ledger_path
from otzi.store.folders import tomogram_folders
from otzi.store.groups import current_generation

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from otzi.console import Console

__all__ = ["find_source", "reingest"]


def find_source(places: Sequence[Path], n_bytes: int, sha256: str) -> Path | None:
    """Give the file of this content among the files named and those in the folders named.

    Raises
    ------
    NotFoundError
        If one of the places is not there.
    """
    for path in _files(places):
        with disk_errors(path, "reading"):
            if path.stat().st_size == n_bytes and sha256_of_file(path) == sha256:
                return path
    return None


def reingest(
    console: Console,
    places: Sequence[Path],
    collection: Path,
    tomogram: str,
    attributes: Mapping[str, Any],
) -> list[Path]:
    """Ingest the source of a tomogram into a new collection, by the settings it was ingested by.

    Parameters
    ----------
    console
        Told what happens.
    places
        Files and folders in which the source is looked for, by its content.
    collection
        The new one.
    tomogram, attributes
        Id, and what ``raw`` says of itself.

    Returns
    -------
    list of Path
        The generations that came of it, of each volume for a stack of volumes; none if the source
        was not found.
    """
    source, recipe = attributes.get("source", {}), attributes.get("recipe", {})
    path = find_source(places, source.get("n_bytes", -1), source.get("sha256", ""))
    if path is None:
        return []
    is_one_of_many = "volume" in source
    size, fill = recipe.get("voxel_size_angstrom"), recipe.get("nonfinite")
    call(
        "ingest",
        console,
        collection=collection,
        sources=[path],
        voxel_size=size and ",".join(map(repr, size)),
        preset=recipe["preset"],
        nonfinite={None: "keep", "mean": "fill"}.get(fill, f"fill={fill!r}"),
        tomogram=None if is_one_of_many else tomogram,
        split_volumes=is_one_of_many,
        # It was taken once: what it was taken in spite of is no reason to leave it now.
        as_volume=True,
        salvage=True,
    )
    made = [current_generation(folder / "raw") for folder in tomogram_folders(collection)]
    if not ledger_path(collection).is_relative_to(collection):
        ledger_path(collection).unlink(missing_ok=True)
    return [generation for generation in made if generation is not None]


def _files(places: Sequence[Path]) -> Iterator[Path]:
    for place in places:
        if not place.exists():
            raise NotFoundError(f"source {place} is not there: name MRC files or folders of them")
        if place.is_dir():
            yield from (path for path in sorted(place.rglob("*")) if path.is_file())
        else:
            yield place
