"""The scene of a picture: what is drawn, in which light, from where; as TOML and as dataclasses.

Every key may be left out. An unknown key is an error. Vectors are z, y, x; lengths of the light and
the camera are in units of the box's longest side, from its centre; colours are ``"#rrggbb"``::

    [[classes]]               # one table for each drawn class; all but the first class otherwise
    name = "membrane"
    low = 0.1                 # left limit of the ramp; otherwise what `otzi ramps` stored
    high = 1.0
    extinction = 0.5          # opacity per voxel of level 0 where both ramps are 1
    color = "#c79aab"         # otherwise that of the collection
    clip = [0.0, 0.0, 1.0, 0.1]  # z·0 + y·0 + x·1 + 0.1 is not below 0 where it is drawn

    [density]                 # the tomogram itself, which multiplies the opacity of all classes
    invert = true             # protein is dark
    smoothing = 4             # how many times the mean over 3 x 3 x 3 voxels is taken
    window = [0.5, 99.5]      # percentiles of the low-passed density that become 0 and 1
    low = 0.55                # ramp over these
    high = 1.0

    [light]
    position = [1.0, 1.4, 0.7]
    radius = 0.28             # of the luminous ball: the softness of the shadows
    color = "#ffffff"         # of the ball; shadows have that of the sky
    attach = "scene"          # or "camera": the position is toward the viewer, up, right
    occlusion = 3.0           # strength of the ambient occlusion; 0 for none
    occlusion_radius = 0.03   # of the ball that is probed
    shadow = 5.0              # strength of the shadow; 0 for none
    shadow_length = 0.2       # how far away something may stand and cast one

    [camera]
    azimuth = -28.0           # degrees about the upright axis y; 0 looks down the beam axis z
    elevation = 22.0          # degrees above the horizon
    roll = 0.0
    distance = 2.0            # otherwise as near as shows all that is drawn
    target = [0.0, 0.0, 0.0]  # otherwise the middle of what is drawn
    fov_degrees = 34.0        # from the lower to the upper edge
    projection = "perspective"  # or "orthographic"

    [quality]
    look = "physical"         # or "viewer", the published one's; density alone: "dvr", "mip", "iso"
    lighting = "auto"         # "mc": probes for every sample; "baked": once for all frames, as
                              # "auto" is for movies; "cone": fast, for a first look
    iso = 0.5                 # density of the surface, for the look "iso"
    step = 0.5                # in voxels of the level drawn
    spp = 4                   # rays per pixel
    ao = 12                   # probes of a sample's surroundings
    shadow = 24               # probes toward the light
    gate = 0.031              # opacity to be gathered before light is probed anew
    seed = 1

    [output]
    size = [960, 720]
    bits = 8                  # per channel, or 16
    background = "#000000"
    exposure = 1.9
    bloom = 0.35              # strength of the glow; 0 for none
    scale_bar = true

    [movie]
    frames = 240
    fps = 30
    turn_degrees = 360.0      # that the camera goes about the upright axis in all
    ease = false              # begin and end slowly

    [[keyframes]]             # any number; what one leaves out is as the scene has it
    at = 0.5                  # from 0, the first frame, to 1, the last
    azimuth = 40.0
    elevation = 10.0
    roll = 0.0
    distance = 1.2
    target = [0.0, 0.1, 0.0]
    fov_degrees = 20.0
    low = [0.1]               # of every drawn class, as are color and clip
    color = ["#c79aab"]
    clip = [[0.0, 0.0, 1.0, 0.5]]
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields, is_dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field

from otzi.errors import ConfigurationError
from otzi.settings import STRICT

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "Camera",
    "ClassLook",
    "Density",
    "Keyframe",
    "Light",
    "Movie",
    "Output",
    "Quality",
    "Scene",
    "scene_toml",
]

Number = Annotated[float, Field(allow_inf_nan=False)]
Vector = tuple[Number, Number, Number]
Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Percentile = Annotated[float, Field(ge=0, le=100)]
Color = Annotated[str, Field(pattern=r"^#[0-9a-fA-F]{6}$")]
Pixels = Annotated[int, Field(ge=1, le=16384)]


Plane = tuple[Number, Number, Number, Number]


def _check_ramp(what: str, low: float, high: float) -> None:
    if not low < high:
        raise ConfigurationError(f"the ramp of {what} needs low {low:g} < high {high:g}")


@dataclass(frozen=True, slots=True)
class ClassLook:
    """How one class looks."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    name: str
    low: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Left limit of the ramp; None for what `otzi ramps` stored."""
    high: Annotated[float, Field(gt=0, le=1)] = 1.0
    extinction: NotNegative | None = None
    """Opacity per voxel of level 0; None for the usual one of this class."""
    color: Color | None = None
    """As written (sRGB); None for the collection's."""
    clip: Plane | None = None
    """Normal z, y, x and offset of a plane: what lies before it is not drawn."""

    def __post_init__(self) -> None:
        _check_ramp(f"class {self.name}", self.low or 0.0, self.high)


@dataclass(frozen=True, slots=True)
class Density:
    """How the tomogram modulates the opacity."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    invert: bool = True
    """Whether matter is dark."""
    smoothing: Annotated[int, Field(ge=0, le=100)] = 4
    """How many times the mean over 3³ voxels of level 0 is taken."""
    window: tuple[Percentile, Percentile] = (0.5, 99.5)
    """Percentiles of the low-passed density that become 0 and 1."""
    low: Number = 0.55
    high: Number = 1.0

    def __post_init__(self) -> None:
        _check_ramp("the density", self.low, self.high)
        if not self.window[0] < self.window[1]:
            raise ConfigurationError(f"density.window {self.window}: the first must be less")


@dataclass(frozen=True, slots=True)
class Light:
    """One luminous ball, and the light of the sky around it."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    position: Vector = (1.0, 1.4, 0.7)
    radius: NotNegative = 0.28
    color: Color = "#ffffff"
    """Of the ball; shadows have that of the sky."""
    attach: Literal["scene", "camera"] = "scene"
    occlusion: NotNegative = 3.0
    """Strength of the ambient occlusion."""
    occlusion_radius: Positive = 0.03
    shadow: NotNegative = 5.0
    """Strength of the shadow."""
    shadow_length: Positive = 0.2
    """How far away something may stand and cast a shadow."""


@dataclass(frozen=True, slots=True)
class Camera:
    """An orbit about a target."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    azimuth: Number = -28.0
    """Degrees about the upright axis y; 0 looks down the beam axis z."""
    elevation: Number = 22.0
    """Degrees above the horizon."""
    roll: Number = 0.0
    """Degrees that the camera is turned clockwise about its own axis."""
    distance: Positive | None = None
    """From the target; None for as near as shows all that is drawn."""
    target: Vector | None = None
    """None for the middle of what is drawn."""
    fov_degrees: Annotated[float, Field(gt=0, lt=170)] = 34.0
    projection: Literal["perspective", "orthographic"] = "perspective"


@dataclass(frozen=True, slots=True)
class Quality:
    """How finely the picture is computed."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    look: Literal["physical", "viewer", "dvr", "mip", "iso"] = "physical"
    """The published viewer's own, or, of the density alone: plain compositing, the maximum, a
    surface."""
    lighting: Literal["auto", "mc", "baked", "cone"] = "auto"
    """Light by random probes of every sample, by such probes once for the whole volume, or by a few
    wide taps; ``auto`` bakes for movies, if the light is fixed to the scene."""
    iso: Fraction = 0.5
    """Density of the surface."""
    step: Annotated[float, Field(gt=0, le=4)] = 0.5
    """In voxels of the level drawn."""
    spp: Annotated[int, Field(ge=1, le=4096)] = 4
    """Rays per pixel."""
    ao: Annotated[int, Field(ge=1, le=512)] = 12
    """Probes of a sample's surroundings."""
    shadow: Annotated[int, Field(ge=1, le=512)] = 24
    """Probes toward the light."""
    gate: Fraction = 0.031
    """Opacity to be gathered along a ray before light is probed anew."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 1


@dataclass(frozen=True, slots=True)
class Output:
    """The picture as a file."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    size: tuple[Pixels, Pixels] = (960, 720)
    """Width and height."""
    bits: Literal[8, 16] = 8
    """Per channel."""
    background: Color = "#000000"
    exposure: Positive = 1.9
    bloom: NotNegative = 0.35
    scale_bar: bool = True


@dataclass(frozen=True, slots=True)
class Movie:
    """Frames, and how the camera goes round."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    frames: Annotated[int, Field(ge=1, le=100_000)] = 240
    fps: Annotated[int, Field(ge=1, le=240)] = 30
    turn_degrees: Number = 360.0
    """About the upright axis, from the first frame to where the next would be the first again."""
    ease: bool = False
    """Whether time goes slowly at either end."""


@dataclass(frozen=True, slots=True)
class Keyframe:
    """What is to be seen at one time of a movie; between two of them all changes smoothly."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    at: Fraction
    azimuth: Number | None = None
    elevation: Number | None = None
    roll: Number | None = None
    distance: Positive | None = None
    target: Vector | None = None
    fov_degrees: Annotated[float, Field(gt=0, lt=170)] | None = None
    low: tuple[Annotated[float, Field(ge=0, lt=1)], ...] | None = None
    """Left limits of all drawn classes, in their order."""
    color: tuple[Color, ...] | None = None
    clip: tuple[Plane, ...] | None = None


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything that a picture depends on beside the data."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    classes: tuple[ClassLook, ...] = ()
    """The drawn classes; empty for all but the first, the background."""
    density: Density = field(default_factory=Density)
    light: Light = field(default_factory=Light)
    camera: Camera = field(default_factory=Camera)
    quality: Quality = field(default_factory=Quality)
    output: Output = field(default_factory=Output)
    movie: Movie = field(default_factory=Movie)
    keyframes: tuple[Keyframe, ...] = ()

    def __post_init__(self) -> None:
        times = [keyframe.at for keyframe in self.keyframes]
        if sorted(set(times)) != times:
            raise ConfigurationError(f"keyframes at {times}: put them in order, no time twice")
        for key in ("low", "color", "clip"):
            for keyframe in self.keyframes:
                values = getattr(keyframe, key)
                if values is not None and len(values) != len(self.classes):
                    raise ConfigurationError(
                        f"the keyframe at {keyframe.at} has {len(values)} values of {key}, the "
                        f"scene {len(self.classes)} [[classes]]: give one for each"
                    )


def scene_toml(scene: Scene) -> str:
    """Give the scene as TOML that reads back equal: a scene file, and what a picture carries."""
    return "\n".join(_lines(scene)) + "\n"


def _lines(scene: Scene) -> Iterator[str]:
    for entry in fields(scene):
        value = getattr(scene, entry.name)
        for table in value if isinstance(value, tuple) else (value,):
            yield f"[{entry.name}]" if is_dataclass(value) else f"[[{entry.name}]]"
            for key in fields(table):
                if (item := getattr(table, key.name)) is not None:
                    yield f"{key.name} = {_toml(item)}"


def _toml(value: Any) -> str:
    """Give a number, text, truth value or tuple of numbers; JSON writes these as TOML does."""
    return json.dumps(value)
