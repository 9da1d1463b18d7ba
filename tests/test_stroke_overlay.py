"""Strokes as a label volume: any region is that of the whole."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from otzi.classes import DEFAULT_CLASSES
from otzi.stroke_voxels import rasterise
from otzi.strokes import Stroke
from otzi_viewers.strokes import overlay as module
from otzi_viewers.strokes.overlay import StrokeOverlay

SHAPE = (12, 14, 16)
WHOLE = (slice(None),) * 3
POINTS = st.tuples(*(st.floats(-0.5, n - 0.5) for n in SHAPE))
STROKES = st.lists(
    st.builds(
        Stroke,
        st.sampled_from(DEFAULT_CLASSES.names),
        st.floats(0, 4),
        st.lists(POINTS, min_size=1, max_size=3).map(tuple),
    ),
    max_size=4,
)
SPANS = st.tuples(*(st.tuples(st.integers(0, n), st.integers(0, n)).map(sorted) for n in SHAPE))


@given(STROKES, SPANS, st.booleans())
def test_a_region_is_that_of_all_strokes_rasterised(
    strokes: list[Stroke], spans: tuple[list[int], ...], is_above: bool
) -> None:
    below = np.random.default_rng(0).integers(0, 3, SHAPE).astype(np.uint8)
    overlay = StrokeOverlay(
        SHAPE, DEFAULT_CLASSES, (lambda box: below[box.slices].copy()) if is_above else None
    )
    overlay.show(strokes)
    voxels = rasterise(strokes, DEFAULT_CLASSES, SHAPE)
    expected = below.copy() if is_above else np.zeros(SHAPE, np.uint8)
    expected[tuple(voxels.coordinates.T)] = voxels.classes + 1
    region = tuple(slice(a, b) for a, b in spans)
    np.testing.assert_array_equal(overlay[region], expected[region])
    if strokes:
        overlay.show([Stroke("lumen", 9.0, ((5.0, 5.0, 5.0),))])
        overlay.hide_last()
        np.testing.assert_array_equal(overlay[WHOLE], expected)


def test_an_edit_costs_its_own_stroke_only() -> None:
    overlay = StrokeOverlay((10_000, 10_000, 10_000), DEFAULT_CLASSES)
    first = Stroke("membrane", 2.0, ((5000.0, 5000.0, 5000.0),))
    second = Stroke("lumen", 2.0, ((9000.0, 5000.0, 5000.0),))
    with patch.object(module, "rasterise", wraps=rasterise) as rasterised:
        overlay.show([first])
        overlay.show([second])
    assert [call.args[0] for call in rasterised.call_args_list] == [(first,), (second,)]
    near = overlay[4997:5004, 4997:5004, 4997:5004]
    assert (near == 2).sum() == (near > 0).sum() == 33
    assert not overlay[0:64, 0:64, 0:64].any()
