"""What is seen of cells as they are written is what the whole volume shows."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otzi.box import Box
from otzi.errors import VerificationError
from otzi.tiles.plan import TilePlan
from otzi_pipelines.ramps.histograms import SliceHistograms, code_count, codes_of
from otzi_pipelines.segment.observe import Observer
from otzi_pipelines.segment.seams import tile_planes
from references import plane_steps

if TYPE_CHECKING:
    from otzi.box import Zyx

CLASSES = ("background", "membrane", "lumen")
PLAN = TilePlan((20, 31, 45), tile=16, overlap=4)


def volume_of(shape: Zyx, dtype: str = "uint8", seed: int = 0) -> np.ndarray:
    """Give probabilities that sum to 1 as stored."""
    steps = np.sort(np.random.default_rng(seed).integers(0, 256, (2, *shape)), axis=0)
    parts = np.diff(steps, axis=0, prepend=0, append=255)
    return parts.astype(np.uint8) if dtype == "uint8" else (parts / 255).astype(dtype)


def observed(plan: TilePlan, stored: np.ndarray, order: Any = None) -> Observer:
    observer = Observer(plan.shape, CLASSES, stored.dtype, plan)
    for index in order or plan.tiles:
        cell = plan.cell(index)
        observer.see(cell, stored[(slice(None), *cell.slices)])
    return observer


@given(
    st.tuples(*[st.integers(1, 40)] * 3),
    st.sampled_from([(16, 4), (8, 0), (7, 3)]),
    st.sampled_from(["uint8", "float16", "float32"]),
    st.randoms(use_true_random=False),
)
def test_cells_in_any_order_show_what_the_volume_shows(
    shape: Zyx, tiles: tuple[int, int], dtype: str, random: Any
) -> None:
    plan = TilePlan(shape, *tiles)
    stored = volume_of(shape, dtype)
    order = list(plan.tiles)
    random.shuffle(order)
    observer = observed(plan, stored, order)
    codes = codes_of(stored)
    for c, z in np.ndindex(3, shape[0]):
        expected = np.bincount(codes[c, z].ravel(), minlength=code_count(dtype))
        np.testing.assert_array_equal(observer.histograms[c, z], expected)
    seen = observer.observation()
    seen.check("probs/net")
    assert (seen.covered_voxels, seen.repeated_voxels) == (np.prod(shape), 0)
    for seam in seen.seams:
        axis, c = "zyx".index(seam.axis), CLASSES.index(seam.name)
        at, elsewhere = plane_steps(codes[c], axis, tile_planes(plan)[axis])
        highest = code_count(dtype) - 1
        np.testing.assert_allclose(_or_nan(seam.at_tiles), at / highest, rtol=1e-12)
        np.testing.assert_allclose(_or_nan(seam.elsewhere), elsewhere / highest, rtol=1e-12)


def _or_nan(value: float | None) -> float:
    return np.nan if value is None else value


def test_boxes_of_several_cells_are_cells() -> None:
    stored = volume_of(PLAN.shape)
    observer = Observer(PLAN.shape, CLASSES, "uint8", PLAN)
    observer.see(Box.whole(PLAN.shape), stored)
    assert observer.observation() == observed(PLAN, stored).observation()
    np.testing.assert_array_equal(observer.histograms, observed(PLAN, stored).histograms)


def test_threads_do_not_show() -> None:
    stored = volume_of(PLAN.shape)
    observer = Observer(PLAN.shape, CLASSES, "uint8", PLAN)
    tiles = list(PLAN.tiles)

    def see(part: int) -> None:
        for index in tiles[part::4]:
            cell = PLAN.cell(index)
            observer.see(cell, stored[(slice(None), *cell.slices)])

    threads = [threading.Thread(target=see, args=(part,)) for part in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert observer.observation() == observed(PLAN, stored).observation()
    np.testing.assert_array_equal(observer.histograms, observed(PLAN, stored).histograms)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("overlap", [0, 4])
def test_a_planted_seam_shows_on_its_axis_alone(axis: int, overlap: int) -> None:
    plan = TilePlan((40, 40, 40), tile=16, overlap=overlap)
    smooth = np.random.default_rng(1).integers(100, 110, (40, 40, 40))
    ratios = _ratios(plan, smooth)
    assert np.allclose(ratios, 1, atol=0.05)
    places = np.moveaxis(smooth, axis, 0)
    for position in sorted(tile_planes(plan)[axis])[::2]:
        places[position:] += 20
    planted = _ratios(plan, smooth)
    assert planted[axis] > 2
    assert np.allclose(np.delete(planted, axis), 1, atol=0.05)


def _ratios(plan: TilePlan, membrane: np.ndarray) -> list[float]:
    stored = np.stack([255 - membrane, membrane, np.zeros_like(membrane)]).astype(np.uint8)
    seams = observed(plan, stored).observation().seams
    return [seam.ratio or 0.0 for seam in seams if seam.name == "membrane"]


def test_no_ratio_without_tile_planes_or_change() -> None:
    plan = TilePlan((10, 40, 40), tile=16, overlap=0)
    seams = observed(plan, np.full((3, 10, 40, 40), 85, np.uint8)).observation().seams
    assert {(seam.axis, seam.at_tiles) for seam in seams} == {("z", None), ("y", 0), ("x", 0)}
    assert {seam.ratio for seam in seams} == {None}


def test_a_cell_that_is_missing_or_twice_is_an_error() -> None:
    stored = volume_of(PLAN.shape)
    lacking = observed(PLAN, stored, PLAN.tiles[1:])
    missing = PLAN.cell((0, 0, 0)).n_voxels
    with pytest.raises(VerificationError, match=f"net: {missing} of 27900 voxels were not written"):
        lacking.observation().check("net")
    share = lacking.observation().to_json()["coverage"]["share"]
    assert share == pytest.approx(1 - missing / 27900)
    repeated = observed(PLAN, stored, [*PLAN.tiles, PLAN.tiles[0]])
    with pytest.raises(VerificationError, match=f"{missing} more than once"):
        repeated.observation().check("net")
    np.testing.assert_array_equal(repeated.histograms, observed(PLAN, stored).histograms)


@pytest.mark.parametrize(("dtype", "wrong"), [("uint8", 2), ("float16", 0.01), ("float32", 1e-5)])
def test_a_sum_beyond_what_storing_allows_is_an_error(dtype: str, wrong: float) -> None:
    stored = volume_of(PLAN.shape, dtype)
    stored[0, 0, 0, 0], stored[1:, 0, 0, 0] = (255 if dtype == "uint8" else 1), 0
    observed(PLAN, stored).observation().check("net")
    stored[1, 0, 0, 0] = wrong
    seen = observed(PLAN, stored).observation()
    assert seen.wrong_sum_voxels == 1
    expected = wrong / 255 if dtype == "uint8" else float(stored[1, 0, 0, 0])
    assert seen.largest_sum_error == pytest.approx(expected, rel=0.1)
    with pytest.raises(VerificationError, match="1 voxels miss a sum of 1"):
        seen.check("net")


def test_a_probability_that_is_no_number_is_an_error() -> None:
    stored = volume_of(PLAN.shape, "float32")
    stored[0, 3, 3, 3] = np.nan
    with pytest.raises(VerificationError, match="miss a sum of 1"):
        observed(PLAN, stored).observation().check("net")


@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32"])
def test_codes_are_the_nearest(dtype: str) -> None:
    values = np.array([0, 0.2, 0.6, 1])
    stored = np.rint(values * 255).astype("u1") if dtype == "uint8" else values.astype(dtype)
    codes = codes_of(stored[:, None, None, None])
    assert codes.max() == code_count(dtype) - 1
    np.testing.assert_allclose(codes.ravel() / codes.max(), values, atol=1 / 255)
    assert codes_of(np.array([-0.1, 1.1], np.float32)).tolist() == [0, 16383]


@given(st.integers(1, 4), st.integers(0, 3), st.integers(1, 9))
def test_histograms_count_each_slice(depth: int, start: int, columns: int) -> None:
    codes = np.random.default_rng(depth).integers(0, 256, (2, depth, 5, columns), np.uint8)
    histograms = SliceHistograms(2, depth + start, "uint8")
    histograms.add(start, codes)
    assert not histograms.counts[:, :start].any()
    for c, z in np.ndindex(2, depth):
        expected = np.bincount(codes[c, z].ravel(), minlength=256)
        np.testing.assert_array_equal(histograms.counts[c, start + z], expected)
