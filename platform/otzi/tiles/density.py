"""The density of a tomogram as networks see it: normalised as a whole, read box by box."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from otzi.normalise import Normalisation

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from otzi.box import Box
    from otzi.tomogram import Tomogram

__all__ = ["NormalisedDensity"]


class NormalisedDensity:
    """A reader: ``density(box)`` gives ``(z, y, x)`` float32, normalised; from any thread."""

    def __init__(self, tomo: Tomogram) -> None:
        self.shape = tomo.shape
        self._normalise = Normalisation.of(tomo.raw)
        self._array = tomo.array("raw")
        quantisation = tomo.attributes("raw").get("quantisation") or {"scale": 1, "offset": 0}
        self._scale, self._offset = (np.float32(quantisation[key]) for key in ("scale", "offset"))

    def __call__(self, box: Box) -> NDArray[np.float32]:
        """Give the normalised density of a box inside the volume."""
        stored = self._array[box.slices].astype(np.float32)
        return self._normalise(stored * self._scale + self._offset)
