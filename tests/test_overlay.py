"""Slices for people: the background leaves the density as it is, other classes colour it."""

from __future__ import annotations

import numpy as np

from otzi.classes import ClassTable, rgb_of
from otzi_pipelines.overlay import (
    CAPTION_PIXELS,
    GAP_PIXELS,
    coloured,
    draw_sheet,
    grey_levels,
)

TABLE = ClassTable.named(("background", "membrane", "lumen"))


def test_grey_is_cut_at_its_limits() -> None:
    plane = np.array([[-2, 0], [50, 200]], np.int16)
    np.testing.assert_allclose(grey_levels(plane, 0, 100), [[0, 0], [127.5, 255]])
    np.testing.assert_array_equal(grey_levels(np.zeros((1, 2)), 0, 0), [[0, 0]])


def test_classes_lie_over_the_density_by_their_share() -> None:
    shares = np.array([[[255, 0, 0]], [[0, 255, 0]], [[0, 0, 255]]], np.uint8)
    grey = np.full((1, 3), 100.0)
    painted = coloured(grey, shares, TABLE.classes)
    np.testing.assert_allclose(painted[0, 0], 100)
    for column, kind in ((1, TABLE[1]), (2, TABLE[2])):
        colour = 255 * np.array(rgb_of(kind.color))
        np.testing.assert_allclose(painted[0, column], 0.3 * 100 + 0.7 * colour)


def test_panels_of_any_size_find_their_place() -> None:
    wide, tall = np.full((4, 30, 3), 50.0), np.full((9, 8, 3), 300.0)
    sheet = np.asarray(draw_sheet([(("a", ""), [wide, tall]), (("b",), [wide])], TABLE.classes))
    assert sheet.shape == (2 * CAPTION_PIXELS + 9 + 4, 2 * (30 + GAP_PIXELS) - GAP_PIXELS, 3)
    top = CAPTION_PIXELS
    assert (sheet[top : top + 4, :30] == 50).all()
    assert (sheet[top : top + 9, 36 : 36 + 8] == 255).all()
    assert (sheet[top + 9 + CAPTION_PIXELS :, :30] == 50).all()
    assert (sheet[top : top + 9, 30:36] == 0).all()
