"""The slab: the slices that hold the specimen, between the air–water boundaries.  Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.ndimage import median_filter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["SLAB_METHOD", "Slab", "find_slab"]

_SHARE = 0.5
_PLATEAU_PERCENTILE = 75.0
_SMOOTHING_SLICES = 5
SLAB_METHOD = {
    "of": "contrast",
    "share": _SHARE,
    "plateau_percentile": _PLATEAU_PERCENTILE,
    "smoothing_slices": _SMOOTHING_SLICES,
}
"""What decides it, for the recipe of a product."""


@dataclass(frozen=True, slots=True)
class Slab:
    """The slices ``start <= z < stop`` of `depth`; the margins above and below are to be left."""

    start: int
    stop: int
    depth: int

    def to_json(self, spacing_angstrom: float) -> dict[str, Any]:
        """Give the slab as plain JSON; the spacing is that of z."""
        margins = (self.start, self.depth - self.stop)
        return {
            "start": self.start,
            "stop": self.stop,
            "margin_voxels": list(margins),
            "margin_angstrom": [round(margin * spacing_angstrom, 3) for margin in margins],
        }


def find_slab(contrasts: Sequence[NDArray[np.floating[Any]]]) -> Slab:
    """Give the slab, from how much the classes stand out slice by slice.

    Each class is measured by its own plateau, the 75th percentile over slices, and the mean over
    classes is smoothed by a running median of five slices. The slab reaches from the first to the
    last slice that has at least half of the plateau; where no class stands out anywhere it is the
    whole volume.

    Parameters
    ----------
    contrasts
        ``(z,)`` of every class but the background: `otzi.ramps.SliceThresholds.contrast`.
    """
    depth = len(contrasts[0])
    plateaus = [float(np.percentile(contrast, _PLATEAU_PERCENTILE)) for contrast in contrasts]
    relative = [c / p for c, p in zip(contrasts, plateaus, strict=True) if p > 0]
    if not relative:
        return Slab(0, depth, depth)
    smooth = median_filter(np.mean(relative, axis=0), _SMOOTHING_SLICES, mode="nearest")
    inside = np.flatnonzero(smooth >= _SHARE)
    return (
        Slab(int(inside[0]), int(inside[-1]) + 1, depth) if inside.size else Slab(0, depth, depth)
    )
