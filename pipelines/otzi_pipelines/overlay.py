"""Slices as people look at them: classes laid over the density, panels on a sheet.  Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from otzi.classes import rgb_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from PIL.Image import Image

    from otzi.classes import SegmentClass

__all__ = ["CAPTION_PIXELS", "GAP_PIXELS", "coloured", "draw_sheet", "grey_levels"]

CAPTION_PIXELS = 22
"""Height of the line above each row of panels."""
GAP_PIXELS = 6
"""Between panels of a row."""
_FONT_PIXELS = 14

_STRENGTH = 0.7
"""Of the colour over the density, where a class is certain."""


def grey_levels(plane: NDArray[Any], low: float, high: float) -> NDArray[np.float64]:
    """Give densities as 0 to 255, `low` and `high` becoming black and white: the same shape."""
    return np.clip((plane.astype(np.float64) - low) / ((high - low) or 1), 0, 1) * 255


def coloured(
    grey: NDArray[np.float64], shares: NDArray[Any], kinds: Sequence[SegmentClass]
) -> NDArray[np.float64]:
    """Lay every class but the background over the density: ``(y, x, 3)``, 0 to 255.

    Parameters
    ----------
    grey
        ``(y, x)``, 0 to 255.
    shares
        ``(c, y, x)``, 0 to 255: how much of each class; the background first.
    kinds
        The classes, with their colours.
    """
    painted = np.repeat(grey[..., None], 3, axis=2)
    painted *= 1 - _STRENGTH * (1 - shares[0, ..., None] / 255)
    for share, kind in zip(shares[1:], kinds[1:], strict=True):
        painted += _STRENGTH * share[..., None] * np.array(rgb_of(kind.color))
    return painted


def draw_sheet(
    rows: Sequence[tuple[Sequence[str], Sequence[NDArray[np.float64]]]],
    kinds: Sequence[SegmentClass],
) -> Image:
    """Lay panels, ``(y, x, 3)`` of 0 to 255, out in rows, each with a caption above it.

    Parameters
    ----------
    rows
        Captions and panels; the second caption of a row is left empty for the names of the classes.
    kinds
        The classes; all but the first, the background, are named in their colours.
    """
    from PIL import Image, ImageDraw, ImageFont

    across = max(panel.shape[1] for _, panels in rows for panel in panels) + GAP_PIXELS
    width = max(len(panels) for _, panels in rows) * across - GAP_PIXELS
    heights = [CAPTION_PIXELS + max(panel.shape[0] for panel in panels) for _, panels in rows]
    sheet = Image.new("RGB", (width, sum(heights)), "black")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(_FONT_PIXELS)
    top = 0
    for (captions, panels), height in zip(rows, heights, strict=True):
        for column, (caption, panel) in enumerate(zip(captions, panels, strict=True)):
            picture = Image.fromarray(np.rint(panel).clip(0, 255).astype(np.uint8))
            sheet.paste(picture, (column * across, top + CAPTION_PIXELS))
            draw.text((column * across + 3, top + 3), caption, fill="white", font=font)
        x = across + 3.0
        for kind in kinds[1:]:
            draw.text((x, top + 3), kind.name, fill=kind.color, font=font)
            x += draw.textlength(kind.name + "  ", font=font)
        top += height
    return sheet
