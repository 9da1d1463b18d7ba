"""Pieces of objects: counts and crossings as plain loops give them, surfaces of known bodies."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otzi.box import Box, tile
from otzi_pipelines.objects.parts import DIRECTIONS, Parts, measure
from otzi_pipelines.objects.surface import crossing_areas, surface_areas


def measured(kinds: np.ndarray, codes: np.ndarray | None = None) -> Parts:
    """Give the parts of a whole volume whose pieces are its classes."""
    whole = Box.whole(kinds.shape)  # type: ignore[arg-type]
    codes = kinds if codes is None else codes
    n = int(kinds.max(initial=0))
    return measure(kinds.astype(np.int32), kinds, codes, n, whole, whole, whole.shape)


def plain_crossings(kinds: np.ndarray, kind: int) -> list[int]:
    """Count pairs of a voxel inside and one outside, along each direction, pair by pair."""
    counts = dict.fromkeys(DIRECTIONS, 0)
    steps = [step for step in product((-1, 0, 1), repeat=3) if any(step)]
    for place in np.argwhere(kinds == kind):
        for step in steps:
            other = place + step
            if (other < 0).any() or (other >= kinds.shape).any():
                continue
            if kinds[tuple(other)] != kind:
                counts[tuple(map(abs, step))] += 1
    return list(counts.values())


SMALL = st.tuples(*[st.integers(1, 6)] * 3)


@given(SMALL, SMALL, st.integers(0, 2**32))
def test_each_voxel_and_each_pair_counts_once(
    shape: tuple[int, int, int], block: tuple[int, int, int], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    kinds = rng.choice(3, shape, p=(0.5, 0.3, 0.2)).astype(np.uint8)
    codes = rng.integers(0, 2**14, shape).astype(np.uint16)
    several = []
    for box in tile(shape, block):
        z, y, x = (max(0, a - 1) for a in box.start)
        held = Box((z, y, x), box.stop)
        own = kinds[held.slices]
        several.append(measure(own.astype(np.int32), own, codes[held.slices], 2, held, box, shape))
    groups = np.tile([0, 1], len(several))
    parts = Parts.joined(several).merged(groups)
    for kind in (1, 2):
        places = np.argwhere(kinds == kind)
        row = kind - 1
        assert parts.voxels[row] == len(places)
        assert parts.positions[row].tolist() == places.sum(axis=0).tolist()
        assert parts.codes[row] == codes[kinds == kind].sum()
        assert parts.crossings[row].tolist() == plain_crossings(kinds, kind)
        if len(places):
            assert parts.first[row] == np.flatnonzero(kinds == kind)[0]
            assert parts.start[row].tolist() == places.min(axis=0).tolist()
            assert parts.stop[row].tolist() == (places.max(axis=0) + 1).tolist()
            assert parts.kinds[row] == kind


def test_nothing_merges_to_nothing() -> None:
    nothing = Parts.joined([])
    assert len(nothing.merged(np.zeros(0, int))) == 0
    assert nothing.crossings.shape == (0, len(DIRECTIONS))


def ball(radius: float, spacing: tuple[float, float, float]) -> np.ndarray:
    half = [int(radius / v) + 3 for v in spacing]
    grid = np.moveaxis(np.indices([2 * n + 1 for n in half]), 0, -1)
    centre = np.add(half, (0.3, -0.2, 0.1))
    inside = np.linalg.norm((grid - centre) * spacing, axis=-1) < radius
    return inside.astype(np.uint8)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.0, 1.0, 1.0), (1.7, 1.2, 1.0)])
@pytest.mark.parametrize(("radius", "within"), [(3.0, 0.07), (8.0, 0.02), (16.0, 0.005)])
def test_the_surface_of_a_ball(
    radius: float, within: float, spacing: tuple[float, float, float]
) -> None:
    (area,) = surface_areas(measured(ball(radius, spacing)).crossings, spacing)
    assert area == pytest.approx(4 * np.pi * radius**2, rel=within)


def test_the_surface_of_a_cube_is_not_that_of_a_staircase() -> None:
    kinds = np.zeros((24, 24, 24), np.uint8)
    kinds[2:22, 2:22, 2:22] = 1
    (area,) = surface_areas(measured(kinds).crossings, (1.0, 1.0, 1.0))
    assert area == pytest.approx(6 * 20**2, rel=0.1)


def test_areas_follow_the_spacing_and_mirror_images_are_alike() -> None:
    np.testing.assert_allclose(
        crossing_areas((5.0, 5.0, 5.0)), 25 * crossing_areas((1.0, 1.0, 1.0))
    )
    cubic = dict(zip(DIRECTIONS, crossing_areas((1.0, 1.0, 1.0)), strict=True))
    assert cubic[0, 0, 1] == pytest.approx(cubic[1, 0, 0])
    assert cubic[0, 1, 1] == pytest.approx(cubic[1, 1, 0])
    # The shares of the sphere that are published for cubic voxels.
    assert cubic[0, 0, 1] / 4 == pytest.approx(0.04577789120476, rel=1e-6)
    assert cubic[0, 1, 1] * 2**0.5 / 4 == pytest.approx(0.03698062787608, rel=1e-6)
    assert cubic[1, 1, 1] * 3**0.5 / 4 == pytest.approx(0.03519563978232, rel=1e-6)
