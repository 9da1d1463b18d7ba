"""The state of an open page: changed from here while the user changes it, too."""

from __future__ import annotations

from copy import deepcopy
from math import isclose
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["change_state", "merged_state"]

_FROM_NEW = ("title", "dimensions", "layers", "layout", "showSlices")
_ZOOM = "crossSectionScale"


def change_state(viewer: Any, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Set the state of a Neuroglancer viewer to what `change` gives for the present one."""
    from neuroglancer.trackable_state import ConcurrentModificationError

    while True:
        before, generation = viewer.shared_state.raw_state_and_generation
        try:
            # A change within would go unnoticed: what is set is compared with what was.
            after = change(deepcopy(before))
            viewer.shared_state.set_state(after, existing_generation=generation)
        except ConcurrentModificationError:
            continue
        return


def merged_state(
    before: dict[str, Any], new: dict[str, Any], put: Mapping[str, Any]
) -> dict[str, Any]:
    """Give the state with new layers and panels and, beside that, as its user has set it.

    A layer that shows the same data with the same shader stays as it is. What the user has left as
    it was put, in the state `put`, follows the new one: which layers are visible, which one's
    controls are open, and the zoom of slices.
    """
    if not before:
        return new
    known = {(layer["name"], _what(layer)): layer for layer in before.get("layers", ())}
    was_visible = {layer["name"]: layer["visible"] for layer in put.get("layers", ())}
    layers = []
    for layer in new["layers"]:
        if kept := known.get((layer["name"], _what(layer))):
            is_as_put = kept.get("visible", True) == was_visible.get(layer["name"])
            layers.append(kept | {"visible": layer["visible"]} if is_as_put else kept)
        else:
            layers.append(layer)
    merged = before | {key: new[key] for key in _FROM_NEW} | {"layers": layers}
    opened = before.get("selectedLayer", {})
    is_as_put = opened.get("layer") == put.get("selectedLayer", {}).get("layer")
    is_gone = opened.get("layer") not in {layer["name"] for layer in layers}
    if "selectedLayer" in new and (is_gone or is_as_put):
        is_open = {"visible": opened.get("visible", False)} if opened else {}
        merged["selectedLayer"] = new["selectedLayer"] | is_open
    if isclose(before.get(_ZOOM, 0), put.get(_ZOOM, 0)):
        merged[_ZOOM] = new[_ZOOM]
    return merged


def _what(layer: dict[str, Any]) -> tuple[Any, Any]:
    source = layer.get("source")
    return source.get("url") if isinstance(source, dict) else source, layer.get("shader")
