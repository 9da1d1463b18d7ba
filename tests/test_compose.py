"""Compositing in NumPy: equal to one voxel and one ray at a time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otzi_viewers.compose import (
    classes_over,
    front_to_back,
    project,
    slice_image,
    uncertainty_color,
)
from otzi_viewers.style import ClassStyle, Style
from references import color_of_voxel, light_of_ray

STYLE = Style(
    classes=(
        ClassStyle("membrane", 2, "#c79aab", low=0.3, opacity=0.8),
        ClassStyle("spikes", 1, "#cf1f61", low=0.1),
        ClassStyle("lumen", 3, "#223378", opacity=0.5, shown=False),
    ),
    density_low=0.2,
    density_high=0.9,
    modulation=0.7,
)
VOLUME = np.random.default_rng(0).integers(0, 256, (4, 9, 5, 6), dtype=np.uint8)

fractions = st.floats(0, 1, width=32)


def test_a_slice_is_what_its_voxels_are() -> None:
    for style in (STYLE, replace(STYLE, shows_density=False), replace(STYLE, modulation=0.0)):
        drawn = slice_image(VOLUME[:, 4], style)
        for y, x in np.ndindex(drawn.shape[:2]):
            expected = color_of_voxel(VOLUME[:, 4, y, x], style) * 255
            np.testing.assert_allclose(drawn[y, x], expected, atol=0.5001)


def test_a_hidden_class_is_as_one_that_is_not_there() -> None:
    without = replace(STYLE, classes=STYLE.classes[:2])
    np.testing.assert_array_equal(classes_over(VOLUME, STYLE), classes_over(VOLUME, without))


def test_no_class_leaves_the_density() -> None:
    np.testing.assert_array_equal(slice_image(VOLUME[:, 0], Style())[..., 1], VOLUME[0, 0])


def test_a_view_is_what_its_rays_see() -> None:
    drawn = project(VOLUME, STYLE, n_samples=15, gain=2)
    step = 9 / 14
    for y, x in np.ndindex(drawn.shape[:2]):
        planes = [min(int(i * step), 8) for i in range(15)]
        ray = [classes_over(VOLUME[:, z, y, [x]], STYLE)[0] for z in planes]
        np.testing.assert_allclose(drawn[y, x], light_of_ray(ray, 2 * step), atol=1e-5)


def test_what_is_in_front_hides_what_lies_behind() -> None:
    red, blue = [1, 0, 0, 1], [0, 0, 1, 1]
    seen = front_to_back(np.array([red, blue], np.float32), 1)
    np.testing.assert_array_equal(seen, red)


@given(st.lists(st.tuples(fractions, fractions), min_size=1, max_size=8))
def test_twice_as_many_steps_of_half_the_length_see_the_same(
    samples: list[tuple[float, float]],
) -> None:
    alpha = np.array([a for _, a in samples], np.float32)
    grey = np.array([g for g, _ in samples], np.float32) * alpha
    ray = np.stack([grey, grey, grey, alpha], axis=-1)
    whole, halves = front_to_back(ray, 1), front_to_back(ray.repeat(2, axis=0), 0.5)
    np.testing.assert_allclose(halves, whole, atol=1e-4)
    assert ((whole >= 0) & (whole <= 1 + 1e-6)).all()


@pytest.mark.parametrize("n_classes", [0, 3])
def test_alpha_never_exceeds_one(n_classes: int) -> None:
    classes = tuple(replace(c, opacity=1.0, low=0.0) for c in STYLE.classes[:n_classes])
    full = np.full((4, 1, 1, 1), 255, np.uint8)
    total = classes_over(full, replace(STYLE, classes=classes))
    assert total.shape == (1, 1, 1, 4)
    assert total.max() <= 1


@pytest.mark.parametrize("margin", [False, True])
def test_uncertainty_is_that_of_each_voxel(margin: bool) -> None:
    values = VOLUME[:, 4]
    drawn = uncertainty_color(values, "#ff8000", 0.5, low=0.25, margin=margin)
    for y, x in np.ndindex(drawn.shape[:2]):
        first, second, third = sorted(values[1:, y, x] / 255, reverse=True)
        terms = (p * np.log(p) for p in (first, second, third) if p > 0)
        unsure = 1 - (first - second) if margin else min(1, -sum(terms) / np.log(3))
        alpha = 0.5 * np.clip((unsure - 0.25) / 0.75, 0, 1)
        expected = alpha * np.array([1, 128 / 255, 0, 1])
        np.testing.assert_allclose(drawn[y, x], expected, atol=1e-6)
