"""The scale bar: a round length that fits, drawn as long as it says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from otzi_viewers.render.scale_bar import bar_length_angstrom, length_label, with_scale_bar


@given(st.floats(1e-3, 1e9))
@example(np.nextafter(4000.0, 0))
@example(4000.0)
def test_the_bar_is_the_longest_round_length_within_a_quarter(width_angstrom: float) -> None:
    length = bar_length_angstrom(width_angstrom)
    assert f"{length:e}"[0] in "125"
    assert f"{length:.6e}"[1:8] == ".000000"
    assert length <= width_angstrom / 4
    following = length * (2.5 if f"{length:e}"[0] == "2" else 2)
    assert following > width_angstrom / 4 * (1 - 1e-9)


@pytest.mark.parametrize(
    ("angstrom", "text"),
    [(5, "5 Å"), (10, "1 nm"), (500, "50 nm"), (5000, "500 nm"), (10000, "1 µm"), (0.5, "0.5 Å")],
)
def test_lengths_are_written_in_the_usual_units(angstrom: float, text: str) -> None:
    assert length_label(angstrom) == text


@pytest.mark.parametrize(("shade", "ink"), [(0.0, 1.0), (1.0, 0.0)])
def test_the_bar_is_as_long_as_it_says_and_stands_out(shade: float, ink: float) -> None:
    picture = np.full((300, 400, 3), shade, np.float32)
    drawn = with_scale_bar(picture, 3.0)
    assert (picture == shade).all()
    # A quarter of 1200 Å is 300 Å: the bar is 200 Å, 66.7 pixels.
    full = (drawn == ink).all(axis=-1)
    assert abs(int(full.sum(axis=1).max()) - 200 / 3) <= 1.5
    assert not full[:, 200:].any()
    assert not full[:200].any()


@pytest.mark.parametrize("size", [(1, 1), (2, 9), (12, 16)])
def test_tiny_pictures_are_no_error(size: tuple[int, int]) -> None:
    drawn = with_scale_bar(np.zeros((*size, 3), np.float32), 10.0)
    assert drawn.shape == (*size, 3)
    assert np.isfinite(drawn).all()
