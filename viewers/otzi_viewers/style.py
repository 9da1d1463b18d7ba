"""How the `view` product is drawn: ramps, colours and opacities, the density's window.  Pure.

The numbers mean the same in the shader (`shader`), in NumPy (`compose`) and in pictures (`render`).
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass

from otzi.classes import is_shader_name, rgb_of
from otzi.errors import ConfigurationError

__all__ = ["LARGEST_LOW", "ClassStyle", "Style"]

LARGEST_LOW = 0.99
"""Of a ramp: at 1 it would divide by nothing."""

_COLOR = re.compile(r"#[0-9a-fA-F]{6}")


@dataclass(frozen=True, slots=True)
class ClassStyle:
    """How one class is drawn.

    Raises
    ------
    ConfigurationError
        If something cannot become part of a shader.
    """

    name: str
    channel: int
    """Of the array."""
    color: str
    """``#rrggbb``."""
    low: float = 0.0
    """Left limit ``a`` of the ramp ``(p − a)/(1 − a)``."""
    opacity: float = 1.0
    """Where ramp and density are 1; in 3-D for each voxel of level 0 that a ray crosses."""
    shown: bool = True

    def __post_init__(self) -> None:
        if not is_shader_name(self.name):
            raise ConfigurationError(
                f"class {self.name!r} cannot be named in a shader: use 1 to 32 lower-case letters, "
                "digits or single '_', beginning with a letter"
            )
        if not _COLOR.fullmatch(self.color):
            raise ConfigurationError(
                f"colour {self.color!r} of class {self.name}: write it as '#rrggbb'"
            )
        if self.channel < 0:
            raise ConfigurationError(f"channel {self.channel} of class {self.name}: 0 is the first")
        _check_range(f"left limit of class {self.name}", self.low, LARGEST_LOW)
        _check_range(f"opacity of class {self.name}", self.opacity, 1)

    @property
    def rgb(self) -> tuple[float, float, float]:
        """Red, green and blue in [0, 1], as written (sRGB)."""
        return rgb_of(self.color)


@dataclass(frozen=True, slots=True)
class Style:
    """How density and classes are drawn; each class lies over those before it.

    Raises
    ------
    ConfigurationError
        If two classes have the same name, or a number is outside its range.
    """

    classes: tuple[ClassStyle, ...] = ()
    shows_density: bool = True
    """Whether slices have the density below the classes, or nothing."""
    density_low: float = 0.0
    """What becomes 0 of the density in channel 0."""
    density_high: float = 1.0
    """What becomes 1."""
    modulation: float = 1.0
    """How far the density multiplies opacities: 0 not at all, 1 wholly."""
    interpolates: bool = False
    """Whether values between voxels are interpolated, or those of the nearest voxel."""

    def __post_init__(self) -> None:
        names = [c.name for c in self.classes]
        if len(set(names)) != len(names):
            raise ConfigurationError(f"class names must differ: {', '.join(names)}")
        _check_range("modulation", self.modulation, 1)
        _check_range("density_high", self.density_high, 1)
        _check_range("density_low", self.density_low, 1)

    @property
    def digest(self) -> str:
        """16 hexadecimal digits that identify the table."""
        whole = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(whole.encode()).hexdigest()[:16]


def _check_range(what: str, value: float, largest: float) -> None:
    if not 0 <= value <= largest:
        raise ConfigurationError(f"{what} is {value:g}: it must lie in 0 to {largest:g}")
