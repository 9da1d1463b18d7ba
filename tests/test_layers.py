"""From a tomogram to layers: what can be shown is shown, with the numbers stored beside it."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import dask.array as da
import numpy as np
import pytest

from otzi_pipelines.view_product import build_view
from otzi_viewers.layers import overview_style, slice_style, tomogram_state
from otzi_viewers.render.scene import Density
from otzi_viewers.render.transfer import usual_extinction
from otzi_viewers.shader import APPROXIMATE

if TYPE_CHECKING:
    from collections.abc import Callable

    from otzi.tomogram import Tomogram

SHAPE = (30, 250, 40)
BASE = "http://127.0.0.1:1/data/token"


@pytest.fixture
def tomo(add_tomogram: Callable[..., Tomogram]) -> Tomogram:
    return add_tomogram(np.random.default_rng(0).normal(0, 9, SHAPE).astype(np.float32))


@pytest.fixture
def segmented(tomo: Tomogram) -> Tomogram:
    with tomo.write("probs/net", dtype="u1", recipe={}, channels=tomo.classes.names) as writer:
        da.store(da.zeros((3, *SHAPE), dtype="u1", chunks=(3, 64, 64, 64)), writer, lock=False)
    with tomo.stage("ramps/net", recipe={}, parents=("probs/net",)) as staging:
        lows = {"background": 0.5, "membrane": 0.123456, "lumen": 1.0}
        staging.attributes["ramps"] = {name: {"low": low} for name, low in lows.items()}
    build_view(tomo, "net")
    return tomo


def test_raw_alone_is_shown_where_there_is_no_view(tomo: Tomogram) -> None:
    state = tomogram_state(tomo, BASE)
    (raw,) = state.layers
    assert raw.url == f"{BASE}/tomograms/ts_001/raw/1"
    assert raw.is_visible
    assert state.has_slices_in_3d
    assert state.selected == "raw"
    percentiles = tomo.attributes("raw")["statistics"]["percentiles"]
    assert f"[{percentiles['0.5']:.9g}, {percentiles['99.5']:.9g}]" in raw.shader


def test_a_window_is_in_stored_units(add_tomogram: Callable[..., Tomogram]) -> None:
    tomo = add_tomogram(np.random.default_rng(0).integers(-90, 90, (8, 8, 8)).astype(np.int8))
    before = tomogram_state(tomo, BASE).layers[0].shader
    attributes = tomo.attributes("raw")
    statistics = attributes["statistics"]
    for name, value in statistics["percentiles"].items():
        statistics["percentiles"][name] = value * 0.5 + 3
    with tomo.write("raw", dtype="i1", recipe={"made": "again"}) as writer:
        writer[:, :, :] = np.zeros((8, 8, 8), np.int8)
        writer.attributes["statistics"] = statistics
        writer.attributes["quantisation"] = {"scale": 0.5, "offset": 3.0}
    assert tomogram_state(tomo, BASE).layers[0].shader == before


def test_half_precision_is_left_out(add_tomogram: Callable[..., Tomogram]) -> None:
    tomo = add_tomogram(np.zeros((8, 8, 8), np.float16))
    assert tomogram_state(tomo, BASE).layers == ()
    build_view(tomo)
    assert [layer.name for layer in tomogram_state(tomo, BASE).layers] == ["3-D", "slices"]


def test_the_overview_is_what_3d_draws(segmented: Tomogram) -> None:
    state = tomogram_state(segmented, BASE)
    _, overview, slices, uncertainty = state.layers
    assert [layer.is_visible for layer in state.layers] == [False, True, True, False]
    assert [layer.in_3d for layer in state.layers] == [False, True, False, False]
    assert uncertainty.url == slices.url
    assert overview.url == f"{slices.url}/overview"
    assert overview.binning == 2
    assert overview.spacing_angstrom == (40.0, 20.0, 20.0)
    assert slices.spacing_angstrom == (20.0, 10.0, 10.0)
    assert state.selected == "slices"
    assert tomogram_state(segmented, BASE, layout="3d").selected == "3-D"


def test_the_stock_mode_is_labelled(segmented: Tomogram) -> None:
    names = [layer.name for layer in tomogram_state(segmented, BASE, mode3d="stock").layers]
    assert f"3-D, {APPROXIMATE}" in names


def test_without_the_overview_3d_is_the_pyramid_and_labelled(segmented: Tomogram) -> None:
    shutil.rmtree(segmented.path("view") / "overview")
    (volume,) = (layer for layer in tomogram_state(segmented, BASE).layers if layer.in_3d)
    assert volume.name == f"3-D, {APPROXIMATE}"
    assert volume.url.endswith("/view/1")
    assert volume.spacing_angstrom == segmented.spacing_angstrom
    assert volume.binning == 1
    assert APPROXIMATE in volume.shader


def test_ramps_are_those_stored(segmented: Tomogram) -> None:
    for style in (slice_style(segmented), overview_style(segmented)):
        assert {c.name: c.low for c in style.classes} == {
            "background": 0.5,
            "membrane": 0.1235,
            "lumen": 0.99,
        }
        assert [c.channel for c in style.classes] == [1, 2, 3]
        assert [c.shown for c in style.classes] == [False, True, True]
        assert [c.color for c in style.classes] == [c.color for c in segmented.classes]


def test_a_foreground_of_all_classes_is_drawn(tomo: Tomogram) -> None:
    merged = tomo.classes.merged
    with tomo.write("probs/two", dtype="u1", recipe={}, channels=merged.names) as writer:
        da.store(da.zeros((2, *SHAPE), dtype="u1", chunks=(2, 64, 64, 64)), writer, lock=False)
    build_view(tomo, "two")
    found = [(c.name, c.channel, c.color, c.shown) for c in slice_style(tomo).classes]
    assert found == [(c.name, i + 1, c.color, i > 0) for i, c in enumerate(merged)]


def test_the_overview_has_the_numbers_of_pictures(segmented: Tomogram) -> None:
    style = overview_style(segmented)
    assert (style.density_low, style.density_high) == (Density().low, Density().high)
    assert [c.opacity for c in style.classes] == [usual_extinction(c.name) for c in style.classes]
    assert style.modulation == 1


def test_without_classes_3d_has_the_slices(tomo: Tomogram, segmented: Tomogram) -> None:
    assert not tomogram_state(segmented, BASE).has_slices_in_3d
    build_view(tomo)
    assert slice_style(tomo).classes == ()
    assert tomogram_state(tomo, BASE).has_slices_in_3d
