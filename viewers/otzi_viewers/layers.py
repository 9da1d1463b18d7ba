"""From a tomogram to what the viewer shows of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from otzi.viewable import is_viewable_dtype
from otzi_viewers.render.scene import Density
from otzi_viewers.render.transfer import usual_extinction
from otzi_viewers.saved_style import SLICES, VOLUME, saved_style
from otzi_viewers.segmentation import (
    Segmentation,
    class_table,
    hard_labels,
    numbered_objects,
    usual_segmentation,
)
from otzi_viewers.shader import (
    APPROXIMATE,
    density_shader,
    label_shader,
    shader,
    uncertainty_shader,
)
from otzi_viewers.state import Layout, Orbit, ViewerState, VolumeLayer
from otzi_viewers.style import LARGEST_LOW, ClassStyle, Style

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from otzi.tomogram import Tomogram
    from otzi_viewers.shader import Mode3d

__all__ = [
    "SLICES_LAYER",
    "UNCERTAINTY_COLOR",
    "UNCERTAINTY_OPACITY",
    "VOLUME_LAYER",
    "Addresses",
    "overview_style",
    "slice_style",
    "stroke_layer",
    "tomogram_state",
    "usual_mode3d",
    "volume_layer",
]

UNCERTAINTY_COLOR, UNCERTAINTY_OPACITY = "#ffd23f", 0.8
SLICES_LAYER, VOLUME_LAYER = "slices", "3-D"
_UNCERTAINTY_LAYER = "uncertainty"
_LOW_WITHOUT_RAMPS = 0.1
"""Of the published viewer."""
_OPACITY_IN_SLICES = 0.7
_LABEL_OPACITY = 0.6
_ORBIT = Orbit(azimuth_degrees=-14, elevation_degrees=18)


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the browser reads."""

    collection: str
    """The collection's folder."""
    stacked: str = ""
    """Images that are computed, ``…/TOMO/PRODUCT/GENERATION``."""


def slice_style(tomo: Tomogram, segmentation: Segmentation | None = None) -> Style:
    """Give how slices are drawn: the density, and the classes as a veil over it.

    As it was saved, if it was; of ``view`` if no segmentation is given.
    """
    shown = segmentation or Segmentation.of_view(tomo)
    style = Style(classes=_classes(shown, lambda name: _OPACITY_IN_SLICES))
    return saved_style(tomo, shown.product, SLICES, style)


def overview_style(tomo: Tomogram, segmentation: Segmentation | None = None) -> Style:
    """Give how 3-D is drawn: as it was saved, or else as a picture of `otzi render` is."""
    shown = segmentation or Segmentation.of_view(tomo)
    density = Density()
    style = Style(
        classes=_classes(shown, usual_extinction),
        shows_density=False,
        density_low=density.low,
        density_high=density.high,
    )
    return saved_style(tomo, shown.product, VOLUME, style)


def _classes(segmentation: Segmentation, opacity: Callable[[str], float]) -> tuple[ClassStyle, ...]:
    return tuple(
        ClassStyle(
            name=segment.name,
            channel=segmentation.channels.index(segment.name),
            color=segment.color,
            low=round(min(segmentation.lows.get(segment.name, _LOW_WITHOUT_RAMPS), LARGEST_LOW), 4),
            opacity=opacity(segment.name),
            shown=index > 0,
        )
        for index, segment in enumerate(segmentation.classes)
    )


def tomogram_state(
    tomo: Tomogram,
    addresses: Addresses | str,
    *,
    segmentation: Segmentation | None = None,
    beside: Segmentation | None = None,
    layout: Layout = "4panel",
    mode3d: Mode3d | None = None,
    only_stored: bool = False,
) -> ViewerState:
    """Give the state that shows a tomogram: its raw density, and a segmentation where there is one.

    Parameters
    ----------
    tomo
        The tomogram.
    addresses
        Where it is read from; the address of the collection is enough for what is stored.
    segmentation
        What is shown; what is usual if None.
    beside
        Another segmentation, in panels of its own that move with the first's.
    layout
        Of the panels.
    mode3d
        How 3-D panels are drawn; if None truly, and where the overview is missing by Neuroglancer's
        own approximation, of the pyramid, which the layer's name then says.
    only_stored
        Whether nothing may be shown that has to be computed.
    """
    where = Addresses(addresses) if isinstance(addresses, str) else addresses
    shown = segmentation or (None if only_stored else usual_segmentation(tomo))
    shared: list[VolumeLayer] = []
    if is_viewable_dtype(tomo.array("raw").dtype):
        shared.append(_raw_layer(tomo, where, is_visible=shown is None))
    first = _segmentation_layers(tomo, shown, where, mode3d) if shown else []
    labels = [_label_layer(tomo, product, where) for product in hard_labels(tomo)]
    labels += [_object_layer(tomo, product, where) for product in numbered_objects(tomo)]
    second: list[VolumeLayer] = []
    columns: tuple[tuple[str, ...], ...] = ()
    if beside is not None:
        second = _segmentation_layers(tomo, beside, where, mode3d, suffix=f" {beside.product}")
        names = [layer.name for layer in (*shared, *labels)]
        columns = tuple((*names, *(layer.name for layer in one)) for one in (first, second))
    has_classes = shown is not None and bool(shown.classes)
    layers = (*shared, *first, *second, *labels)
    return ViewerState(
        title=f"{tomo.id} · otzi",
        shape=tomo.shape,
        spacing_angstrom=tomo.spacing_angstrom,
        layers=layers,
        layout=layout,
        columns=columns,
        orbit=_ORBIT,
        has_slices_in_3d=not has_classes,
        selected=_selected(first or layers, layout),
    )


def usual_mode3d(tomo: Tomogram, shown: Segmentation) -> Mode3d:
    """Give how 3-D panels are drawn: truly where there is an overview, in a single chunk."""
    return "over" if _has_overview(tomo, shown) else "stock"


def volume_layer(mode3d: Mode3d) -> str:
    """Give the name of the layer that 3-D panels draw."""
    return f"{VOLUME_LAYER}, {APPROXIMATE}" if mode3d == "stock" else VOLUME_LAYER


def _has_overview(tomo: Tomogram, shown: Segmentation) -> bool:
    return not shown.is_stored or (tomo.path("view") / "overview" / "0").exists()


def _selected(layers: Sequence[VolumeLayer], layout: Layout) -> str | None:
    """Give the layer whose controls change what the panels show."""
    seen = [layer for layer in layers if layer.in_3d == (layout == "3d")] or layers
    return seen[0].name if seen else None


def _segmentation_layers(
    tomo: Tomogram, shown: Segmentation, where: Addresses, wished: Mode3d | None, suffix: str = ""
) -> list[VolumeLayer]:
    """Give the layers of a segmentation.

    The lowest layer of slices is not blended: it is the one that draws nothing there.
    """
    if shown.is_stored or shown.product is None:
        url = _url(tomo, "view", where)
    else:
        generation = tomo.path(shown.product).name
        url = f"{where.stacked}/{tomo.id}/{shown.product}/{generation}"
    has_overview = _has_overview(tomo, shown)
    mode3d = wished or usual_mode3d(tomo, shown)
    binning = 2**shown.overview_level if has_overview else 1
    z, y, x = tomo.spacing_angstrom
    layers = [
        VolumeLayer(
            name=volume_layer(mode3d) + suffix,
            url=f"{url}/overview" if has_overview else url,
            spacing_angstrom=(z * binning, y * binning, x * binning),
            shader=shader(overview_style(tomo, shown), mode3d, slices=False),
            has_channels=True,
            in_3d=True,
            binning=binning,
        ),
        VolumeLayer(
            name=SLICES_LAYER + suffix,
            url=url,
            spacing_angstrom=tomo.spacing_angstrom,
            shader=shader(slice_style(tomo, shown)),
            has_channels=True,
        ),
    ]
    if len(shown.classes) > 1:
        layers.append(
            VolumeLayer(
                name=_UNCERTAINTY_LAYER + suffix,
                url=url,
                spacing_angstrom=tomo.spacing_angstrom,
                shader=uncertainty_shader(
                    len(shown.classes), UNCERTAINTY_COLOR, UNCERTAINTY_OPACITY
                ),
                has_channels=True,
                is_visible=False,
            )
        )
    return layers


def stroke_layer(tomo: Tomogram, url: str, name: str = "strokes") -> VolumeLayer:
    """Give the layer of strokes, or of labels like them: 0 has none, i is of class i − 1."""
    colors = {index: segment.color for index, segment in enumerate(tomo.classes, 1)}
    return VolumeLayer(
        name=name,
        url=url,
        spacing_angstrom=tomo.spacing_angstrom,
        shader=label_shader(colors, _LABEL_OPACITY),
    )


def _raw_layer(tomo: Tomogram, where: Addresses, *, is_visible: bool) -> VolumeLayer:
    percentiles = tomo.attributes("raw")["statistics"]["percentiles"]
    scale, offset = tomo.quantisation
    low, high = ((percentiles[p] - offset) / scale for p in ("0.5", "99.5"))
    return VolumeLayer(
        name="raw",
        url=_url(tomo, "raw", where),
        spacing_angstrom=tomo.spacing_angstrom,
        shader=density_shader(low, high),
        is_visible=is_visible,
    )


def _label_layer(tomo: Tomogram, product: str, where: Addresses) -> VolumeLayer:
    """Give the layer of hard labels: i is class i, and the background draws nothing."""
    names = tuple(tomo.attributes(product).get("classes", tomo.classes.names))
    table = class_table(tomo, names)
    colors = {i: table[table.index(name)].color for i, name in enumerate(names) if i}
    return VolumeLayer(
        name=product,
        url=_url(tomo, product, where),
        spacing_angstrom=tomo.spacing_angstrom,
        shader=label_shader(colors, _LABEL_OPACITY),
        is_visible=False,
    )


def _object_layer(tomo: Tomogram, product: str, where: Addresses) -> VolumeLayer:
    """Give the layer of numbered objects: each has a colour, and 0 draws nothing."""
    return VolumeLayer(
        name=product,
        url=_url(tomo, product, where),
        spacing_angstrom=tomo.spacing_angstrom,
        shader="",
        is_visible=False,
        is_segmentation=True,
    )


def _url(tomo: Tomogram, product: str, where: Addresses) -> str:
    return f"{where.collection}/tomograms/{tomo.id}/{product}/{tomo.path(product).name}"
