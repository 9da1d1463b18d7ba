"""From a tomogram to what the viewer shows of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otzi.viewable import is_viewable_dtype
from otzi_viewers.render.scene import Density
from otzi_viewers.render.transfer import usual_extinction
from otzi_viewers.shader import APPROXIMATE, density_shader, shader
from otzi_viewers.state import Layout, Orbit, ViewerState, VolumeLayer
from otzi_viewers.style import LARGEST_LOW, ClassStyle, Style

if TYPE_CHECKING:
    from collections.abc import Callable

    from otzi.tomogram import Tomogram
    from otzi_viewers.shader import Mode3d

__all__ = ["overview_style", "slice_style", "tomogram_state"]

_LOW_WITHOUT_RAMPS = 0.1
"""Of the published viewer."""
_OPACITY_IN_SLICES = 0.7
_ORBIT = Orbit(azimuth_degrees=-14, elevation_degrees=18)


def slice_style(tomo: Tomogram) -> Style:
    """Give how slices of ``view`` are drawn: the density, and the classes as a veil over it."""
    return Style(classes=_classes(tomo, lambda name: _OPACITY_IN_SLICES))


def overview_style(tomo: Tomogram) -> Style:
    """Give how ``view/overview`` is drawn in 3-D: as a picture of `otzi render` is by default."""
    density = Density()
    return Style(
        classes=_classes(tomo, usual_extinction),
        shows_density=False,
        density_low=density.low,
        density_high=density.high,
    )


def _classes(tomo: Tomogram, opacity: Callable[[str], float]) -> tuple[ClassStyle, ...]:
    channels = tomo.image("view").channels or ()
    ramps = tomo.attributes("view")["ramps"]
    styles = []
    for index, segment in enumerate(tomo.classes.having(channels[1:]) or ()):
        low = ramps.get(segment.name, {"low": _LOW_WITHOUT_RAMPS})["low"]
        styles.append(
            ClassStyle(
                name=segment.name,
                channel=channels.index(segment.name),
                color=segment.color,
                low=round(min(low, LARGEST_LOW), 4),
                opacity=opacity(segment.name),
                shown=index > 0,
            )
        )
    return tuple(styles)


def tomogram_state(
    tomo: Tomogram, base_url: str, *, layout: Layout = "4panel", mode3d: Mode3d = "over"
) -> ViewerState:
    """Give the state that shows a tomogram: its raw density, and ``view`` where there is one.

    Parameters
    ----------
    tomo
        The tomogram.
    base_url
        Where the collection's folder is served.
    layout
        Of the panels.
    mode3d
        How 3-D panels are drawn.
    """
    has_view = tomo.has("view")
    layers = []
    if is_viewable_dtype(tomo.array("raw").dtype):
        layers.append(_raw_layer(tomo, base_url, is_visible=not has_view))
    if has_view:
        # The lowest layer of slices is not blended: it is the one that draws nothing there.
        layers += [_overview_layer(tomo, base_url, mode3d), _view_layer(tomo, base_url)]
    return ViewerState(
        title=f"{tomo.id} · otzi",
        shape=tomo.shape,
        spacing_angstrom=tomo.spacing_angstrom,
        layers=tuple(layers),
        layout=layout,
        orbit=_ORBIT,
        has_slices_in_3d=not (has_view and overview_style(tomo).classes),
        selected=layers[-1].name if layers else None,
    )


def _raw_layer(tomo: Tomogram, base_url: str, *, is_visible: bool) -> VolumeLayer:
    percentiles = tomo.attributes("raw")["statistics"]["percentiles"]
    scale, offset = tomo.quantisation
    low, high = ((percentiles[p] - offset) / scale for p in ("0.5", "99.5"))
    return VolumeLayer(
        name="raw",
        url=_url(tomo, "raw", base_url),
        spacing_angstrom=tomo.spacing_angstrom,
        shader=density_shader(low, high),
        is_visible=is_visible,
    )


def _view_layer(tomo: Tomogram, base_url: str) -> VolumeLayer:
    return VolumeLayer(
        name="slices",
        url=_url(tomo, "view", base_url),
        spacing_angstrom=tomo.spacing_angstrom,
        shader=shader(slice_style(tomo)),
        has_channels=True,
    )


def _overview_layer(tomo: Tomogram, base_url: str, mode3d: Mode3d) -> VolumeLayer:
    binning = 2 ** tomo.attributes("view")["overview"]["level"]
    z, y, x = tomo.spacing_angstrom
    return VolumeLayer(
        name="3-D" if mode3d == "over" else f"3-D, {APPROXIMATE}",
        url=_url(tomo, "view", base_url) + "/overview",
        spacing_angstrom=(z * binning, y * binning, x * binning),
        shader=shader(overview_style(tomo), mode3d, slices=False),
        has_channels=True,
        in_3d=True,
        binning=binning,
    )


def _url(tomo: Tomogram, product: str, base_url: str) -> str:
    return f"{base_url}/tomograms/{tomo.id}/{product}/{tomo.path(product).name}"
