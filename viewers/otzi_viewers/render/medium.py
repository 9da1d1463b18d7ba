"""What rays go through, what lights it, and how they are marched, as a kernel takes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from otzi.box import Zyx

__all__ = ["Lamp", "Medium", "Rules"]


class Medium(NamedTuple):
    """The volume and what its values mean."""

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
