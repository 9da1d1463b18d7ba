"""A collection: a folder that holds one Zarr v3 hierarchy of tomograms."""

from __future__ import annotations

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
)
from otzi.store.publish import read_group, write_group
from otzi.tomogram import Tomogram

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["Collection", "create_collection", "open_collection"]

FORMAT = 1


@dataclass(frozen=True)
class Collection:
    """The tomograms of a folder, by id."""

    path: Path
    classes: ClassTable
    writable: bool = False

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of all tomograms that have a ``raw`` product, sorted."""
        folders = (self.path / "tomograms").glob("*/raw/zarr.json")
        return tuple(sorted(path.parents[1].name for path in folders))

    def add(self, id: str) -> Tomogram:  # noqa: A002
        """Give a tomogram to write ``raw`` to; it is in the collection once that is published."""
        if not self.writable:
            raise AccessDenied(f"{self.path} is open for reading: open it with mode='r+'")
        return Tomogram(self, checked_name(id, "tomogram"))

    def __getitem__(self, id: str) -> Tomogram:  # noqa: A002
        if id not in self:
            there = ", ".join(self.ids[:8]) or "none yet: ingest one"
            raise NotFoundError(f"no tomogram {id!r} in {self.path}: there are {there}")
        return Tomogram(self, id)

    def __contains__(self, id: object) -> bool:  # noqa: A002
        return id in self.ids

    def __iter__(self) -> Iterator[Tomogram]:
        return (Tomogram(self, name) for name in self.ids)

    def __len__(self) -> int:
        return len(self.ids)


def create_collection(
    path: str | Path, classes: ClassTable | Sequence[str] | None = None
) -> Collection:
    """Give a new, empty collection at a path that does not exist or is an empty folder.

    Raises
    ------
    CannotCreate
        If something is there already.
    """
    path = Path(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        what = "a collection already" if _is_collection(path) else "there and no collection"
        raise CannotCreate(f"{path} is {what}: choose a new or empty folder")
    if classes is None:
        classes = DEFAULT_CLASSES
    elif not isinstance(classes, ClassTable):
        classes = ClassTable.named(tuple(classes))
    created = datetime.now(UTC).isoformat(timespec="seconds")
    attributes = {"format": FORMAT, "created": created, "classes": classes.to_json()}
    with disk_errors(path, "creating"):
        write_group(path / "tomograms", {})
        write_group(path, {"otzi": attributes})
    return Collection(path, classes, writable=True)


def open_collection(path: str | Path, mode: Literal["r", "r+"] = "r") -> Collection:
    """Give the collection at a path, for reading (``r``) or for writing too (``r+``).

    Raises
    ------
    NotFoundError
        If nothing is there.
    NotACollection
        If it is no collection, or of a later format.
    """
    path = Path(path)
    if not path.exists():
        raise NotFoundError(f"no collection at {path}: make one with `otzi ingest {path} FILE.mrc`")
    with disk_errors(path, "reading"):
        attributes = (read_group(path) or {}).get("otzi", {})
    if "format" not in attributes or "classes" not in attributes:
        raise NotACollection(f"{path} is no collection: `otzi ingest` makes one in a new folder")
    if attributes["format"] > FORMAT:
        raise NotACollection(
            f"{path} has format {attributes['format']}, this otzi reads up to {FORMAT}: update otzi"
        )
    return Collection(path, ClassTable.from_json(attributes["classes"]), writable=mode == "r+")


def _is_collection(path: Path) -> bool:
    return path.is_dir() and "otzi" in (read_group(path) or {})
