"""Tiles, cells and weights: every voxel in one cell, every weight in one sum."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otzi.box import Box
from otzi.errors import UsageError
from otzi.tiles.plan import UNITY, AxisPlan, TilePlan
from references import tile_starts, tile_weight


@st.composite
def axis_plans(draw: st.DrawFn) -> AxisPlan:
    tile = draw(st.integers(1, 140))
    return AxisPlan(draw(st.integers(1, 700)), tile, draw(st.integers(0, tile // 2)))


@st.composite
def tile_plans(draw: st.DrawFn) -> TilePlan:
    tile = draw(st.integers(1, 24))
    overlap = draw(st.integers(0, tile // 2))
    shape = draw(st.tuples(*[st.integers(1, 3 * tile)] * 3))
    return TilePlan(shape, tile, overlap)


@given(axis_plans())
def test_the_weights_of_all_tiles_sum_to_the_same_at_every_voxel(axis: AxisPlan) -> None:
    total = np.zeros(axis.n_voxels, np.int64)
    tiles_at = np.zeros(axis.n_voxels, int)
    for k in range(axis.count):
        start, stop = axis.reach(k)
        total[start:stop] += axis.weights(k)
        tiles_at[start:stop] += 1
    assert (total == 64).all()
    assert tiles_at.min() >= 1
    assert tiles_at.max() <= 2


@given(axis_plans())
def test_the_cells_of_an_axis_follow_each_other(axis: AxisPlan) -> None:
    ranges = [axis.cell(j) for j in range(axis.count)]
    assert [start for start, _ in ranges] == [0, *(stop for _, stop in ranges[:-1])]
    assert ranges[-1][1] == axis.n_voxels
    assert all(stop - start == axis.stride for start, stop in ranges[:-1])
    assert 0 < ranges[-1][1] - ranges[-1][0] <= axis.tile


@given(axis_plans())
def test_a_tile_sees_its_reach_within_the_volume_and_no_less_than_a_tile(axis: AxisPlan) -> None:
    for k in range(axis.count):
        (start, stop), (low, high) = axis.reach(k), axis.read(k)
        assert 0 <= low <= start < stop <= high <= axis.n_voxels
        assert high - low == min(axis.tile, axis.n_voxels)


@given(axis_plans())
@settings(max_examples=30)
def test_weights_are_the_ramp_of_the_definition(axis: AxisPlan) -> None:
    n, tile, overlap = axis.n_voxels, axis.tile, axis.overlap
    assert [axis.reach(k)[0] for k in range(axis.count)] == tile_starts(n, tile, overlap)
    for k in range(axis.count):
        start, stop = axis.reach(k)
        expected = [tile_weight(v, start, n, tile, overlap) for v in range(start, stop)]
        assert axis.weights(k).tolist() == expected


@given(tile_plans())
@settings(max_examples=50, deadline=None)
def test_every_voxel_lies_in_one_cell_and_its_contributors_carry_all_the_weight(
    plan: TilePlan,
) -> None:
    cells = np.zeros(plan.shape, int)
    weight = np.zeros(plan.shape, np.int64)
    for index in plan.tiles:
        cell = plan.cell(index)
        cells[cell.slices] += 1
        assert len(plan.contributors(index)) <= 8
        for tile in plan.contributors(index):
            part = plan.part(tile, index)
            z, y, x = (
                w[s] for w, s in zip(plan.weights(tile), part.within(plan.reach(tile)), strict=True)
            )
            weight[part.slices] += np.einsum("z,y,x->zyx", z, y, x)
    assert (cells == 1).all()
    assert (weight == UNITY).all()


@given(tile_plans())
@settings(max_examples=50, deadline=None)
def test_dependents_are_the_inverse_of_contributors(plan: TilePlan) -> None:
    edges = {(tile, cell) for cell in plan.tiles for tile in plan.contributors(cell)}
    assert edges == {(tile, cell) for tile in plan.tiles for cell in plan.dependents(tile)}
    parts = [plan.part(tile, cell).n_voxels for tile, cell in edges]
    assert min(parts) > 0 or plan.overlap == 0
    assert sum(parts) == sum(plan.reach(tile).n_voxels for tile in plan.tiles)


@given(tile_plans())
@settings(max_examples=50, deadline=None)
def test_the_chunks_are_the_cells(plan: TilePlan) -> None:
    assert tuple(map(sum, plan.chunks)) == plan.shape
    assert tuple(map(len, plan.chunks)) == plan.grid
    last = plan.tiles[-1]
    assert plan.cell(last).shape == tuple(lengths[-1] for lengths in plan.chunks)
    assert plan.n_tiles == len(plan.tiles) == len(set(plan.tiles))


@given(tile_plans())
@settings(max_examples=50, deadline=None)
def test_in_the_sweep_every_contributor_comes_first(plan: TilePlan) -> None:
    position = {tile: i for i, tile in enumerate(plan.sweep)}
    assert position.keys() == set(plan.tiles)
    for cell in plan.tiles:
        assert max(position[tile] for tile in plan.contributors(cell)) == position[cell]


def test_the_reference_size_has_825_tiles() -> None:
    plan = TilePlan((500, 1440, 1024))
    assert plan.grid == (5, 15, 11)
    assert plan.n_tiles == 825


def test_a_volume_smaller_than_a_tile_is_one_tile_and_one_cell() -> None:
    plan = TilePlan((100, 40, 7))
    assert plan.tiles == ((0, 0, 0),)
    assert plan.read((0, 0, 0)) == plan.cell((0, 0, 0)) == Box.whole((100, 40, 7))
    assert all((w == 64).all() for w in plan.weights((0, 0, 0)))


@pytest.mark.parametrize(
    ("shape", "tile", "overlap", "names"),
    [
        ((10, 10, 10), 16, 9, "9"),
        ((10, 10, 10), 16, -1, "-1"),
        ((10, 10, 10), 0, 0, "0"),
        ((10, 0, 10), 16, 8, r"\(10, 0, 10\)"),
    ],
)
def test_what_cannot_be_tiled_is_refused(
    shape: tuple[int, int, int], tile: int, overlap: int, names: str
) -> None:
    with pytest.raises(UsageError, match=names):
        TilePlan(shape, tile, overlap)
