"""An open page is changed without undoing what its user does."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from neuroglancer.json_wrappers import JsonObjectWrapper
from neuroglancer.trackable_state import TrackableState

from otzi_viewers.page_state import change_state, merged_state
from otzi_viewers.state import ViewerState, VolumeLayer

SPACING = (1.0, 1.0, 1.0)


def layer(name: str, url: str = "http://a", shader: str = "void main() {}") -> VolumeLayer:
    return VolumeLayer(name, url, SPACING, shader)


def state(*layers: VolumeLayer, **settings: Any) -> dict[str, Any]:
    return ViewerState("ts", (8, 8, 8), SPACING, layers, selected="a", **settings).to_json()


def test_what_the_user_set_stays() -> None:
    put = state(layer("a"), layer("b"))
    before = state(layer("a"), layer("b")) | {"position": [1, 2, 3], "crossSectionScale": 9}
    before["layers"][0] |= {"visible": False, "shaderControls": {"x": 1}}
    merged = merged_state(before, state(layer("a"), layer("c"), layout="xy"), put)
    assert (merged["position"], merged["crossSectionScale"]) == ([1, 2, 3], 9)
    assert merged["layers"][0] == before["layers"][0]
    assert [one["name"] for one in merged["layers"]] == ["a", "c"]
    assert merged["layout"]["type"] == "xy"


@pytest.mark.parametrize("change", [{"url": "http://b"}, {"shader": "void main() { }"}])
def test_a_layer_of_other_data_or_another_shader_is_new(change: dict[str, str]) -> None:
    before = state(layer("a"))
    before["layers"][0]["visible"] = False
    new = state(layer("a", **change))
    assert merged_state(before, new, state(layer("a")))["layers"] == new["layers"]


def test_the_open_tab_is_one_that_is_there() -> None:
    put = state(layer("a"), layer("b"))
    before = put | {"selectedLayer": {"layer": "b", "visible": True}}
    merged = merged_state(before, state(layer("a"), layer("b")), put)
    assert merged["selectedLayer"]["layer"] == "b"
    assert merged_state(before, state(layer("a")), put)["selectedLayer"]["layer"] == "a"


def test_what_the_user_left_as_it_was_follows() -> None:
    put = state(layer("a"), layer("b"))
    before = state(layer("a"), layer("b"))
    before["layers"][0]["shaderControls"] = {"x": 1}
    new = state(replace(layer("a"), is_visible=False), layer("b"), layout="xy")
    new["selectedLayer"]["layer"] = "b"
    merged = merged_state(before, new, put)
    assert merged["layers"][0] == before["layers"][0] | {"visible": False}
    assert merged["selectedLayer"] == new["selectedLayer"]
    assert merged["crossSectionScale"] == new["crossSectionScale"] < put["crossSectionScale"]


@pytest.mark.parametrize("closed", [{"layer": "a"}, {"layer": "a", "visible": False}])
def test_controls_that_were_closed_stay_closed(closed: dict[str, Any]) -> None:
    put = state(layer("a"), layer("b"))
    new = state(layer("b"))
    new["selectedLayer"]["layer"] = "b"
    merged = merged_state(put | {"selectedLayer": closed}, new, put)
    assert merged["selectedLayer"] == new["selectedLayer"] | {"visible": False}


def test_a_change_that_was_overtaken_is_made_again() -> None:
    viewer = SimpleNamespace(shared_state=TrackableState(JsonObjectWrapper))
    viewer.shared_state.set_state({"position": 1})
    seen: list[int] = []

    def change(before: dict[str, Any]) -> dict[str, Any]:
        seen.append(before["position"])
        if len(seen) == 1:
            viewer.shared_state.set_state({"position": 2})
        return before | {"layout": "xy"}

    change_state(viewer, change)
    assert seen == [1, 2]
    assert viewer.shared_state.raw_state == {"position": 2, "layout": "xy"}


def test_a_change_within_is_noticed() -> None:
    viewer = SimpleNamespace(shared_state=TrackableState(JsonObjectWrapper))
    viewer.shared_state.set_state({"layers": [{"name": "a"}]})
    generation = viewer.shared_state.state_generation

    def change(state: dict[str, Any]) -> dict[str, Any]:
        state["layers"][0]["name"] = "b"
        return state

    change_state(viewer, change)
    assert viewer.shared_state.raw_state == {"layers": [{"name": "b"}]}
    assert viewer.shared_state.state_generation != generation
