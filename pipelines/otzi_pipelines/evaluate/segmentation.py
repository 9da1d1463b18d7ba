"""Products that tell classes apart, soft or hard, read block by block as shares of each class."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from otzi.errors import UsageError
from otzi.metrics import least_probability
from otzi.temperature import tempered
from otzi.tomogram import checked_product

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from otzi.box import Box, Zyx
    from otzi.store.reader import LevelArray
    from otzi.tomogram import Tomogram

__all__ = ["UNLABELLED", "Segmentation", "comparable", "full_name"]

UNLABELLED = 255
"""In hard labels: nothing is known."""


@dataclass(frozen=True, slots=True)
class Segmentation:
    """A level of ``labels/NAME`` or ``probs/NAME``, seen as certain classes."""

    tomo: Tomogram
    product: str
    array: LevelArray
    """``(c, z, y, x)``, soft; or ``(z, y, x)``, hard: any number but a class's is unlabelled."""
    classes: tuple[str, ...]
    """As they are seen."""
    seen_as: tuple[int, ...]
    """Which of them each stored class is."""
    temperature: float = 1.0
    """At which probabilities are seen, see `otzi.temperature`; 1 is as they are stored."""

    @property
    def is_soft(self) -> bool:
        """Whether there are probabilities."""
        return self.array.ndim == 4

    @property
    def shape(self) -> Zyx:
        """Extent in voxels."""
        z, y, x = self.array.shape[-3:]
        return z, y, x

    @property
    def n_levels(self) -> int:
        """Levels of the pyramid."""
        return self.tomo.image(self.product).n_levels

    def at(self, level: int) -> Segmentation:
        """Give another level of the same."""
        return replace(self, array=self.tomo.array(self.product, level))

    def read(self, box: Box) -> NDArray[Any]:
        """Give ``(c, z, y, x)`` shares of each class; all 0 where nothing is known.

        Soft ones are as stored: floats, or uint8, value/255; at a temperature they are float32.
        Hard ones are booleans.
        """
        values = self.array[(..., *box.slices)]
        if not self.is_soft:
            shares = np.zeros((len(self.classes), *values.shape), np.bool_)
            for stored, seen in enumerate(self.seen_as):
                shares[seen] |= values == stored
            return shares
        if self.temperature != 1:
            values = self._tempered(values)
        if self.seen_as == tuple(range(len(self.classes))):
            return values
        shares = np.zeros((len(self.classes), *values.shape[1:]), values.dtype)
        for channel, seen in zip(values, self.seen_as, strict=True):
            shares[seen] += channel
        return shares

    def _tempered(self, values: NDArray[Any]) -> NDArray[np.float32]:
        step = np.float32(255 if values.dtype == np.uint8 else 1)
        shares = np.maximum(values / step, np.float32(least_probability(values.dtype)))
        shares = tempered(shares.astype(np.float32, copy=False), self.temperature, axis=0)
        return np.where(values.any(axis=0), shares, np.float32(0))


def full_name(name: str, kind: str) -> str:
    """Give the product of a name: of that kind, unless the name says which.

    Raises
    ------
    UsageError
        If it is neither labels nor probabilities.
    """
    product = checked_product(name if "/" in name else f"{kind}/{name}")
    if not product.startswith(("labels/", "probs/")):
        raise UsageError(f"{product} tells no classes apart: name labels/NAME or probs/NAME")
    return product


def comparable(tomo: Tomogram, prediction: str, truth: str) -> tuple[Segmentation, Segmentation]:
    """Give two products seen as the same classes, those of the prediction in their order.

    Where only one of them has the classes of the collection, and the other its background and the
    foreground, both are seen as these two.

    Raises
    ------
    NotFoundError
        If a product is not there; the message lists those there are.
    UsageError
        If they have other classes, or another shape.
    """
    names = [_stored_classes(tomo, product) for product in (prediction, truth)]
    common = _common_classes(tomo, *names)
    if common is None:
        raise UsageError(
            f"{prediction} of {tomo.id} has classes {', '.join(names[0])}, {truth} has "
            f"{', '.join(names[1])}: compare products of the same classes"
        )
    first, second = (
        Segmentation(tomo, product, tomo.array(product), common, _seen_as(stored, common))
        for product, stored in zip((prediction, truth), names, strict=True)
    )
    if first.shape != second.shape:
        raise UsageError(
            f"{prediction} of {tomo.id} has {first.shape} voxels, {truth} has {second.shape} "
            "(z, y, x): compare products of the same tomogram and voxel size"
        )
    return first, second


def _stored_classes(tomo: Tomogram, product: str) -> tuple[str, ...]:
    """Give what a product tells apart: hard labels have it in an attribute, if at all."""
    named = tomo.image(product).channels or tomo.attributes(product).get("classes")
    return tuple(named or tomo.classes.names)


def _common_classes(
    tomo: Tomogram, first: tuple[str, ...], second: tuple[str, ...]
) -> tuple[str, ...] | None:
    if sorted(first) == sorted(second):
        return first
    tables = tomo.classes.having(first), tomo.classes.having(second)
    return None if None in tables else tomo.classes.merged.names


def _seen_as(stored: tuple[str, ...], seen: tuple[str, ...]) -> tuple[int, ...]:
    """Give which of the classes seen each stored one is: without a name there, the foreground."""
    return tuple(seen.index(name) if name in seen else 1 for name in stored)
