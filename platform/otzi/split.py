"""Which tomograms a network learns from, which it is judged by, and which only at the end.

Kept in the collection, in the attributes of a Zarr group of its own, so that every training keeps
to it: what is in ``val`` and ``test`` is never learnt from.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from otzi.errors import ConfigurationError, Locked, UsageError, disk_errors
from otzi.store.groups import GROUP, group_text, read_group, write_group

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from otzi.collection import Collection

__all__ = ["PARTS", "Part", "Split", "read_split", "write_split"]

Part = Literal["train", "val", "test"]
PARTS: tuple[Part, ...] = get_args(Part)

_GROUP = "split"


@dataclass(frozen=True, slots=True)
class Split:
    """The part of each tomogram; every one has one at most."""

    parts: Mapping[str, Part]

    def __post_init__(self) -> None:
        for id_, part in self.parts.items():
            if part not in PARTS:
                raise UsageError(f"{id_}: no part {part!r}, choose one of {', '.join(PARTS)}")

    def of(self, part: Part) -> tuple[str, ...]:
        """Give the ids of the tomograms in a part, sorted."""
        return tuple(sorted(id_ for id_, its_part in self.parts.items() if its_part == part))

    def moved(self, ids: Iterable[str], part: Part) -> Split:
        """Give the split after these tomograms are put into a part."""
        return Split({**self.parts, **dict.fromkeys(ids, part)})


def read_split(collection: Collection) -> Split | None:
    """Give the split of a collection; None if it has none.

    Raises
    ------
    ConfigurationError
        If what is there is no split.
    """
    attributes = read_group(collection.path / _GROUP)
    if attributes is None:
        return None
    try:
        return Split(dict(attributes["otzi"]["parts"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigurationError(
            f"{collection.path / _GROUP} holds no split ({error}): make it with `otzi split`"
        ) from error


def write_split(collection: Collection, split: Split) -> None:
    """Keep a split in a collection, in place of the one before.

    Raises
    ------
    Locked
        If somebody else writes it to an object store at the same time.
    OutOfSpace, AccessDenied, TemporaryFailure
        If it cannot be written; the one before stays.
    """
    collection.check_writable()
    folder = collection.path / _GROUP
    attributes = {"otzi": {"kind": "split", "parts": dict(sorted(split.parts.items()))}}
    if isinstance(folder, Path):
        with disk_errors(folder, "writing"):
            write_group(folder, attributes)
        return
    from otzi.store.objects import Conflict

    place = folder / GROUP
    try:
        place.put(group_text(attributes).encode(), replacing=place.state())
    except Conflict as error:
        raise Locked(f"{place} is being changed by somebody else: look at it, and retry") from error
