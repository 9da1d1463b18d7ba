"""The labels of the block that is looked at are those that the whole volume gets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otzi.box import Box
from otzi.errors import StrokesError
from otzi.stroke_voxels import rasterise
from otzi.strokes import Stroke, Strokes, write_strokes
from otzi_pipelines.label.pseudolabel import pseudolabel
from otzi_pipelines.label.stroke_import import import_strokes
from otzi_viewers.strokes.preview import BlockLabels, label_preview, preview_box

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from otzi.tomogram import Tomogram

SHAPE = (40, 60, 70)


def test_a_block_is_labelled_as_the_whole_is(
    add_tomogram: Callable[..., Tomogram], tmp_path: Path
) -> None:
    x = np.arange(SHAPE[2])
    profile = np.select([x < 30, x < 36], [40.0, -60.0], 0.0)
    volume = profile + np.random.default_rng(0).normal(0, 10, SHAPE)
    tomo = add_tomogram(volume.astype(np.float32))
    places = {"background": 12, "membrane": 33, "lumen": 55}
    strokes = tuple(
        Stroke(name, 1.5, ((10.0, 8.0, float(x)), (10.0, 50.0, float(x))))
        for name, x in places.items()
    )
    drawn = Strokes(tomo.id, tomo.classes.names, strokes)
    write_strokes(tmp_path / "strokes.json", drawn)
    import_strokes(tomo, tmp_path / "strokes.json")
    pseudolabel(tomo, "all", soft=False, n_trees=10)
    box = Box((5, 10, 20), (15, 30, 60))
    voxels = rasterise(strokes, tomo.classes, tomo.shape)
    labels = label_preview(tomo, voxels, box, n_trees=10)
    np.testing.assert_array_equal(labels.block, tomo.read("labels/all", box) + 1)
    one_class = rasterise(strokes[:1], tomo.classes, tomo.shape)
    with pytest.raises(StrokesError, match="at least 2 classes"):
        label_preview(tomo, one_class, box, n_trees=1)


@given(st.tuples(*(st.tuples(st.integers(0, 12), st.integers(0, 12)).map(sorted),) * 3))
def test_a_volume_of_one_block_is_zero_elsewhere(spans: tuple[list[int], ...]) -> None:
    box = Box((2, 3, 4), (5, 9, 8))
    block = np.arange(1, box.n_voxels + 1, dtype=np.uint8).reshape(box.shape)
    whole = np.zeros((10, 11, 12), np.uint8)
    whole[box.slices] = block
    region = tuple(slice(a, b) for a, b in spans)
    labels = BlockLabels((10, 11, 12), box, block)
    np.testing.assert_array_equal(labels[region], whole[region])


@given(st.tuples(*(st.floats(-10, 900) for _ in range(3))))
def test_the_block_is_in_the_volume_and_as_near_as_can_be(
    center: tuple[float, float, float],
) -> None:
    shape = (20, 500, 192)
    box = preview_box(shape, center)
    assert box.shape == (20, 192, 192)
    assert box == box.clip(shape)
    if 96 <= center[1] <= 404:
        assert abs((box.start[1] + box.stop[1]) / 2 - center[1]) <= 1
