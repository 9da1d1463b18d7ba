"""Which voxels are counted: of each class asked for, those that reach its threshold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from otzi.errors import NotFoundError, UsageError, checked_name
from otzi_pipelines.ramps.histograms import codes_of
from otzi_pipelines.ramps.stored import are_current

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from otzi.box import Box
    from otzi.store.reader import LevelArray
    from otzi.tomogram import Tomogram

__all__ = ["Selection", "checked_selection", "class_map", "select"]

_WITHOUT_RAMPS = 0.5


@dataclass(frozen=True, slots=True)
class Selection:
    """Classes of a product, and from which probability on a voxel is of one."""

    product: str
    """``probs/NAME`` or ``labels/NAME``."""
    classes: tuple[str, ...]
    channels: tuple[int, ...]
    """Of the classes, in the product; of hard labels their numbers."""
    thresholds: tuple[float, ...] | None
    """Of the classes; None for hard labels."""

    def read(self, array: LevelArray, box: Box) -> tuple[NDArray[np.uint8], NDArray[Any]]:
        """Give class and code of the voxels of a box of the product; see `class_map`."""
        if self.thresholds is None:
            stored = array[box.slices]
            kinds = np.zeros(stored.shape, np.uint8)
            for kind, number in enumerate(self.channels, 1):
                kinds[stored == number] = kind
            return kinds, kinds
        values = (array[channel, *box.slices] for channel in self.channels)
        return class_map(values, self.thresholds)


def class_map(
    values: Any, thresholds: Sequence[float]
) -> tuple[NDArray[np.uint8], NDArray[np.unsignedinteger[Any]]]:
    """Give the class of every voxel, from 1, 0 where none reaches its threshold; and its code.

    Of several that do, the most probable is taken, of equal ones the first.

    Parameters
    ----------
    values
        Of each class ``(z, y, x)`` as stored: uint8, 255 times the probability, or floats.
    thresholds
        Probabilities, of each class.

    Returns
    -------
    tuple
        ``(z, y, x)`` uint8; and the same, the probability as `codes_of` gives it.
    """
    kinds = best = None
    for kind, (stored, threshold) in enumerate(zip(values, thresholds, strict=True), 1):
        if stored.dtype != np.uint8:
            stored = stored.astype(np.float32)
        if kinds is None or best is None:
            kinds, best = np.zeros(stored.shape, np.uint8), np.zeros_like(stored)
        reaches = (stored >= _as_stored(threshold, stored.dtype)) & (stored > best)
        kinds[reaches] = kind
        best[reaches] = stored[reaches]
    assert kinds is not None
    assert best is not None
    return kinds, codes_of(best)


def checked_selection(product: str, classes: Sequence[str], threshold: float | None) -> None:
    """Check what can be checked of a selection before there is a tomogram.

    Raises
    ------
    UsageError
        If the product is of another kind, a class is named twice or none is, or the threshold is
        no probability above 0.
    """
    kind, _, name = product.partition("/")
    if kind not in ("probs", "labels") or not name:
        raise UsageError(f"objects of {product}: give probs/NAME or labels/NAME")
    checked_name(name, f"{kind} name")
    if len(set(classes)) != len(classes) or not classes:
        raise UsageError(f"classes {', '.join(classes) or 'none'}: name each once, at least one")
    if threshold is not None and not 0 < threshold <= 1:
        raise UsageError(f"threshold {threshold:g}: a probability above 0, at most 1")


def select(
    tomo: Tomogram, product: str, classes: Sequence[str], threshold: float | None = None
) -> Selection:
    """Give the selection of some classes of a product of a tomogram.

    Parameters
    ----------
    tomo
        Has the product.
    product
        ``probs/NAME`` or ``labels/NAME``, soft or hard.
    classes
        Names, at least one.
    threshold
        Of all classes. If None, the left limit of each class's ramp, from which on it is seen,
        where the ramps of these probabilities are published; 0.5 where they are not.

    Raises
    ------
    NotFoundError
        If there is no such product, or it has no such class.
    UsageError
        As `checked_selection` has it; or if a threshold of hard labels is given.
    """
    checked_selection(product, classes, threshold)
    kind, _, name = product.partition("/")
    image = tomo.image(product)
    names = image.channels or tuple(tomo.attributes(product).get("classes", tomo.classes.names))
    for one in classes:
        if one not in names:
            listed = ", ".join(names)
            raise NotFoundError(f"{product} of {tomo.id} has no class {one!r}: it has {listed}")
    channels = tuple(map(names.index, classes))
    if image.channels is None:
        if threshold is not None:
            raise UsageError(f"{product} of {tomo.id} are hard labels: leave --threshold out")
        return Selection(product, tuple(classes), channels, None)
    if threshold is None and kind == "probs" and are_current(tomo, name):
        ramps = tomo.attributes(f"ramps/{name}")["ramps"]
        limits = tuple(float(ramps[one]["low"]) for one in classes)
    else:
        limits = (_WITHOUT_RAMPS if threshold is None else threshold,) * len(classes)
    return Selection(product, tuple(classes), channels, limits)


def _as_stored(threshold: float, dtype: np.dtype[Any]) -> np.generic:
    """Give the smallest stored value that reaches a threshold."""
    if dtype != np.uint8:
        return np.float32(threshold)
    return np.uint8(np.searchsorted(np.arange(256) / 255, min(threshold, 1.0)))
