"""From light to the screen: what is dark stays, what is bright glows, hues are kept."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otzi_viewers.render.post import display, glow, srgb_encoded, tone_mapped
from otzi_viewers.render.scene import Output
from otzi_viewers.render.transfer import linear_color

lights = st.lists(st.floats(0, 50, width=32), min_size=3, max_size=3).map(
    lambda values: np.array(values, np.float32)
)


@pytest.mark.parametrize("background", ["#000000", "#ffffff", "#1f2a33", "#010203"])
def test_nothing_is_exactly_the_background(background: str) -> None:
    picture = display(np.zeros((7, 9, 4), np.float32), Output(background=background))
    codes = np.rint(picture * 255).astype(int)
    expected = [int(background[i : i + 2], 16) for i in (1, 3, 5)]
    np.testing.assert_array_equal(codes, np.broadcast_to(expected, codes.shape))


@given(st.integers(0, 255))
def test_encoding_undoes_what_colours_are_read_by(code: int) -> None:
    linear = linear_color(f"#{code:02x}{code:02x}{code:02x}").astype(np.float32)
    np.testing.assert_array_equal(np.rint(srgb_encoded(linear) * 255), code)


@given(lights)
def test_the_tone_curve_keeps_the_hue_and_ends_at_1(light: np.ndarray) -> None:
    mapped = tone_mapped(light)
    assert mapped.max() <= 1
    np.testing.assert_allclose(mapped * light.max(), light * mapped.max(), rtol=1e-4, atol=1e-6)
    if light.max() <= 0.6:
        np.testing.assert_array_equal(mapped, light)


def test_the_tone_curve_rises_without_a_bend() -> None:
    grey = np.repeat(np.linspace(0, 3, 3001, dtype=np.float32)[:, None], 3, axis=1)
    slopes = np.diff(tone_mapped(grey)[:, 0]) * 1000
    assert (slopes >= 0).all()
    assert np.abs(np.diff(slopes)).max() < 0.01


def test_only_what_is_bright_glows_and_no_light_is_added_by_blurring() -> None:
    light = np.zeros((120, 160, 3), np.float32)
    light[60, 80] = 0.35
    assert not glow(light).any()
    light[60, 80] = (4.0, 2.0, 1.0)
    halo = glow(light)
    np.testing.assert_allclose(halo.sum(axis=(0, 1)), (4.0, 2.0, 1.0), rtol=1e-3)
    assert halo[60, 82, 0] > halo[60, 84, 0] > halo[60, 88, 0]
    np.testing.assert_allclose(halo[60, 75], halo[60, 85], rtol=1e-4)


def test_light_covers_the_background_by_its_opacity() -> None:
    rgba = np.zeros((2, 3, 4), np.float32)
    rgba[0] = (0.1, 0.2, 0.05, 0.25)
    output = Output(background="#ffffff", exposure=2.0, bloom=0.0)
    expected = srgb_encoded(np.array([0.2, 0.4, 0.1], np.float32) + np.float32(0.75))
    np.testing.assert_allclose(display(rgba, output)[0], np.tile(expected, (3, 1)), atol=1e-6)
    np.testing.assert_allclose(display(rgba, output)[1], 1, atol=1e-6)
