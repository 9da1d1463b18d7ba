"""The product ``ramps/NAME``: the curve of every class, and what follows from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr

from otzi.errors import ConfigurationError
from otzi.ramps import SliceThresholds, fit_quadratic
from otzi.store.location import zarr_store
from otzi_pipelines.ramps.slab import SLAB_METHOD, Slab, find_slab

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from otzi.tomogram import Tomogram

__all__ = ["Replacement", "StoredRamps", "are_current", "are_made", "publish_ramps", "read_ramps"]

_RECIPE = {
    "method": "isodata",
    "start": "mean",
    "over": "slices",
    "quadratic": "biweight",
    "slab": SLAB_METHOD,
}


@dataclass(frozen=True, slots=True)
class Replacement:
    """A left limit that is not the tomogram's own."""

    low: float
    reason: str


@dataclass(frozen=True)
class StoredRamps:
    """What a tomogram's ``ramps/NAME`` holds."""

    entries: Mapping[str, Mapping[str, Any]]
    """By class, as stored: see `publish_ramps`."""
    thresholds: Mapping[str, SliceThresholds]
    """By class."""
    slab: Slab


def are_made(tomo: Tomogram, name: str, replaced: Mapping[str, Replacement] | None = None) -> bool:
    """Tell whether ``ramps/NAME`` is what `publish_ramps` would make of the probabilities."""
    return tomo.is_made(f"ramps/{name}", _recipe(replaced), (f"probs/{name}",))


def are_current(tomo: Tomogram, name: str) -> bool:
    """Tell whether ``ramps/NAME`` is of the probabilities as they are, limits replaced or not."""
    product = f"ramps/{name}"
    if not tomo.has(product):
        return False
    recipe = tomo.attributes(product)["recipe"]
    own = {key: value for key, value in recipe.items() if key != "replaced"}
    return own == _RECIPE and tomo.is_made(product, recipe, (f"probs/{name}",))


def publish_ramps(
    tomo: Tomogram,
    name: str,
    thresholds: Mapping[str, SliceThresholds],
    replaced: Mapping[str, Replacement] | None = None,
) -> None:
    """Publish ``ramps/NAME``.

    The attribute ``ramps`` holds for every class ``low``, ``high``, ``slices_used`` and the
    coefficients ``quadratic`` of `otzi.ramps.fit_quadratic`; of one whose limit is replaced the
    ``reason``, too, and its ``own_low``. The attribute ``slab`` holds first slice, end and margins.
    The arrays ``thresholds`` and ``contrasts``, ``(class, z)`` float32, hold the curves; a
    threshold is NaN in slices of one value.

    Parameters
    ----------
    tomo
        Of a collection open for writing.
    name
        Of the probabilities.
    thresholds
        By class, in the order of the channels.
    replaced
        Limits to store for the tomogram's own, by class.
    """
    curves = list(thresholds.values())
    slab = find_slab([own.contrast for own in curves[1:] or curves])
    entries = {
        kind: {
            "low": own.low,
            "high": 1.0,
            "slices_used": own.n_used,
            "quadratic": list(fit_quadratic(own.curve)),
        }
        for kind, own in thresholds.items()
    }
    for kind, other in (replaced or {}).items():
        own_low = entries[kind]["low"]
        entries[kind] |= {"low": other.low, "own_low": own_low, "reason": other.reason}
    with tomo.stage(
        f"ramps/{name}", recipe=_recipe(replaced), parents=(f"probs/{name}",)
    ) as staging:
        for array, rows in (
            ("thresholds", [own.curve for own in curves]),
            ("contrasts", [own.contrast for own in curves]),
        ):
            zarr.create_array(
                staging.path / array, data=np.stack(rows), dimension_names=("class", "z")
            )
        staging.attributes["ramps"] = entries
        staging.attributes["slab"] = slab.to_json(tomo.spacing_angstrom[0])


def read_ramps(tomo: Tomogram, name: str) -> StoredRamps:
    """Give what ``ramps/NAME`` of a tomogram holds.

    Raises
    ------
    NotFoundError
        If there is none.
    ConfigurationError
        If an older version wrote it.
    """
    product = f"ramps/{name}"
    attributes = tomo.attributes(product)
    if "slab" not in attributes:
        raise ConfigurationError(
            f"{product} of {tomo.id} lacks the slab: make it again with `otzi ramps "
            f"{tomo.collection.path} {tomo.id} --probs {name}`"
        )
    entries, slab = attributes["ramps"], attributes["slab"]
    curves, contrasts = (_array(tomo, product, array) for array in ("thresholds", "contrasts"))
    return StoredRamps(
        entries,
        {
            kind: SliceThresholds(*own)
            for kind, *own in zip(entries, curves, contrasts, strict=True)
        },
        Slab(slab["start"], slab["stop"], curves.shape[1]),
    )


def _recipe(replaced: Mapping[str, Replacement] | None) -> dict[str, Any]:
    if not replaced:
        return _RECIPE
    entries = {kind: {"low": own.low, "reason": own.reason} for kind, own in replaced.items()}
    return {**_RECIPE, "replaced": entries}


def _array(tomo: Tomogram, product: str, name: str) -> NDArray[np.float32]:
    return np.asarray(zarr.open_array(zarr_store(tomo.path(product) / name), mode="r")[:])
