"""The viewer's state: positions by name, channels together, 3-D as strong as level 0."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from otzi_viewers.state import Orbit, ViewerState, VolumeLayer

LAYER = VolumeLayer("raw", "http://host/a/raw/1", (20.0, 10.0, 8.0), "void main() {}")
STATE = ViewerState("ts_001", (100, 50, 30), (20.0, 10.0, 8.0), (LAYER,))


def test_positions_follow_the_names_of_the_dimensions() -> None:
    state = replace(STATE, position=(1.0, 2.0, 3.0)).to_json()
    assert dict(zip(state["dimensions"], state["position"], strict=True)) == {
        "z": 1.0,
        "y": 2.0,
        "x": 3.0,
    }
    scales = {name: scale for name, (scale, _) in state["dimensions"].items()}
    assert scales == pytest.approx({"z": 20e-10, "y": 10e-10, "x": 8e-10})
    assert STATE.to_json()["position"] == [15, 25, 50]


def test_the_whole_is_seen_at_first() -> None:
    state = STATE.to_json()
    longest = 100 * 20 / 8
    assert state["crossSectionScale"] * 340 == pytest.approx(longest)
    assert state["projectionScale"] > longest
    alone = replace(STATE, layout="xy")
    assert alone.to_json()["crossSectionScale"] * 660 == pytest.approx(longest)
    beside = replace(alone, columns=(("raw",), ("raw",)))
    assert beside.to_json()["crossSectionScale"] * 340 == pytest.approx(longest)


def test_channels_are_seen_together() -> None:
    assert LAYER.to_json()["source"] == {
        "url": "http://host/a/raw/1/|zarr3:",
        "transform": {
            "outputDimensions": {
                "z": [pytest.approx(2e-9), "m"],
                "y": [pytest.approx(1e-9), "m"],
                "x": [pytest.approx(8e-10), "m"],
            }
        },
    }
    together = replace(LAYER, has_channels=True).to_json()
    dimensions = together["source"]["transform"]["outputDimensions"]
    assert list(dimensions) == ["c^", "z", "y", "x"]
    assert dimensions["c^"] == [1, ""]


def test_only_one_kind_of_layer_is_drawn_in_3d() -> None:
    assert "volumeRendering" not in LAYER.to_json()
    layer = replace(LAYER, in_3d=True, binning=4, depth_samples=99).to_json()
    assert layer["volumeRendering"] == "on"
    assert np.exp(layer["volumeRenderingGain"]) == pytest.approx(4)
    assert layer["volumeRenderingDepthSamples"] == 99


def test_nothing_hides_the_volume_and_the_pixels() -> None:
    state = STATE.to_json()
    assert state["showSlices"] is False
    assert state["showDefaultAnnotations"] is False
    assert state["showScaleBar"] is state["showAxisLines"] is True
    assert replace(STATE, has_marks=False).to_json()["showScaleBar"] is False
    assert all(layer["opacity"] == 1 for layer in state["layers"])


def test_an_orbit_is_a_rotation_about_y_then_x() -> None:
    assert Orbit().quaternion == (0, 0, 0, 1)
    half = np.sqrt(0.5)
    np.testing.assert_allclose(Orbit(azimuth_degrees=90).quaternion, [0, half, 0, half])
    np.testing.assert_allclose(Orbit(elevation_degrees=90).quaternion, [half, 0, 0, half])
    assert np.linalg.norm(Orbit(33, -71).quaternion) == pytest.approx(1)


def test_the_state_is_plain_json() -> None:
    state = replace(STATE, selected="raw").to_json()
    assert json.loads(json.dumps(state)) == state
    assert state["selectedLayer"]["layer"] == "raw"


def test_columns_are_panels_beside_each_other_that_move_together() -> None:
    names = (("raw", "a"), ("raw", "b"))
    state = replace(STATE, columns=names, layout="xy").with_layer(replace(LAYER, name="top"))
    layout = state.to_json()["layout"]
    assert layout["type"] == "row"
    assert [viewer["layers"] for viewer in layout["children"]] == [
        ["raw", "a", "top"],
        ["raw", "b", "top"],
    ]
    assert {viewer["layout"]["type"] for viewer in layout["children"]} == {"xy"}
    # Links are Neuroglancer's default; a position of their own would part them.
    assert all("position" not in viewer for viewer in layout["children"])


def test_a_volume_of_this_process_has_its_centres_on_whole_numbers() -> None:
    source = replace(LAYER, url="python://volume/key").to_json()["source"]
    assert source["url"] == "python://volume/key"
    assert source["transform"]["matrix"] == [[1, 0, 0, -0.5], [0, 1, 0, -0.5], [0, 0, 1, -0.5]]
    assert source["subsources"] == {"default": True}
    assert source["enableDefaultSubsources"] is False
    assert "matrix" not in LAYER.to_json()["source"]["transform"]
