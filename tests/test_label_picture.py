"""The picture of labels: panels where they are, in the colours they mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from labelled import add_labels, one_hot
from otzi.classes import rgb_of
from otzi.errors import CannotCreate
from otzi_pipelines.label.picture import checked_picture, draw_slices, save_picture

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from otzi.tomogram import Tomogram

SHAPE = (16, 40, 60)
TOP = 22
"""Pixels of a caption."""


@pytest.fixture
def tomo(add_tomogram: Callable[..., Tomogram]) -> Tomogram:
    """Give density that grows along x, and class 1 in the right half of slice 8."""
    density = np.broadcast_to(np.arange(60, dtype=np.float32), SHAPE)
    tomo = add_tomogram(density)
    labels = np.zeros(SHAPE, np.uint8)
    labels[8, :, 30:] = 1
    soft = (one_hot(labels) * 255).astype(np.uint8)
    soft[:, 12, :20] = 85
    add_labels(tomo, soft)
    add_labels(tomo, labels, "hard")
    return tomo


def panel(image: Image.Image, row: int, column: int) -> np.ndarray:
    top, left = row * (SHAPE[1] + TOP) + TOP, column * (SHAPE[2] + 6)
    return np.asarray(image)[top : top + SHAPE[1], left : left + SHAPE[2]].astype(int)


def test_a_row_shows_density_labels_and_uncertainty(tomo: Tomogram) -> None:
    image = draw_slices(tomo, "net")
    assert image.size == (3 * 60 + 2 * 6, 3 * (40 + TOP))
    density = panel(image, 1, 0)
    assert (np.diff(density[0, :, 0]) >= 0).all()
    assert density[0, [0, -1], 0].tolist() == [0, 255]
    np.testing.assert_array_equal(panel(image, 0, 1), panel(image, 0, 0))  # background only
    labels = panel(image, 1, 1)
    np.testing.assert_array_equal(labels[:, :30], density[:, :30])
    color = 255 * np.array(rgb_of(tomo.classes[1].color))
    expected = 0.3 * density[:, 30:] + 0.7 * color
    assert abs(labels[:, 30:] - expected).max() <= 1
    unsure = panel(image, 2, 2)
    assert (unsure[:20] == [255, 255, 220]).all()
    assert (unsure[20:] == 0).all()


def test_hard_labels_have_no_uncertainty(tomo: Tomogram) -> None:
    image = draw_slices(tomo, "hard")
    assert image.size[0] == 2 * 60 + 6
    np.testing.assert_array_equal(panel(image, 1, 1), panel(draw_slices(tomo, "net"), 1, 1))


def test_a_large_slice_is_drawn_from_the_pyramid(add_tomogram: Callable[..., Tomogram]) -> None:
    tomo = add_tomogram(np.zeros((8, 20, 600), np.float32))
    add_labels(tomo, np.zeros((8, 20, 600), np.uint8))
    assert draw_slices(tomo, "net").size == (2 * 300 + 6, 3 * (10 + TOP))


def test_a_picture_is_a_png_in_a_folder(tomo: Tomogram, tmp_path: Path) -> None:
    file = checked_picture(tmp_path / "look.png")
    save_picture(tomo, "net", file)
    with Image.open(file) as found:
        np.testing.assert_array_equal(np.asarray(found), np.asarray(draw_slices(tomo, "net")))
    for name in ("look.jpg", "nowhere/look.png"):
        with pytest.raises(CannotCreate, match=r"name a file \.png in a folder that is there"):
            checked_picture(tmp_path / name)
