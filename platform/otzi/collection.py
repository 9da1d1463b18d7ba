"""A collection: a folder, or a prefix of an object store, with one Zarr v3 hierarchy."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from otzi.classes import DEFAULT_CLASSES, ClassTable
from otzi.errors import (
    AccessDenied,
    CannotCreate,
    NotACollection,
    NotFoundError,
    checked_name,
    disk_errors,
    is_name,
)
from otzi.ledger.rebuild import rebuild, reconcile
from otzi.ledger.sqlite import check_place
from otzi.store.folders import is_tomogram, tomogram_ids
from otzi.store.groups import read_group, write_group
from otzi.store.location import as_location
from otzi.tomogram import Tomogram

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from otzi.store.location import Location

__all__ = ["Collection", "create_collection", "is_collection", "open_collection"]

FORMAT = 1

_HALF_MADE = re.compile(r"tomograms(/zarr\.json)?|(tomograms/)?zarr\.json\..*\.partial")
"""What lies in a folder where somebody was killed while making a collection."""


@dataclass(frozen=True)
class Collection:
    """The tomograms of a collection, by id."""

    path: Location
    classes: ClassTable
    writable: bool = False

    @property
    def workspace(self) -> Path:
        """The local folder in which products are made: its own, or one for a remote collection."""
        if isinstance(self.path, Path):
            return self.path
        from otzi.store.upload import scratch_folder

        return scratch_folder(self.path)

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of all tomograms that have a ``raw`` product, sorted."""
        return tomogram_ids(self.path)

    def add(self, id: str) -> Tomogram:  # noqa: A002
        """Give a tomogram to write ``raw`` to; it is in the collection once that is published."""
        self.check_writable()
        return Tomogram(self, checked_name(id, "tomogram"))

    def check_writable(self) -> None:
        """Make sure that it is open for writing.

        Raises
        ------
        AccessDenied
            If it is not.
        """
        if not self.writable:
            raise AccessDenied(f"{self.path} is open for reading: open it with mode='r+'")

    def __getitem__(self, id: str) -> Tomogram:  # noqa: A002
        if id not in self:
            there = ", ".join(self.ids[:8]) or "none yet: ingest one"
            raise NotFoundError(f"no tomogram {id!r} in {self.path}: there are {there}")
        return Tomogram(self, id)

    def __contains__(self, id: object) -> bool:  # noqa: A002
        return isinstance(id, str) and is_name(id) and is_tomogram(self.path / "tomograms" / id)

    def __iter__(self) -> Iterator[Tomogram]:
        return (Tomogram(self, name) for name in self.ids)

    def __len__(self) -> int:
        return len(self.ids)


def create_collection(
    path: str | Location, classes: ClassTable | Sequence[str] | None = None
) -> Collection:
    """Give a new, empty collection at a path that does not exist or is an empty folder.

    A URL, as in ``s3://bucket/name``, is a prefix under which there must be nothing.

    Raises
    ------
    CannotCreate
        If something is there already.
    """
    path = as_location(path)
    if not _is_free(path):
        what = "a collection already" if is_collection(path) else "there and no collection"
        raise CannotCreate(f"{path} is {what}: choose a new or empty folder")
    if classes is None:
        classes = DEFAULT_CLASSES
    elif not isinstance(classes, ClassTable):
        classes = ClassTable.named(tuple(classes))
    created = datetime.now(UTC).isoformat(timespec="seconds")
    attributes = {"format": FORMAT, "created": created, "classes": classes.to_json()}
    if isinstance(path, Path):
        check_place(path)
        with disk_errors(path, "creating"):
            write_group(path / "tomograms", {})
            write_group(path, {"otzi": attributes})
        rebuild(path)
    else:
        from otzi.store.upload import create_groups

        create_groups({path: {"otzi": attributes}, path / "tomograms": {}})
    return Collection(path, classes, writable=True)


def open_collection(path: str | Location, mode: Literal["r", "r+"] = "r") -> Collection:
    """Give the collection at a path or URL, for reading (``r``) or for writing too (``r+``).

    Raises
    ------
    NotFoundError
        If nothing is there.
    NotACollection
        If it is no collection, or of a later format.
    """
    path = as_location(path)
    if not path.exists():
        raise NotFoundError(f"no collection at {path}: make one with `otzi ingest {path} FILE.mrc`")
    with disk_errors(str(path), "reading"):
        attributes = (read_group(path) or {}).get("otzi", {})
    if "format" not in attributes or "classes" not in attributes:
        raise NotACollection(f"{path} is no collection: `otzi ingest` makes one in a new folder")
    if not isinstance(attributes["format"], int) or attributes["format"] > FORMAT:
        raise NotACollection(
            f"{path} has format {attributes['format']}, this otzi reads up to {FORMAT}: update otzi"
        )
    if mode == "r+" and isinstance(path, Path):
        reconcile(path)
    return Collection(path, ClassTable.from_json(attributes["classes"]), writable=mode == "r+")


def _is_free(path: Location) -> bool:
    """Tell whether a collection can be made: nothing is there, or what a kill left of one."""
    if not isinstance(path, Path):
        return not path.exists()
    if not path.exists():
        return True
    there = (found.relative_to(path).as_posix() for found in path.rglob("*"))
    return path.is_dir() and all(map(_HALF_MADE.fullmatch, there))


def is_collection(path: Location) -> bool:
    """Tell whether there is a collection at a place."""
    return "otzi" in (read_group(path) or {})
