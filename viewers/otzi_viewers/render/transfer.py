"""Ramps, extinctions and colours of a scene, filled in from a tomogram, as arrays for a kernel."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from otzi.classes import rgb_of
from otzi.errors import ConfigurationError, NotFoundError, UsageError
from otzi_viewers.render.scene import ClassLook

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from otzi.classes import ClassTable
    from otzi.tomogram import Tomogram
    from otzi_viewers.render.scene import Density, Scene

__all__ = ["Transfer", "complete_scene", "linear_color", "transfer_of", "usual_extinction"]

# Thin sheets are drawn denser than what fills the volume.
_EXTINCTION = {"membrane": 0.5, "spikes": 0.5}
_OTHER_EXTINCTION = 0.12


@dataclass(frozen=True)
class Transfer:
    """From stored values to extinction and colour; the last channel is the density."""

    low: NDArray[np.float64]
    """``(c + 1,)``: left limits."""
    inverse_span: NDArray[np.float64]
    """``(c + 1,)``: ``1 / (high − low)``."""
    extinction: NDArray[np.float64]
    """``(c,)``: opacity per voxel where both ramps are 1."""
    color: NDArray[np.float64]
    """``(c, 3)``: linear red, green, blue."""
    value_scale: float
    """What stored values are multiplied by to lie in [0, 1]."""
    clip: NDArray[np.float64]
    """``(c, 4)``: normal of a plane and its offset in world lengths; all 0 cuts nothing off."""


def transfer_of(
    looks: Sequence[ClassLook],
    density: Density,
    value_scale: float,
    longest_voxels: float = 1.0,
    *,
    linear: bool = True,
) -> Transfer:
    """Give the transfer of complete looks.

    Parameters
    ----------
    looks, density
        Of the scene.
    value_scale
        What stored values are multiplied by to lie in [0, 1].
    longest_voxels
        The longest side of the box, the unit of the scene's lengths.
    linear
        Whether colours become linear light; the published viewer mixes them as they are written.

    Raises
    ------
    UsageError
        If a left limit, an extinction or a colour is open: `complete_scene` fills them in.
    """
    lows, extinctions, colors = [], [], []
    for look in looks:
        if look.low is None or look.extinction is None or look.color is None:
            raise UsageError(f"{look} is not complete: give low, extinction and color")
        lows.append(look.low)
        extinctions.append(look.extinction)
        colors.append(linear_color(look.color) if linear else np.array(rgb_of(look.color)))
    low = np.array([*lows, density.low])
    high = np.array([*(look.high for look in looks), density.high])
    return Transfer(
        low=low,
        inverse_span=1 / (high - low),
        extinction=np.array(extinctions, np.float64),
        color=np.array(colors, np.float64).reshape(-1, 3),
        value_scale=value_scale,
        clip=np.array([_plane(look, longest_voxels) for look in looks]).reshape(-1, 4),
    )


def _plane(look: ClassLook, longest_voxels: float) -> tuple[float, float, float, float]:
    z, y, x, offset = look.clip or (0.0, 0.0, 0.0, 0.0)
    return z, y, x, offset * longest_voxels


def linear_color(color: str) -> NDArray[np.float64]:
    """Give linear red, green, blue in [0, 1], ``(3,)``, of ``#rrggbb`` (IEC 61966-2-1)."""
    encoded = np.array(rgb_of(color))
    return np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)


def usual_extinction(class_name: str) -> float:
    """Give the opacity per voxel of level 0 of a class for which none is chosen."""
    return _EXTINCTION.get(class_name, _OTHER_EXTINCTION)


def complete_scene(scene: Scene, tomo: Tomogram, probs: str) -> Scene:
    """Give the scene with every class, ramp, extinction and colour filled in.

    Raises
    ------
    NotFoundError
        If a class is not among those of the probabilities, or a left limit is neither given nor
        stored.
    ConfigurationError
        If the probabilities have no classes, or a stored left limit is not below the given right.
    """
    channels = tomo.image(f"probs/{probs}").channels or ()
    looks = scene.classes or tuple(ClassLook(name) for name in channels[1:])
    if not looks:
        raise ConfigurationError(f"probs/{probs} of {tomo.id} has no classes: segment it again")
    ramps: dict[str, Any] = {}
    if any(look.low is None for look in looks):
        ramps = _stored_ramps(tomo, probs)
    table = tomo.classes.having(channels) or tomo.classes
    return replace(scene, classes=tuple(_complete(k, table, channels, ramps) for k in looks))


def _complete(
    look: ClassLook, table: ClassTable, channels: Sequence[str], ramps: dict[str, Any]
) -> ClassLook:
    if look.name not in channels:
        raise NotFoundError(
            f"no class {look.name!r} to draw: the probabilities have {', '.join(channels)}"
        )
    color = look.color or table[table.index(look.name)].color
    low = round(ramps[look.name]["low"], 4) if look.low is None else look.low
    extinction = look.extinction
    if extinction is None:
        extinction = usual_extinction(look.name)
    return replace(look, color=color, low=low, extinction=extinction)


def _stored_ramps(tomo: Tomogram, probs: str) -> dict[str, Any]:
    if not tomo.has(f"ramps/{probs}"):
        raise NotFoundError(
            f"{tomo.id} has no ramps for probs/{probs}: run `otzi ramps {tomo.collection.path} "
            f"{tomo.id} --probs {probs}`, or give every class a `low` in the scene"
        )
    ramps: dict[str, Any] = tomo.attributes(f"ramps/{probs}")["ramps"]
    return ramps
