"""Smoothing ahead of the filters: pass by pass as in float64, of any part of a volume."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from otzi.box import Box
from otzi.pseudo.kernels import kernel_radius
from otzi.pseudo.presmooth import presmooth
from references import mirrored_filter

WINDOW = 3.5
SHAPE = (23, 19, 27)
VOLUME = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)

sigmas = st.sampled_from([0.3, 0.7, 1.0, 1.249, 3.354, 4.899])


def smoothed(volume: np.ndarray, held: Box, wanted: Box, sigma: float) -> np.ndarray:
    buffer = np.empty(wanted.shape[0] * volume[0].size, np.float32)
    volume = np.ascontiguousarray(volume)
    return presmooth(volume, held, wanted, buffer, sigma=sigma, window=WINDOW)


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    ends = [sorted(draw(st.sets(st.integers(0, n), min_size=2, max_size=2))) for n in SHAPE]
    return Box(*zip(*ends, strict=True))


@given(sigmas, boxes(), st.integers(0, 3))
@settings(max_examples=40, deadline=None)
def test_a_part_is_the_part_of_the_whole_mirrored(sigma: float, inner: Box, margin: int) -> None:
    whole = mirrored_filter(VOLUME.astype(np.float64), sigma, WINDOW, (0, 0, 0))
    expected = np.pad(whole, margin, mode="reflect")[inner.grow(margin).shift((margin,) * 3).slices]
    held = inner.grow(margin + kernel_radius(sigma, WINDOW)).clip(SHAPE)
    found = smoothed(VOLUME[held.slices], held, inner.grow(margin), sigma)
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_a_kernel_may_reach_from_face_to_face() -> None:
    thin = VOLUME[:6, :6, :6]
    whole = Box.whole(thin.shape)
    found = smoothed(thin, whole, whole.grow(3), 1.5)
    expected = mirrored_filter(thin.astype(np.float64), 1.5, WINDOW, (0, 0, 0))
    np.testing.assert_allclose(found, np.pad(expected, 3, mode="reflect"), atol=2e-6)
