"""The collection that sources go into: opened to write, or made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otzi.collection import Collection, create_collection, is_collection, open_collection
from otzi.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otzi.store.location import Location

__all__ = ["collection_to_fill"]


def collection_to_fill(path: Location, classes: Sequence[str] | None) -> Collection:
    """Give the collection at a place, open to write; it is made if nothing is there.

    Raises
    ------
    UsageError
        If it has other classes than these.
    CannotCreate
        If there is a folder that is no collection.
    """
    if not is_collection(path):
        return create_collection(path, classes)
    col = open_collection(path, mode="r+")
    if classes is not None and tuple(classes) != col.classes.names:
        raise UsageError(
            f"{path} has the classes {', '.join(col.classes.names)}, not {', '.join(classes)}: "
            "leave --classes out, or make another collection"
        )
    return col
