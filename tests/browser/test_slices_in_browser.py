"""Slices: the page draws what NumPy says, to the grey level."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy import ndimage

from otzi.ramps import ramp
from otzi_viewers.compose import classes_over, slice_color, slice_image
from otzi_viewers.layers import slice_style, tomogram_state
from otzi_viewers.shader import controls
from otzi_viewers.snapshot import take_snapshot

if TYPE_CHECKING:
    from browser.driver import Browser
    from otzi.tomogram import Tomogram
    from otzi_viewers.server import ViewServer
    from otzi_viewers.state import ViewerState
    from otzi_viewers.style import Style

pytestmark = pytest.mark.browser

POSITION = (30, 41, 50)
PLANES = {
    "xy": (lambda v: v[:, POSITION[0]], (1, 2)),
    "xz": (lambda v: v[:, :, POSITION[1]], (0, 2)),
    "yz": (lambda v: v[..., POSITION[2]].swapaxes(1, 2)[..., ::-1], (1, 0)),
}
"""The slice of (c, z, y, x) as the panel shows it, and its axes: downward, across."""


def _settings(style: Style) -> dict[str, Style]:
    membrane, spikes, lumen = style.classes[1:]
    return {
        "as it opens": style,
        "changed": replace(
            style,
            classes=(
                replace(style.classes[0], shown=True, opacity=0.25),
                replace(membrane, low=0.4, color="#00ff40"),
                replace(spikes, shown=False),
                replace(lumen, opacity=1.0, low=0.0),
            ),
            modulation=1.0,
            density_low=0.2,
            density_high=0.85,
        ),
    }


def _state(tomo: Tomogram, base_url: str, plane: str, style: Style) -> ViewerState:
    """Give the state of a panel in which the middle of every voxel is the middle of a pixel."""
    state = tomogram_state(tomo, base_url, layout=plane)
    shown = PLANES[plane][1]
    return replace(
        state,
        layers=tuple(
            replace(layer, controls=controls(style)) if layer.name == "slices" else layer
            for layer in state.layers
        ),
        position=tuple(
            (n - 1) / 2 if axis in shown else float(POSITION[axis])
            for axis, n in enumerate(tomo.shape)
        ),
        voxels_per_pixel=1.0,
        has_marks=False,
        selected=None,
    )


@pytest.mark.parametrize("plane", PLANES)
def test_slices_equal_numpy_and_notice_every_change(
    plane: str, page: Browser, server: ViewServer, virion_tomogram: Tomogram
) -> None:
    tomo = virion_tomogram
    base_url = server.serve(tomo.collection.path)
    take, (down, across) = PLANES[plane]
    style = slice_style(tomo)
    values = take(tomo.array("view")[...])
    canvas = (tomo.shape[across], tomo.shape[down])
    viewer = server.show(_state(tomo, base_url, plane, style), canvas)
    page.open(viewer.get_viewer_url())
    for name, setting in _settings(style).items():
        viewer.set_state(_state(tomo, base_url, plane, setting).to_json())
        drawn = take_snapshot(viewer).pixels
        # No grey level of difference, but where the value lies between two to a thousandth.
        exact = 255 * slice_color(values, setting)
        assert np.abs(drawn - exact).max() <= 0.501, name
        assert (drawn != slice_image(values, setting)).mean() < 1e-3, name
        for wrong in (values[[0, 1, 3, 2, 4]], values[[0, 1, 2, 4, 3]], values[[2, 1, 0, 3, 4]]):
            assert _differs(drawn, slice_image(wrong, setting))
        for index, c in enumerate(setting.classes):
            if c.shown:
                others = list(setting.classes)
                others[index] = replace(c, low=c.low + 0.05)
                assert _differs(drawn, slice_image(values, replace(setting, classes=(*others,))))
        backwards = replace(setting, classes=setting.classes[::-1])
        assert _differs(drawn, slice_image(values, backwards))
        modulated = replace(setting, modulation=0.25)
        assert _differs(drawn, slice_image(values, modulated))


def _differs(drawn: np.ndarray, expected: np.ndarray) -> bool:
    return not np.array_equal(drawn, expected)


def test_between_voxels_channels_are_interpolated(
    page: Browser, server: ViewServer, virion_tomogram: Tomogram
) -> None:
    tomo = virion_tomogram
    style = replace(slice_style(tomo), interpolates=True)
    state = _state(tomo, server.serve(tomo.collection.path), "xy", style)
    state = replace(state, position=(float(POSITION[0]), 30.0, 35.0), voxels_per_pixel=0.5)
    viewer = server.show(state, (60, 60))
    page.open(viewer.get_viewer_url())
    drawn = take_snapshot(viewer).pixels.astype(float)
    y, x = (c - 14.75 + 0.5 * np.arange(60) for c in (30.0, 35.0))
    grid = np.meshgrid(y, x, indexing="ij")
    plane = tomo.array("view")[:, POSITION[0]].astype(np.float32)
    values = np.stack([ndimage.map_coordinates(one, grid, order=1) for one in plane])
    expected = slice_image(np.rint(values).astype(np.uint8), style)
    # Neuroglancer rounds the channels twice, once for each axis.
    assert np.abs(drawn - expected).max() <= 4
    nearest = slice_image(plane.astype(np.uint8)[:, *np.rint(grid).astype(int)], style)
    assert np.abs(drawn - nearest).max() > 20


def test_classes_lie_over_raw_where_the_density_is_off(
    page: Browser, server: ViewServer, virion_tomogram: Tomogram
) -> None:
    tomo = virion_tomogram
    style = replace(slice_style(tomo), shows_density=False)
    state = _state(tomo, server.serve(tomo.collection.path), "xy", style)
    shown = tuple(replace(layer, is_visible=layer.name != "uncertainty") for layer in state.layers)
    viewer = server.show(replace(state, layers=shown), (tomo.shape[2], tomo.shape[1]))
    page.open(viewer.get_viewer_url())
    percentiles = tomo.attributes("raw")["statistics"]["percentiles"]
    raw = ramp(tomo.array("raw")[POSITION[0]], percentiles["0.5"], percentiles["99.5"])
    classes = classes_over(tomo.array("view")[:, POSITION[0]], style)
    expected = 255 * (classes[..., :3] + (raw * (1 - classes[..., 3]))[..., None])
    assert np.abs(take_snapshot(viewer).pixels - expected).max() <= 1.01  # each layer is rounded


def test_a_slice_between_others_is_told_apart(
    page: Browser, server: ViewServer, virion_tomogram: Tomogram
) -> None:
    tomo = virion_tomogram
    state = _state(tomo, server.serve(tomo.collection.path), "xy", slice_style(tomo))
    viewer = server.show(state, (tomo.shape[2], tomo.shape[1]))
    page.open(viewer.get_viewer_url())
    shot = take_snapshot(viewer)
    assert shot.spacings["slices", "ImageRenderLayer"] == "784pm"
    drawn = shot.pixels
    volume = tomo.array("view")[...]
    style = slice_style(tomo)
    for z in (POSITION[0] - 1, POSITION[0] + 1):
        assert _differs(drawn, slice_image(volume[:, z], style))
