"""Where a collection lies: a folder, or a prefix of an object store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeAlias, TypeVar

from otzi.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from otzi.store.objects import ObjectPath

__all__ = ["Location", "Place", "PlaceT", "as_location", "local_folder", "zarr_store"]

Location: TypeAlias = "Path | ObjectPath"
"""Whoever asks for more than both have looks whether it is a `Path`."""


class Place(Protocol):
    """What both have, and functions need that give what they were given."""

    @property
    def name(self) -> str:
        """The last part."""

    def __truediv__(self, key: str, /) -> Self: ...

    def glob(self, pattern: str, /) -> Iterable[Self]:
        """Give the folders right below whose names match ``PATTERN/``."""

    def read_bytes(self) -> bytes:
        """Give the content of a file."""


PlaceT = TypeVar("PlaceT", bound=Place)
"""A `Path` or an `ObjectPath`."""


def as_location(place: str | Location) -> Location:
    """Give the place of a path or a URL: ``s3://bucket/name``, ``gs://…``, ``az://…``.

    Raises
    ------
    ConfigurationError
        If it is a URL, and the library for it is not installed.
    UsageError
        If it is a URL of no object store, or names no bucket.
    """
    if not isinstance(place, str):
        return place
    if "://" not in place:
        return Path(place)
    try:
        from otzi.store.objects import ObjectPath
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"{place} needs {error.name}, which is not installed: pip install 'otzi[s3]'"
        ) from error
    return ObjectPath.from_url(place)


def local_folder(place: Location) -> Path:
    """Give a place back, for what works with files alone.

    Raises
    ------
    ConfigurationError
        If it is in an object store.
    """
    if not isinstance(place, Path):
        raise ConfigurationError(
            f"{place} is in an object store, and this works in a folder alone: copy it to one"
        )
    return place


def zarr_store(folder: Location) -> Any:
    """Give what zarr-python opens to read below a place."""
    return folder if isinstance(folder, Path) else folder.zarr_store()
