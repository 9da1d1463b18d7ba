"""Options of ingest as people write them."""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING, Literal

from otzi.errors import UsageError

if TYPE_CHECKING:
    from otzi_pipelines.ingest.sources import Spacing

__all__ = ["Fill", "parse_nonfinite", "parse_voxel_size"]

Fill = Literal["mean"] | float | None
"""What stands in for voxels that are not finite; None for what they are."""


def parse_voxel_size(text: str) -> Spacing:
    """Give the spacing z, y, x in ångström of ``"10"`` or ``"20,10,10"``.

    Raises
    ------
    UsageError
        If these are no one or three numbers above 0.
    """
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) not in (1, 3) or not all(isfinite(v) and v > 0 for v in values):
        raise UsageError(f"voxel size {text!r}: give one number of Å, or three as z,y,x")
    z, y, x = values * (3 // len(values))
    return z, y, x


def parse_nonfinite(text: str) -> Fill:
    """Give what ``"keep"``, ``"fill"`` (with the mean) or ``"fill=0"`` says.

    Raises
    ------
    UsageError
        If it says none of these.
    """
    word, equals, number = text.partition("=")
    if text == "keep":
        return None
    if text == "fill":
        return "mean"
    try:
        value = float(number)
    except ValueError:
        value = float("nan")
    if word != "fill" or not equals or not isfinite(value):
        raise UsageError(f"--nonfinite {text!r}: give keep, fill, or fill=VALUE")
    return value
