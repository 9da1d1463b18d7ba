"""Strokes of phantoms: all that they cover is of their class."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otzi.classes import DEFAULT_CLASSES
from otzi.stroke_voxels import rasterise
from otzi.strokes import Strokes
from otzi_pipelines.phantom.hand import draw_strokes
from otzi_pipelines.phantom.settings import StrokeSettings
from phantoms import scene_of, small

NOTHING = np.zeros((54, 60, 58), bool)
LABELS = scene_of(small()).labels


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 2**32),
    radius=st.sampled_from([0.0, 0.7, 1.0, 1.5, 2.5, 4.0]),
    slices=st.integers(0, 4),
    per_class=st.integers(0, 4),
    points=st.integers(1, 12),
)
def test_strokes_lie_in_their_class(
    seed: int, radius: float, slices: int, per_class: int, points: int
) -> None:
    chosen = StrokeSettings(slices, per_class, points, radius)
    drawn = draw_strokes(LABELS, NOTHING, chosen, "a", np.random.default_rng(seed))
    assert drawn == draw_strokes(LABELS, NOTHING, chosen, "a", np.random.default_rng(seed))
    drawn.check("a", LABELS.shape, DEFAULT_CLASSES)
    per_slice = {(s.points[0][0], s.class_name): 0 for s in drawn.strokes}
    for stroke in drawn.strokes:
        per_slice[stroke.points[0][0], stroke.class_name] += 1
        assert stroke.radius_voxels <= radius
        assert 1 <= len(stroke.points) <= points
        assert len({z for z, _, _ in stroke.points}) == 1
        z, y, x = rasterise([stroke], DEFAULT_CLASSES, LABELS.shape).coordinates.T
        assert len(z)
        assert set(LABELS[z, y, x]) == {DEFAULT_CLASSES.index(stroke.class_name) + 1}
    assert set(per_slice.values()) <= {per_class}
    assert len(per_slice) == (4 * slices if per_class else 0)
    assert Strokes.from_json(json.loads(json.dumps(drawn.to_json())), "a") == drawn


def test_a_stroke_goes_to_what_could_be_taken_for_a_class() -> None:
    lump = NOTHING.copy()
    lump[:, 2:5, 2:5] = True
    assert (LABELS[:, 1:6, 1:6] == 1).all()
    chosen = StrokeSettings(slices=2, per_class=2, radius_voxels=1.0)
    drawn = draw_strokes(LABELS, lump, chosen, "a", np.random.default_rng(0))
    ours = [s.points[0] for s in drawn.strokes if s.class_name == "background"]
    assert len(ours) == 4
    assert [bool(lump[int(z), int(y), int(x)]) for z, y, x in ours][::2] == [True, True]


def test_strokes_are_drawn_where_all_classes_are_seen() -> None:
    chosen = StrokeSettings(slices=3)
    drawn = draw_strokes(LABELS, NOTHING, chosen, "a", np.random.default_rng(0))
    planes = sorted({int(s.points[0][0]) for s in drawn.strokes})
    assert len(planes) == 3
    for z in planes:
        assert set(np.unique(LABELS[z])) == {1, 2, 3, 4}


@pytest.mark.parametrize("labels", [np.ones((9, 12, 12), np.uint8)])
def test_where_there_is_only_ice_there_are_no_strokes(labels: np.ndarray) -> None:
    nothing = np.zeros(labels.shape, bool)
    drawn = draw_strokes(labels, nothing, StrokeSettings(), "a", np.random.default_rng(0))
    assert drawn.strokes == ()
