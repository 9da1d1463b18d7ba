"""The ramps of several tomograms, each judged by what the collection as a whole says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from otzi.events import Listener, Noted, ignore
from otzi_pipelines.ramps.estimate import own_thresholds
from otzi_pipelines.ramps.prior import ClassPrior, class_priors
from otzi_pipelines.ramps.stored import (
    Replacement,
    StoredRamps,
    are_current,
    are_made,
    publish_ramps,
    read_ramps,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from otzi.ramps import SliceThresholds
    from otzi.tomogram import Tomogram

__all__ = ["CollectionRamps", "estimate_together"]


@dataclass(frozen=True)
class CollectionRamps:
    """What is stored of the chosen tomograms, by id, and what it was judged by."""

    ramps: Mapping[str, StoredRamps]
    priors: Mapping[str, ClassPrior]
    """By class, over all tomograms of the collection that have ramps of this name."""
    objections: Mapping[str, Mapping[str, str]]
    """Of each tomogram why a class's own limit stands out."""


def estimate_together(
    chosen: Sequence[Tomogram],
    others: Sequence[Tomogram],
    name: str,
    *,
    use_prior: bool = False,
    listen: Listener = ignore,
) -> CollectionRamps:
    """Publish ``ramps/NAME`` of the chosen tomograms, and give them beside the collection's.

    With `use_prior` the median of the collection is stored where a tomogram's own limit stands out,
    together with the reason; without, every tomogram has its own. `others` are only compared with,
    as far as they have ramps.
    """
    own = {tomo.id: own_thresholds(tomo, name, listen) for tomo in chosen}
    beside = [read_ramps(tomo, name).thresholds for tomo in others if are_current(tomo, name)]
    priors = class_priors(
        {kind: curve.low if curve.n_used else None for kind, curve in one.items()}
        for one in (*own.values(), *beside)
    )
    objections = {id_: _objections(curves, priors) for id_, curves in own.items()}
    for tomo in chosen:
        replaced = {
            kind: Replacement(priors[kind].median, reason)
            for kind, reason in objections[tomo.id].items()
            if use_prior
        }
        if are_made(tomo, name, replaced):
            listen(Noted(f"{tomo.id}: ramps/{name} is done already"))
        else:
            publish_ramps(tomo, name, own[tomo.id], replaced)
    return CollectionRamps({t.id: read_ramps(t, name) for t in chosen}, priors, objections)


def _objections(
    thresholds: Mapping[str, SliceThresholds], priors: Mapping[str, ClassPrior]
) -> dict[str, str]:
    reasons = {
        kind: priors[kind].objection(own.low, own.n_used)
        for kind, own in thresholds.items()
        if kind in priors
    }
    return {kind: reason for kind, reason in reasons.items() if reason}
