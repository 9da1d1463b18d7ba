"""Layers and state of the viewer: as dataclasses, and as the JSON that Neuroglancer takes.  Pure.

Positions are voxel centres of level 0. Neuroglancer has them in the order of its dimensions, x, y,
z; here that order is written down once, and what has names is mapped by name.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import cos, log, radians, sin
from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otzi.box import Zyx
    from otzi.ome import Spacing

__all__ = ["LAYOUTS", "Layout", "Orbit", "ViewerState", "VolumeLayer"]

Layout = Literal["4panel", "xy", "xz", "yz", "3d"]
"""Slices in three directions and 3-D together, or one of them."""
LAYOUTS: tuple[str, ...] = get_args(Layout)

_METERS_PER_ANGSTROM = 1e-10
_PANEL_PIXELS, _ONLY_PANEL_PIXELS = 340, 660
"""The smaller side of one of several panels, and of a single one, on a laptop's screen."""
_MARGIN = 1.1
_OBJECT_OPACITY = 0.5
_DISPLAYED = ("x", "y", "z")


@dataclass(frozen=True, slots=True)
class VolumeLayer:
    """An image as a layer."""

    name: str
    url: str
    """Of an OME-Zarr group, ``http://…``, or of a volume of this process, ``python://…``."""
    spacing_angstrom: Spacing
    """Of its first level, z, y, x."""
    shader: str
    has_channels: bool = False
    controls: Mapping[str, bool | float | str] = field(default_factory=dict)
    """Values of the shader's controls that are not their defaults."""
    is_visible: bool = True
    in_3d: bool = False
    """Whether 3-D panels draw it."""
    binning: int = 1
    """How many voxels of level 0 its voxels are long: opacities are those of level 0."""
    depth_samples: int = 128
    """Along a ray, in 3-D."""
    is_segmentation: bool = False
    """Whether voxels are numbers of objects, each in a colour of its own; there is no shader."""

    def to_json(self) -> dict[str, Any]:
        """Give the layer's JSON."""
        z, y, x = (v * _METERS_PER_ANGSTROM for v in self.spacing_angstrom)
        dimensions: dict[str, list[Any]] = {"z": [z, "m"], "y": [y, "m"], "x": [x, "m"]}
        if self.has_channels:
            # As `c^` the shader sees all channels of a voxel; as `c'`, the default, one of them.
            dimensions = {"c^": [1, ""], **dimensions}
        transform: dict[str, Any] = {"outputDimensions": dimensions}
        source: dict[str, Any] = {"url": f"{self.url}/|zarr3:", "transform": transform}
        if self.url.startswith("python:"):
            # Its voxels begin at whole numbers; the centres of OME-Zarr lie there.
            transform["matrix"] = [[float(i == j) for j in range(3)] + [-0.5] for i in range(3)]
            # Of labels there are meshes, too, which no image layer can draw.
            subsources = {"subsources": {"default": True}, "enableDefaultSubsources": False}
            source |= {"url": self.url, **subsources}
        if self.is_segmentation:
            return {
                "type": "segmentation",
                "name": self.name,
                "source": source,
                "selectedAlpha": _OBJECT_OPACITY,
                "visible": self.is_visible,
                "tab": "segments",
            }
        layer: dict[str, Any] = {
            "type": "image",
            "name": self.name,
            "source": source,
            "shader": self.shader,
            "shaderControls": dict(self.controls),
            "opacity": 1,
            "visible": self.is_visible,
            "tab": "rendering",
            "codeVisible": False,
        }
        if self.in_3d:
            layer |= {
                "volumeRendering": "on",
                "volumeRenderingGain": log(self.binning),
                "volumeRenderingDepthSamples": self.depth_samples,
            }
        return layer


@dataclass(frozen=True, slots=True)
class Orbit:
    """From where 3-D panels look; 0, 0 is along z, x to the right and y down as in slices."""

    azimuth_degrees: float = 0.0
    """About y."""
    elevation_degrees: float = 0.0
    """About x."""

    @property
    def quaternion(self) -> tuple[float, float, float, float]:
        """x, y, z, w of the rotation about y and then about x."""
        a, e = radians(self.azimuth_degrees) / 2, radians(self.elevation_degrees) / 2
        return cos(a) * sin(e), sin(a) * cos(e), -sin(a) * sin(e), cos(a) * cos(e)


@dataclass(frozen=True, slots=True)
class ViewerState:
    """What the page shows."""

    title: str
    shape: Zyx
    """Of level 0."""
    spacing_angstrom: Spacing
    layers: tuple[VolumeLayer, ...]
    layout: Layout = "4panel"
    columns: tuple[tuple[str, ...], ...] = ()
    """Names of the layers of panels beside each other, which move together; none for one group of
    panels with all layers."""
    position: tuple[float, float, float] | None = None
    """z, y, x in voxels of level 0; None for the middle voxel."""
    orbit: Orbit = field(default_factory=Orbit)
    voxels_per_pixel: float | None = None
    """Of slices, in the finest spacing; None for as many as show the whole in a panel."""
    voxels_3d: float | None = None
    """What the height of a 3-D panel shows, in the finest spacing; None for the whole."""
    has_slices_in_3d: bool = False
    """Whether 3-D has the slices too: they hide what lies behind them."""
    is_orthographic: bool = False
    """Whether 3-D is drawn without perspective."""
    has_marks: bool = True
    """Whether there are a scale bar and the axes through the position."""
    selected: str | None = None
    """The layer whose controls are open beside the panels."""

    def with_layer(self, layer: VolumeLayer) -> ViewerState:
        """Give the state with a layer on top, in all columns."""
        columns = tuple((*names, layer.name) for names in self.columns)
        return replace(self, layers=(*self.layers, layer), columns=columns)

    def to_json(self) -> dict[str, Any]:
        """Give the state's JSON."""
        spacing = dict(zip("zyx", self.spacing_angstrom, strict=True))
        position = self.position or tuple(float(n // 2) for n in self.shape)
        finest = min(self.spacing_angstrom)
        extents = [n * v / finest for n, v in zip(self.shape, self.spacing_angstrom, strict=True)]
        by_name = dict(zip("zyx", position, strict=True))
        is_alone = self.layout != "4panel" and not self.columns
        pixels = _ONLY_PANEL_PIXELS if is_alone else _PANEL_PIXELS
        state: dict[str, Any] = {
            "title": self.title,
            "dimensions": {d: [spacing[d] * _METERS_PER_ANGSTROM, "m"] for d in _DISPLAYED},
            "position": [by_name[d] for d in _DISPLAYED],
            "crossSectionScale": self.voxels_per_pixel or max(extents) / pixels,
            "projectionScale": self.voxels_3d or max(extents) * _MARGIN,
            "projectionOrientation": list(self.orbit.quaternion),
            "projectionBackgroundColor": "#000000",
            "crossSectionBackgroundColor": "#000000",
            "showSlices": self.has_slices_in_3d,
            "showDefaultAnnotations": False,
            "showAxisLines": self.has_marks,
            "showScaleBar": self.has_marks,
            "layers": [layer.to_json() for layer in self.layers],
            "layout": self._layout(),
        }
        if self.selected is not None:
            state["selectedLayer"] = {"layer": self.selected, "visible": True, "size": 370}
        return state

    def _layout(self) -> dict[str, Any]:
        panels = {"type": self.layout, "orthographicProjection": self.is_orthographic}
        if not self.columns:
            return panels
        beside = [
            {"type": "viewer", "layers": [*names], "layout": panels} for names in self.columns
        ]
        return {"type": "row", "children": beside}
