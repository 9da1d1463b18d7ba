"""Strokes to voxels: exactly those within the radius, the later stroke on top."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otzi.box import Box, tile
from otzi.classes import ClassTable
from otzi.errors import NotFoundError
from otzi.stroke_voxels import StrokeVoxels, rasterise
from otzi.strokes import Stroke, read_strokes
from otzi_pipelines.demo_data import strokes_file
from references import stroke_labels

CLASSES = ClassTable.named(("background", "membrane", "lumen"))
SHAPE = (4, 5, 6)

places = st.integers(-8, 28).map(lambda n: n / 4)
strokes = st.tuples(
    st.integers(0, 2),
    st.integers(0, 12).map(lambda n: n / 4),
    st.lists(st.tuples(places, places, places), min_size=1, max_size=3),
)
labels = st.integers(0, 2**32).map(
    lambda seed: np.random.default_rng(seed).choice(4, SHAPE, p=(0.7, 0.1, 0.1, 0.1)).astype("u1")
)


def voxels_of(drawn: list[tuple[int, float, list]], shape: tuple[int, int, int]) -> StrokeVoxels:
    strokes_ = [Stroke(CLASSES.names[i], radius, tuple(points)) for i, radius, points in drawn]
    return rasterise(strokes_, CLASSES, shape)


def whole(voxels: StrokeVoxels) -> np.ndarray:
    return voxels.labels(Box.whole(voxels.shape))


@settings(max_examples=50, deadline=None)
@given(st.lists(strokes, max_size=3))
def test_voxels_are_those_of_the_definition(drawn: list[tuple[int, float, list]]) -> None:
    np.testing.assert_array_equal(whole(voxels_of(drawn, SHAPE)), stroke_labels(drawn, SHAPE))


def test_a_long_oblique_stroke_is_whole() -> None:
    shape = (60, 70, 80)
    stroke = (1, 1.25, [(0.0, 0.0, 0.0), (59.0, 69.5, 79.0)])
    found = whole(voxels_of([stroke], shape))
    along = np.array([59.0, 69.5, 79.0])
    places = np.stack(np.indices(shape), axis=-1).astype(float)
    t = np.clip(places @ along / (along @ along), 0, 1)
    distance = np.linalg.norm(places - t[..., None] * along, axis=-1)
    assert abs(distance - 1.25).min() > 1e-6
    np.testing.assert_array_equal(found, np.where(distance < 1.25, 2, 0))


def test_the_strokes_of_the_demo_have_these_voxels() -> None:
    """In rational arithmetic on the decimals of the file, ties at the radius included."""
    drawn = read_strokes(strokes_file())
    voxels = rasterise(drawn.strokes, ClassTable.named(drawn.classes), (100, 315, 326))
    assert voxels.counts(3) == (16402, 2445, 17299)
    assert len(voxels) == 36146
    assert set(voxels.coordinates[:, 0].tolist()) >= {6, 30, 40, 60, 92}


def test_a_stroke_outside_has_no_voxels() -> None:
    assert len(voxels_of([(1, 2.0, [(-9.0, 3.0, 3.0), (-9.0, 3.0, 900.0)])], SHAPE)) == 0
    with pytest.raises(NotFoundError, match="no class 'gold'"):
        rasterise([Stroke("gold", 1.0, ((0.0, 0.0, 0.0),))], CLASSES, SHAPE)


@given(labels)
def test_labels_are_kept_sorted_and_unique(volume: np.ndarray) -> None:
    blocks = [(box, volume[box.slices]) for box in reversed(list(tile(SHAPE, (3, 2, 6))))]
    voxels = StrokeVoxels.from_labels(SHAPE, blocks)
    np.testing.assert_array_equal(whole(voxels), volume)
    assert (np.diff(voxels.indices) > 0).all()
    assert voxels.counts(3) == tuple((volume == i).sum() for i in (1, 2, 3))
    for box in tile(SHAPE, (3, 4, 4)):
        np.testing.assert_array_equal(voxels.labels(box), volume[box.slices])
    same = StrokeVoxels.from_labels(SHAPE, [(Box.whole(SHAPE), volume)])
    assert same.sha256 == voxels.sha256


@given(labels, labels)
def test_the_later_strokes_lie_on_top(below: np.ndarray, above: np.ndarray) -> None:
    first, second = (
        StrokeVoxels.from_labels(SHAPE, [(Box.whole(SHAPE), v)]) for v in (below, above)
    )
    both = first.overlaid(second)
    np.testing.assert_array_equal(whole(both), np.where(above > 0, above, below))
    assert (both.sha256 == first.sha256) == (whole(both) == below).all()


@given(labels)
def test_blocks_hold_every_voxel_once(volume: np.ndarray) -> None:
    voxels = StrokeVoxels.from_labels(SHAPE, [(Box.whole(SHAPE), volume)])
    rows = []
    for box, inside in voxels.by_block(3):
        coordinates = voxels.coordinates[inside]
        assert (coordinates.min(axis=0) == box.start).all()
        assert (coordinates.max(axis=0) + 1 == box.stop).all()
        assert len(np.unique(coordinates // 3, axis=0)) == 1
        rows += inside.tolist()
    assert sorted(rows) == list(range(len(voxels)))
