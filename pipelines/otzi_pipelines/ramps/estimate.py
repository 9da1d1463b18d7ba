"""The left limit of every class, from one pass over the probabilities."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import zarr

from otzi.box import Box, tile
from otzi.errors import ConfigurationError
from otzi.events import Listener, ignore
from otzi.parallel import in_threads
from otzi.ramps import SliceThresholds, slice_histograms

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from otzi.store.reader import LevelArray
    from otzi.tomogram import Tomogram

__all__ = ["estimate_ramps"]

_RECIPE = {"method": "isodata", "start": "mean", "over": "slices"}
_BLOCK_VOXELS = 192


def estimate_ramps(tomo: Tomogram, name: str, listen: Listener = ignore) -> bool:
    """Publish ``ramps/NAME``, the left limits of ``probs/NAME``; tell whether there was work to do.

    The product's attribute ``ramps`` holds ``{class: {"low", "high", "slices_used"}}``; its array
    ``thresholds``, ``(class, z)`` float32, holds the curve, NaN for slices of one value.
    """
    source, product = f"probs/{name}", f"ramps/{name}"
    if tomo.is_made(product, _RECIPE, (source,)):
        return False
    array = tomo.array(source)
    channels = tomo.image(source).channels
    if channels is None:
        raise ConfigurationError(f"{source} of {tomo.id} has no classes: segment it again")
    histograms = _histograms(array, listen)
    thresholds = [SliceThresholds.from_histograms(counts) for counts in histograms]
    with tomo.stage(product, recipe=_RECIPE, parents=(source,)) as staging:
        zarr.create_array(
            staging.path / "thresholds",
            data=np.stack([t.curve for t in thresholds]),
            dimension_names=("class", "z"),
        )
        staging.attributes["ramps"] = {
            channel: {"low": t.low, "high": 1.0, "slices_used": t.n_used}
            for channel, t in zip(channels, thresholds, strict=True)
        }
    return True


def _histograms(array: LevelArray, listen: Listener) -> NDArray[np.int64]:
    """Give the histogram of every class and slice: ``(c, z, n_bins)``."""
    n_classes, *shape = array.shape
    depth, rows, columns = shape
    n_bins = 256 if array.dtype == np.uint8 else 65536
    counts = np.zeros((n_classes, depth, n_bins), np.int64)
    chunk = array.chunk[-1]
    block = max(1, _BLOCK_VOXELS // chunk) * chunk
    boxes = list(tile((depth, rows, columns), (block, block, block)))

    def count(box: Box) -> tuple[Box, list[NDArray[np.int64]]]:
        codes = array[(slice(None), *box.slices)]
        if codes.dtype != np.uint8:
            codes = np.rint(codes.astype(np.float32) * (n_bins - 1)).astype(np.uint16)
        return box, [slice_histograms(one, n_bins) for one in codes]

    for box, found in in_threads(count, boxes, "thresholds", "blocks", listen):
        counts[:, box.start[0] : box.stop[0]] += np.stack(found)
    return counts
