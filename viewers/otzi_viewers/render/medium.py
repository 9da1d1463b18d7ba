"""What rays go through, what lights it, and how they are marched, as a kernel takes them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from otzi.errors import UsageError
from otzi_viewers.render.kernels.params import CONES, LANES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from otzi.box import Zyx

__all__ = ["CHANNELS_PER_PACK", "Lamp", "Medium", "Rules", "coarser_occluders", "in_lanes"]

CHANNELS_PER_PACK = 4


@dataclass(frozen=True)
class Medium:
    """The volume and what its values mean; in the forms that the kernel reads, each made once."""

    shape: Zyx
    """Of the volume, in samples."""
    data: NDArray[Any] | None
    """``(z, y, x, c + 1)`` uint8 or uint16, as stored; the last channel is the density. None if it
    is held brick by brick."""
    value_scale: float
    low: NDArray[np.float64]
    inverse_span: NDArray[np.float64]
    extinction: NDArray[np.float64]
    color: NDArray[np.float64]
    extent: NDArray[np.float64]
    """``(3,)``: the box in world lengths."""
    texels_per_voxel: NDArray[np.float64]
    """``(3,)``: samples of `data` per world length."""
    occluder: NDArray[np.uint8]
    """``(z, y, x)``, at half the resolution of `data`."""
    distances: NDArray[np.uint8]
    """``(z, y, x)``: of bricks, see `brick_distances`; all 0 crosses nothing."""
    clip: NDArray[np.float64]
    """``(c, 4)``: of each class, normal and offset in world lengths; all 0 cuts nothing off."""

    @cached_property
    def lanes(self) -> NDArray[Any]:
        """`data` in whole packs of channels."""
        return in_lanes(np.asarray(self.data))

    @cached_property
    def occluder_bytes(self) -> NDArray[np.uint8]:
        """`occluder`, flat, and one byte more: the kernel reads two at once."""
        return np.append(self.occluder, np.uint8(0))

    @cached_property
    def cones(self) -> tuple[NDArray[np.uint8], ...]:
        """`occluder` in ever coarser levels."""
        return tuple(coarser_occluders(self.occluder, CONES))


class Lamp(NamedTuple):
    """The light and how it is probed."""

    position: NDArray[np.float64]
    """``(3,)``: centre of the luminous ball."""
    radius: float
    shadow_start: float
    """Distance of the nearest probe from the point that is lit."""
    shadow_length: float
    """Distance of the farthest."""
    shadow_strength: float
    shadow_tint: NDArray[np.float64]
    """``(3,)``: colour of full shadow."""
    n_shadow: int
    ao_radius: float
    ao_centre: NDArray[np.float64]
    """``(3,)``: of the ball that is probed, from the point that is lit."""
    ao_strength: float
    ao_tint: NDArray[np.float64]
    n_ao: int
    ball: NDArray[np.float64]
    """``(n, 3)``: points of the unit ball; each point lit takes a run of them."""
    shadow_line: Any = (0.0, 0.0, 0.0)
    """``(3,)``: of the `viewer` look, from a point to the end of its shadow ray."""
    color: Any = (1.0, 1.0, 1.0)
    """``(3,)``: of the luminous ball, linear light; what is in its shadow does not have it."""

    @property
    def key(self) -> tuple[Any, ...]:
        """What tells lamps apart."""
        return tuple(v.tobytes() if hasattr(v, "tobytes") else v for v in self)


class Rules(NamedTuple):
    """How finely rays are marched."""

    step: float
    gate: float
    seed: int
    look: str = "physical"
    lighting: str = "mc"
    iso: float = 0.5
    forward: Any = (1.0, 0.0, 0.0)
    """``(3,)``: where the camera looks; the published viewer's steps depend on it."""


def in_lanes(data: NDArray[Any]) -> NDArray[Any]:
    """Give ``(z, y, x, channel)`` data with whole packs of four channels; as it is if it has them.

    Raises
    ------
    UsageError
        If there are more channels than the kernel has lanes.
    """
    n_channels = data.shape[-1]
    if n_channels > LANES:
        raise UsageError(
            f"{n_channels - 1} classes are more than the {LANES - 1} that can be drawn at once: "
            "name those to draw as [[classes]] in the scene"
        )
    if n_channels % CHANNELS_PER_PACK == 0:
        return np.ascontiguousarray(data)
    lanes = -(-n_channels // CHANNELS_PER_PACK) * CHANNELS_PER_PACK
    padded = np.zeros((*data.shape[:-1], lanes), data.dtype)
    padded[..., :n_channels] = data
    return padded


def coarser_occluders(occluder: NDArray[np.uint8], count: int) -> Iterator[NDArray[np.uint8]]:
    """Yield the occluder at half its resolution, a quarter … : `count` arrays, ``(z, y, x)``."""
    level = occluder
    for _ in range(count):
        even = np.pad(level, [(0, n % 2) for n in level.shape], mode="edge")
        z, y, x = (n // 2 for n in even.shape)
        mean = even.reshape(z, 2, y, 2, x, 2).mean(axis=(1, 3, 5), dtype=np.float32)
        level = np.rint(mean).astype(np.uint8)
        yield level
