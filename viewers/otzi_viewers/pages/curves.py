"""The thresholds of all slices as a small drawing: how steady the left limit of each class is."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

import numpy as np
import zarr

from otzi.store.location import zarr_store
from otzi_viewers.pages.markup import color_square

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from otzi.tomogram import Tomogram

__all__ = ["curves_figure", "threshold_curves"]

_WIDTH, _HEIGHT = 280, 90


def threshold_curves(tomo: Tomogram, product: str | None) -> dict[str, NDArray[np.float32]]:
    """Give the curves that `otzi ramps` stored of ``probs/NAME``: ``(z,)`` float32 by class.

    Empty where there are none. Slices of one value are NaN.
    """
    kind, _, name = (product or "").partition("/")
    if kind != "probs" or not tomo.has(f"ramps/{name}"):
        return {}
    path = tomo.path(f"ramps/{name}")
    if not (path / "thresholds" / "zarr.json").exists():
        return {}
    curves = np.asarray(zarr.open_array(zarr_store(path / "thresholds"), mode="r")[:])
    return dict(zip(tomo.attributes(f"ramps/{name}")["ramps"], curves, strict=True))


def curves_figure(curves: Mapping[str, NDArray[np.float32]], colors: Mapping[str, str]) -> str:
    """Give the drawing as HTML: slices to the right, thresholds from 0 to 1 upwards; means dashed.

    Below it stands the mean of each class.
    """
    lines, means = [], []
    for name, curve in curves.items():
        if not np.isfinite(curve).any():
            continue
        color, mean = colors.get(name, "#ffffff"), float(np.nanmean(curve))
        lines.append(
            f'<polyline points="{_points(curve)}" stroke="{color}"><title>{escape(name)}</title>'
            f'</polyline><line x1="0" x2="{_WIDTH}" y1="{_y(mean)}" y2="{_y(mean)}" '
            f'stroke="{color}" stroke-dasharray="2 4"/>'
        )
        means.append(f"<span>{color_square(color)}{escape(name)} {mean:.2f}</span>")
    return (
        f'<figure><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" fill="none" '
        f'aria-label="threshold of each slice">{"".join(lines)}</svg>'
        f"<figcaption>{' '.join(means)}</figcaption></figure>"
    )


def _points(curve: NDArray[np.float32]) -> str:
    step = _WIDTH / max(1, len(curve) - 1)
    known = ((i, float(value)) for i, value in enumerate(curve) if np.isfinite(value))
    return " ".join(f"{i * step:.1f},{_y(value)}" for i, value in known)


def _y(value: float) -> str:
    return f"{(1 - value) * _HEIGHT:.1f}"
