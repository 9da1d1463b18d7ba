"""The left limit of every class, from one pass over the probabilities."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from otzi.box import Box, tile
from otzi.errors import ConfigurationError
from otzi.events import Listener, ignore
from otzi.parallel import in_threads
from otzi.ramps import SliceThresholds
from otzi_pipelines.ramps.histograms import SliceHistograms, codes_of
from otzi_pipelines.ramps.stored import are_current, publish_ramps, read_ramps

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from otzi.store.reader import LevelArray
    from otzi.tomogram import Tomogram

__all__ = ["estimate_ramps", "own_thresholds", "thresholds_of"]

_BLOCK_VOXELS = 192


def estimate_ramps(tomo: Tomogram, name: str, listen: Listener = ignore) -> bool:
    """Publish ``ramps/NAME``, the left limits of ``probs/NAME``; tell whether there was work to do.

    What is of these probabilities already is left as it is. See
    `otzi_pipelines.ramps.stored.publish_ramps` for what the product holds.

    Raises
    ------
    NotFoundError
        If there are no such probabilities.
    ConfigurationError
        If they have no classes.
    """
    if are_current(tomo, name):
        return False
    publish_ramps(tomo, name, own_thresholds(tomo, name, listen))
    return True


def own_thresholds(
    tomo: Tomogram, name: str, listen: Listener = ignore
) -> Mapping[str, SliceThresholds]:
    """Give the thresholds of every class: those stored, or from the probabilities."""
    if are_current(tomo, name):
        return read_ramps(tomo, name).thresholds
    product = f"probs/{name}"
    array, channels = tomo.array(product), tomo.image(product).channels
    if channels is None:
        raise ConfigurationError(f"{product} of {tomo.id} has no classes: segment it again")
    return thresholds_of(channels, _histograms(array, listen))


def thresholds_of(
    channels: Sequence[str], counts: NDArray[np.integer[Any]]
) -> dict[str, SliceThresholds]:
    """Give the thresholds of every class, by name, of ``(c, z, code)`` counts."""
    return {
        channel: SliceThresholds.from_histograms(own)
        for channel, own in zip(channels, counts, strict=True)
    }


def _histograms(array: LevelArray, listen: Listener) -> NDArray[np.uint32]:
    """Give the histogram of every class and slice: ``(c, z, code)``."""
    n_classes, depth, rows, columns = array.shape
    histograms = SliceHistograms(n_classes, depth, array.dtype)
    block = max(1, _BLOCK_VOXELS // array.chunk[-1]) * array.chunk[-1]
    boxes = list(tile((depth, rows, columns), (block, block, block)))

    def read(box: Box) -> tuple[int, NDArray[Any]]:
        return box.start[0], codes_of(array[(slice(None), *box.slices)])

    for start, codes in in_threads(read, boxes, "thresholds", "blocks", listen):
        histograms.add(start, codes)
    return histograms.counts
