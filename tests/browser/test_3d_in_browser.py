"""3-D: what is in front hides what lies behind, as in NumPy; the stock shader does not do that."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import zarr

from otzi.collection import open_collection
from otzi_viewers.compose import project
from otzi_viewers.layers import overview_style, tomogram_state
from otzi_viewers.shader import APPROXIMATE
from otzi_viewers.snapshot import take_snapshot
from otzi_viewers.state import Orbit

if TYPE_CHECKING:
    from pathlib import Path

    from browser.driver import Browser
    from otzi.tomogram import Tomogram
    from otzi_viewers.server import ViewServer
    from otzi_viewers.shader import Mode3d
    from otzi_viewers.state import ViewerState

pytestmark = pytest.mark.browser

PIXELS = 96
SAMPLES = 64
FRONT, BACK = Orbit(), Orbit(azimuth_degrees=180)


def _state(tomo: Tomogram, base_url: str, mode3d: Mode3d, orbit: Orbit) -> ViewerState:
    """Give the state in which a pixel is a voxel of level 0, seen along z without perspective."""
    state = tomogram_state(tomo, base_url, layout="3d", mode3d=mode3d)
    return replace(
        state,
        layers=tuple(replace(layer, depth_samples=SAMPLES) for layer in state.layers),
        position=tuple((n - 1) / 2 for n in tomo.shape),
        orbit=orbit,
        voxels_3d=float(PIXELS),
        is_orthographic=True,
        has_marks=False,
        selected=None,
    )


def _expected(tomo: Tomogram, *, from_behind: bool) -> np.ndarray:
    """Give the view of NumPy: (96, 96, 3) in [0, 1], a voxel of the overview being 2 × 2 pixels."""
    volume = zarr.open_array(tomo.path("view") / "overview" / "0", mode="r")[:]
    if from_behind:
        volume = volume[:, ::-1, :, ::-1]
    picture = project(volume, overview_style(tomo), SAMPLES, gain=2)[..., :3]
    picture = picture.repeat(2, axis=0).repeat(2, axis=1)
    margins = [((PIXELS - n) // 2, (PIXELS - n) // 2) for n in picture.shape[:2]]
    return np.pad(picture, [*margins, (0, 0)])


def _drawn(
    page: Browser, server: ViewServer, tomo: Tomogram, mode3d: Mode3d, orbit: Orbit
) -> np.ndarray:
    state = _state(tomo, server.serve(tomo.collection.path), mode3d, orbit)
    viewer = server.show(state, (PIXELS, PIXELS))
    page.open(viewer.get_viewer_url())
    shot = take_snapshot(viewer)
    drawn = {kind: spacing for (_, kind), spacing in shot.spacings.items()}
    assert drawn["VolumeRenderingRenderLayer"] == "1.57nm"
    return shot.pixels / 255


def _rms(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.sqrt(np.mean((a - b) ** 2)))


@pytest.mark.parametrize("orbit", [FRONT, BACK], ids=["front", "back"])
def test_true_over_is_that_of_numpy(
    orbit: Orbit, page: Browser, server: ViewServer, virion_tomogram: Tomogram
) -> None:
    drawn = _drawn(page, server, virion_tomogram, "over", orbit)
    expected = _expected(virion_tomogram, from_behind=orbit is BACK)
    other_side = _expected(virion_tomogram, from_behind=orbit is FRONT)
    assert _rms(drawn, expected) <= 0.02
    assert np.corrcoef(drawn.ravel(), expected.ravel())[0, 1] >= 0.99
    assert _rms(drawn, other_side) > 0.04


def test_without_the_overview_the_pyramid_is_drawn_and_labelled(
    page: Browser, server: ViewServer, virion_tomogram: Tomogram, tmp_path: Path
) -> None:
    folder = shutil.copytree(virion_tomogram.collection.path, tmp_path / "collection")
    tomo = open_collection(folder)["virion"]
    shutil.rmtree(tomo.path("view") / "overview")
    state = tomogram_state(tomo, server.serve(folder), layout="3d")
    viewer = server.show(replace(state, has_marks=False, selected=None), (PIXELS, PIXELS))
    page.open(viewer.get_viewer_url())
    shot = take_snapshot(viewer)
    assert f"3-D, {APPROXIMATE}" in {name for name, _ in shot.spacings}
    assert (shot.pixels.max(axis=-1) > 60).mean() > 0.1


def test_the_stock_shader_lets_shine_through_what_lies_behind(
    page: Browser, server: ViewServer, virion_tomogram: Tomogram
) -> None:
    drawn = _drawn(page, server, virion_tomogram, "stock", FRONT)
    assert _rms(drawn, _expected(virion_tomogram, from_behind=False)) > 0.1
