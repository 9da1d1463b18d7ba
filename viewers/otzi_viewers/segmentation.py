"""Class probabilities and soft labels as the viewer draws them: an image of density and classes.

What `otzi view-product` has made of them is read as it lies; of all others the same image is
computed chunk by chunk when a browser asks for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from otzi.classes import DENSITY_CHANNEL, ClassTable
from otzi.errors import ConfigurationError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otzi.classes import SegmentClass
    from otzi.tomogram import Tomogram

__all__ = [
    "OVERVIEW_LONGEST_VOXELS",
    "Segmentation",
    "class_table",
    "hard_labels",
    "numbered_objects",
    "soft_products",
    "usual_segmentation",
]

OVERVIEW_LONGEST_VOXELS = 192
"""Of a level that is drawn in 3-D: all of it lies in one chunk."""


@dataclass(frozen=True, slots=True)
class Segmentation:
    """What slices and 3-D panels show beside the density."""

    product: str | None
    """``probs/NAME`` or ``labels/NAME``; None for the density alone."""
    classes: tuple[SegmentClass, ...]
    """In the order of the image's channels, which begin with the density."""
    lows: Mapping[str, float]
    """Left limits of the ramps that are known."""
    overview_level: int
    is_stored: bool
    """Whether the image is the product ``view``."""

    @property
    def channels(self) -> tuple[str, ...]:
        """Labels of the image's channels."""
        return (DENSITY_CHANNEL, *(c.name for c in self.classes))

    @classmethod
    def of_view(cls, tomo: Tomogram) -> Segmentation:
        """Give what the product ``view`` holds."""
        attributes = tomo.attributes("view")
        names = (tomo.image("view").channels or ())[1:]
        probs = attributes["probs"]
        return cls(
            product=f"probs/{probs}" if probs else None,
            classes=class_table(tomo, names).classes if names else (),
            lows={name: entry["low"] for name, entry in attributes["ramps"].items()},
            overview_level=attributes["overview"]["level"],
            is_stored=True,
        )

    @classmethod
    def of(cls, tomo: Tomogram, product: str) -> Segmentation:
        """Give that of a soft product.

        Raises
        ------
        NotFoundError
            If it is not there, or has no probabilities of classes.
        ConfigurationError
            If it is of another shape than ``raw``.
        """
        if tomo.has("view") and (stored := cls.of_view(tomo)).product == product:
            return stored
        image = tomo.image(product)
        if not image.channels:
            there = ", ".join(soft_products(tomo)) or "none"
            raise NotFoundError(
                f"{product} of {tomo.id} has no probabilities of classes: there are {there}"
            )
        shape = tomo.array(product).shape[-3:]
        if shape != tomo.shape:
            raise ConfigurationError(
                f"{product} of {tomo.id} is {shape}, raw is {tomo.shape}: make it again"
            )
        kind, _, name = product.partition("/")
        has_ramps = kind == "probs" and tomo.has(f"ramps/{name}")
        ramps: dict[str, Any] = tomo.attributes(f"ramps/{name}")["ramps"] if has_ramps else {}
        table = class_table(tomo, image.channels)
        return cls(
            product=product,
            classes=table.classes,
            lows={c.name: ramps[c.name]["low"] for c in table if c.name in ramps},
            overview_level=_overview_level(tomo, image.n_levels),
            is_stored=False,
        )


def class_table(tomo: Tomogram, names: tuple[str, ...]) -> ClassTable:
    """Give the collection's table of these classes; if it has others, one in the palette."""
    return tomo.classes.having(names) or ClassTable.named(names)


def soft_products(tomo: Tomogram) -> tuple[str, ...]:
    """Give the products that have probabilities of classes, networks' first."""
    found = [p for p in tomo.products if p.startswith(("probs/", "labels/"))]
    found.sort(key=lambda product: not product.startswith("probs/"))
    return tuple(p for p in found if tomo.image(p).channels)


def hard_labels(tomo: Tomogram) -> tuple[str, ...]:
    """Give the labels that are one class for each voxel."""
    labels = (p for p in tomo.products if p.startswith("labels/"))
    return tuple(p for p in labels if tomo.image(p).channels is None)


def numbered_objects(tomo: Tomogram) -> tuple[str, ...]:
    """Give the objects whose voxels are numbered: the others are but a table."""
    objects = (p for p in tomo.products if p.startswith("objects/"))
    return tuple(p for p in objects if (tomo.path(p) / "0" / "zarr.json").exists())


def usual_segmentation(tomo: Tomogram) -> Segmentation | None:
    """Give what is shown unless something else is chosen: ``view``, or else the only product."""
    if tomo.has("view"):
        return Segmentation.of_view(tomo)
    products = soft_products(tomo)
    return Segmentation.of(tomo, products[0]) if products else None


def _overview_level(tomo: Tomogram, n_levels: int) -> int:
    """Give the finest level that is no longer than the limit, otherwise the coarsest."""
    if tomo.has("view"):
        return int(tomo.attributes("view")["overview"]["level"])
    longest = max(tomo.shape)
    fitting = (i for i in range(n_levels) if -(-longest // 2**i) <= OVERVIEW_LONGEST_VOXELS)
    return next(fitting, n_levels - 1)
