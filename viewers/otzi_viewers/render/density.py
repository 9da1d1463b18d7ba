"""The tomogram as it modulates opacity: low-passed, windowed, matter near 1.

Every voxel is the same whatever part of the volume is computed, so that a volume that is streamed
in bricks is, to the bit, the one that is loaded whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from otzi.compiled import compiled

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from otzi_viewers.render.scene import Density

__all__ = ["density_window", "low_passed", "modulation", "normalised_density"]

_BINS = 1 << 20
_THIRD = np.float32(1 / 3)


def low_passed(values: NDArray[np.float32], times: int) -> NDArray[np.float32]:
    """Give ``(z, y, x)`` float32: the mean over 3³ voxels, `times` times; edges go on.

    Not by a running sum, in which a voxel's last bits depend on where the sum began.
    """
    if not times:
        return values
    depth, height, width = values.shape
    source, target = np.array(values, np.float32, order="C"), np.empty(values.shape, np.float32)
    for _ in range(times):
        for shape in ((1, depth, height * width), (depth, height, width)):
            _mean_of_rows(source.reshape(shape), target.reshape(shape))
            source, target = target, source
        _mean_within_rows(source.reshape(-1, width), target.reshape(-1, width))
        source, target = target, source
    return source


@compiled
def _mean_of_rows(values: NDArray[np.float32], means: NDArray[np.float32]) -> None:
    """Put the mean of each row and its two neighbours; both ``(blocks, rows, x)``."""
    blocks, rows, _ = values.shape
    for block in range(blocks):
        for row in range(rows):
            before = values[block, max(row - 1, 0)]
            after = values[block, min(row + 1, rows - 1)]
            middle, mean = values[block, row], means[block, row]
            for x in range(len(middle)):
                mean[x] = (before[x] + middle[x] + after[x]) * _THIRD


@compiled
def _mean_within_rows(values: NDArray[np.float32], means: NDArray[np.float32]) -> None:
    """Put the mean of each value and its two neighbours in its row; both ``(rows, x)``."""
    rows, width = values.shape
    last = width - 1
    for row in range(rows):
        line, mean = values[row], means[row]
        for x in range(1, last):
            mean[x] = (line[x - 1] + line[x] + line[x + 1]) * _THIRD
        mean[0] = (line[0] + line[0] + line[min(1, last)]) * _THIRD
        if last:
            mean[last] = (line[last - 1] + line[last] + line[last]) * _THIRD


def density_window(
    slabs: Iterable[NDArray[np.float32]], span: tuple[float, float], density: Density
) -> tuple[float, float]:
    """Give the values of low-passed density between which opacity rises, from one pass.

    Parameters
    ----------
    slabs
        The low-passed density, part by part.
    span
        Between which all of it lies.
    density
        Whose window, in percentiles, they are.
    """
    low, high = span
    if not high > low:
        return low, low
    counts = np.zeros(_BINS, np.int64)
    scale = _BINS / (high - low)
    for slab in slabs:
        places = (slab.astype(np.float64) - low) * scale
        index = np.clip(places.astype(np.int64), 0, _BINS - 1)
        counts += np.bincount(index.ravel(), minlength=_BINS)
    ends = np.cumsum(counts)
    wanted = np.array(density.window) / 100 * ends[-1]
    found = np.interp(wanted, np.concatenate([[0], ends]), np.arange(_BINS + 1))
    first, last = low + found / scale
    return float(first), float(last)


def modulation(
    smooth: NDArray[np.float32], window: tuple[float, float], *, invert: bool
) -> NDArray[np.float32]:
    """Give the density in [0, 1]: ``(z, y, x)`` float32, matter near 1."""
    low, high = reversed(window) if invert else window
    values = smooth - np.float32(low)
    values /= np.float32(high - low) or np.float32(1)
    return np.clip(values, 0, 1, out=values)


def finite(raw: NDArray[Any], fill: float) -> NDArray[np.float32]:
    """Give ``(z, y, x)`` float32 in which what is not finite is `fill`."""
    values = raw.astype(np.float32)
    missing = ~np.isfinite(values)
    if missing.any():
        values[missing] = fill
    return values


def normalised_density(
    raw: NDArray[Any], density: Density, smoothing: int = 1
) -> NDArray[np.float32]:
    """Give a whole density as it modulates opacity: ``(z, y, x)`` float32 in [0, 1].

    The mean over 3³ voxels, `smoothing` times (levels above 0 are means already), then the window
    between two percentiles, inverted where matter is dark. What is not finite becomes the mean.
    """
    good = raw[np.isfinite(raw)]
    fill = float(good.mean(dtype=np.float64)) if good.size else 0.0
    values = finite(raw, fill)
    span = float(values.min()), float(values.max())
    smooth = low_passed(values, smoothing)
    window = density_window([smooth], span, density)
    return modulation(smooth, window, invert=density.invert)
