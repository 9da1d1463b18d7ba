"""Which tomograms a network learns from, which it is judged by, and which only at the end.

Kept in the collection, in the attributes of a Zarr group of its own, so that every training keeps
to it: what is in ``val`` and ``test`` is never learnt from.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from otzi.errors import ConfigurationError, UsageError, disk_errors
from otzi.store.groups import read_group, write_group

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from otzi.collection import Collection

__all__ = ["PARTS", "Part", "Split", "read_split", "split_evenly", "write_split"]

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


def split_evenly(
    ids: Iterable[str], shares: Mapping[Part, float], seed: int, before: Split | None = None
) -> Split:
    """Give a split in which the parts have, as nearly as can be, these shares of all tomograms.

    What has a part keeps it: a tomogram that was for testing is never learnt from later.

    Parameters
    ----------
    ids
        Of all tomograms.
    shares
        Of the parts; they sum to 1.
    seed
        Of the order in which those without a part get one.
    before
        What they have already.

    Raises
    ------
    UsageError
        If the shares do not sum to 1, or one is below 0.
    """
    if min(shares.values()) < 0 or abs(sum(shares.values()) - 1) > 1e-6:
        named = ", ".join(f"--{part} {share:g}" for part, share in shares.items())
        raise UsageError(f"{named}: shares must be at least 0 and sum to 1")
    everyone = sorted(ids)
    parts = {id_: part for id_, part in (before.parts if before else {}).items() if id_ in everyone}
    fresh = [id_ for id_ in everyone if id_ not in parts]
    np.random.default_rng(seed).shuffle(fresh)
    counts = {part: sum(its == part for its in parts.values()) for part in shares}
    for id_ in fresh:
        n = len(parts) + 1
        neediest = max(shares, key=lambda part: shares[part] * n - counts[part])
        parts[id_] = neediest
        counts[neediest] += 1
    return Split(parts)


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
    UsageError
        If it is in an object store.
    OutOfSpace, AccessDenied, TemporaryFailure
        If it cannot be written; the one before stays.
    """
    collection.check_writable()
    if not isinstance(collection.path, Path):
        raise UsageError(f"{collection.path} is in an object store: split a local collection")
    with disk_errors(collection.path, "writing"):
        parts = dict(sorted(split.parts.items()))
        write_group(collection.path / _GROUP, {"otzi": {"kind": "split", "parts": parts}})
