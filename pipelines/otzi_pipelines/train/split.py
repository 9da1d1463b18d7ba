"""A split of all tomograms of a collection by shares; how it is kept there is `otzi.split`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from otzi.errors import UsageError
from otzi.split import Split

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from otzi.split import Part

__all__ = ["split_evenly"]


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
