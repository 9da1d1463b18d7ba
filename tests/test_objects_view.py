"""Numbered objects in the viewer: a segmentation layer of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from labelled import add_labels
from otzi_pipelines.objects.find import find_objects
from otzi_viewers.layers import tomogram_state

if TYPE_CHECKING:
    from collections.abc import Callable

    from otzi.tomogram import Tomogram

SHAPE = (8, 20, 24)


def test_numbered_objects_are_a_segmentation_layer(add_tomogram: Callable[..., Tomogram]) -> None:
    tomo = add_tomogram(np.random.default_rng(0).normal(size=SHAPE).astype(np.float32))
    add_labels(tomo, np.random.default_rng(1).integers(0, 3, SHAPE).astype(np.uint8), "hard")
    find_objects(tomo, "table", of="labels/hard", classes=("lumen",))
    find_objects(tomo, "m", of="labels/hard", classes=("membrane",), with_labels=True)
    layers = {layer.name: layer for layer in tomogram_state(tomo, "http://here").layers}
    assert list(layers) == ["raw", "labels/hard", "objects/m"]
    objects = layers["objects/m"].to_json()
    assert objects["type"] == "segmentation"
    assert objects["source"]["url"] == "http://here/tomograms/ts_001/objects/m/1/|zarr3:"
    assert objects["source"]["transform"] == layers["labels/hard"].to_json()["source"]["transform"]
    assert not objects["visible"]
    assert "shader" not in objects
