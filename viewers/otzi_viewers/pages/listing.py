"""What the list of tomograms says of each, read from small files only."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from otzi.errors import OtziError
from otzi.store.folders import product_folders
from otzi.store.groups import current_generation

if TYPE_CHECKING:
    from collections.abc import Iterable

    from otzi.box import Zyx
    from otzi.tomogram import Tomogram

__all__ = ["Entry", "Progress", "list_entry", "list_tomograms", "progress"]

Progress = Literal["raw", "labelled", "segmented"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One tomogram in the list."""

    id: str
    progress: Progress
    shape: Zyx
    spacing_angstrom: tuple[float, float, float]
    products: tuple[str, ...]
    version: str
    """Changes whenever the thumbnail may."""

    def to_json(self) -> dict[str, Any]:
        """Give the entry as plain JSON."""
        return {
            "id": self.id,
            "progress": self.progress,
            "shape": list(self.shape),
            "spacing_angstrom": list(self.spacing_angstrom),
            "products": list(self.products),
            "version": self.version,
        }


def progress(products: Iterable[str]) -> Progress:
    """Give how far a tomogram with these products is."""
    kinds = {product.partition("/")[0] for product in products}
    if "probs" in kinds:
        return "segmented"
    return "labelled" if kinds & {"labels", "strokes"} else "raw"


def list_entry(tomo: Tomogram) -> Entry:
    """Give what is said of a tomogram.

    Raises
    ------
    OtziError
        If its metadata are damaged.
    """
    generations = {
        product: generation.name
        for product, folder in product_folders(tomo.folder).items()
        if (generation := current_generation(folder)) is not None
    }
    z, y, x = json.loads((tomo.path("raw") / "0" / "zarr.json").read_bytes())["shape"]
    shown = ("raw", "view", *(p for p in generations if p.startswith("styles/")))
    return Entry(
        id=tomo.id,
        progress=progress(generations),
        shape=(z, y, x),
        spacing_angstrom=tomo.spacing_angstrom,
        products=tuple(generations),
        version="-".join(generations.get(product, "0") for product in shown),
    )


def list_tomograms(tomograms: Iterable[Tomogram]) -> tuple[list[Entry], list[str]]:
    """Give the entries, and of damaged tomograms what is wrong with each."""
    entries, damaged = [], []
    for tomo in tomograms:
        try:
            entries.append(list_entry(tomo))
        except (OtziError, OSError, KeyError, ValueError) as error:
            damaged.append(f"{tomo.id}: {error}")
    return entries, damaged
