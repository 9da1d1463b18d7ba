"""The state of an open page: changed from here while the user changes it, too."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["change_state", "merged_state"]

_FROM_NEW = ("title", "dimensions", "layers", "layout")


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


def merged_state(before: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Give the state with new layers and panels and, beside that, as it was.

    A layer that shows the same data with the same shader stays as the user has set it.
    """
    if not before:
        return new
    known = {(layer["name"], _what(layer)): layer for layer in before.get("layers", ())}
    layers = [known.get((layer["name"], _what(layer)), layer) for layer in new["layers"]]
    merged = before | {key: new[key] for key in _FROM_NEW} | {"layers": layers}
    names = {layer["name"] for layer in layers}
    if merged.get("selectedLayer", {}).get("layer") not in names and "selectedLayer" in new:
        merged["selectedLayer"] = new["selectedLayer"]
    return merged | {"showSlices": new["showSlices"]}


def _what(layer: dict[str, Any]) -> tuple[Any, Any]:
    source = layer.get("source")
    return source.get("url") if isinstance(source, dict) else source, layer.get("shader")
