"""Small pictures of tomograms: the middle slice, from a coarse level."""

from __future__ import annotations

import io
from collections import OrderedDict
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np

from otzi.ramps import ramp
from otzi_viewers.compose import slice_image
from otzi_viewers.layers import slice_style

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from otzi.tomogram import Tomogram

__all__ = ["Thumbnails", "thumbnail"]

LONGEST_PIXELS = 192
_KEPT = 1000
"""Some 20 kB each."""


def thumbnail(tomo: Tomogram) -> bytes:
    """Give the middle slice along z as a PNG of at most 192 pixels a side.

    With the classes over it where there is a product ``view``; otherwise ``raw``, dark where matter
    is.
    """
    from PIL import Image

    pixels = _of_view(tomo) if tomo.has("view") else _of_raw(tomo)
    picture = Image.fromarray(pixels)
    picture.thumbnail((LONGEST_PIXELS, LONGEST_PIXELS))
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return file.getvalue()


def _of_view(tomo: Tomogram) -> NDArray[np.uint8]:
    array = tomo.array("view", _level(tomo, "view"))
    return slice_image(array[:, array.shape[1] // 2], slice_style(tomo))


def _of_raw(tomo: Tomogram) -> NDArray[np.uint8]:
    array = tomo.array("raw", _level(tomo, "raw"))
    percentiles = tomo.attributes("raw")["statistics"]["percentiles"]
    scale, offset = tomo.quantisation
    low, high = ((percentiles[p] - offset) / scale for p in ("0.5", "99.5"))
    grey = ramp(array[array.shape[0] // 2], low, high)
    return np.rint(grey * 255).astype(np.uint8)


def _level(tomo: Tomogram, product: str) -> int:
    """Give the coarsest level that still has as many voxels as the picture has pixels."""
    longest, level = max(tomo.shape[1:]), 0
    last = tomo.image(product).n_levels - 1
    while level < last and longest >> (level + 1) >= LONGEST_PIXELS:
        level += 1
    return level


class Thumbnails:
    """Pictures by key, kept in memory; of many the one that was not asked for longest is let go."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, str], bytes] = OrderedDict()
        self._lock = Lock()

    def get(self, key: tuple[str, str], make: Callable[[], bytes]) -> bytes:
        """Give the picture of a key; it is made the first time."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        picture = make()
        with self._lock:
            self._kept[key] = picture
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return picture
