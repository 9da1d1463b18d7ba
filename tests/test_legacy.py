"""The published way: its geometry loses what it is known to lose, ours does not."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fake_models import PlaceModel
from otzi.box import Box
from otzi.errors import MemoryBudgetError, UsageError
from otzi_pipelines.segment.legacy import (
    LegacyAxis,
    LegacyPlan,
    compare_with_legacy,
    legacy_probabilities,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from otzi.box import Zyx
    from otzi.tomogram import Tomogram

SMALL: dict[str, Any] = {"tile": 16, "overlap": 4, "chunk": 40}


class DensityModel(PlaceModel):
    """Two classes whose probability is the density itself."""

    def __call__(self, tiles: np.ndarray, /) -> np.ndarray:
        density = np.clip(tiles[:, 0], 0, 1)
        return np.stack([1 - density, density, 0 * density], axis=1)


def probabilities(volume: np.ndarray, plan: LegacyPlan) -> tuple[np.ndarray, np.ndarray]:
    return legacy_probabilities(
        lambda box: volume[box.slices],
        plan,
        DensityModel(),
        (float(volume.min()), float(volume.max())),
        lambda density: density,
    )


def lost_slices(depth: int) -> int:
    axis = LegacyAxis(depth, depth, 128, 32)
    starts = axis.tiles(depth)
    return depth - (starts[-1] + 128 - starts[0])


def test_lost_slices_are_those_of_the_design_notes() -> None:
    lost = {depth: lost_slices(depth) for depth in range(227, 501)}
    assert lost[319] == 95
    assert lost[500] == 84
    assert LegacyAxis(500, 500, 128, 32).tiles(500)[0] == 42
    assert np.mean(list(lost.values())) == pytest.approx(46, abs=1)
    assert np.mean([n / depth for depth, n in lost.items()]) == pytest.approx(0.129, abs=0.002)
    assert np.mean([n == 0 for n in lost.values()]) == pytest.approx(0.007, abs=0.004)


def test_chunks_are_those_of_the_design_notes() -> None:
    axis = LegacyAxis(1440, 512, 128, 32)
    assert (axis.n_chunks, axis.chunk_overlap) == (3, 48)
    assert axis.chunks() == [(0, 512), (464, 976), (928, 1440)]
    axis = LegacyAxis(1024, 512, 128, 32)
    assert (axis.chunks(), axis.chunk_overlap) == ([(0, 512), (512, 1024)], 0)
    assert LegacyAxis(300, 512, 128, 32).chunks() == [(0, 300)]


@given(st.integers(16, 200))
def test_chunks_reach_from_end_to_end(n_voxels: int) -> None:
    axis = LegacyAxis(n_voxels, 40, 16, 4)
    chunks = axis.chunks()
    assert (chunks[0][0], chunks[-1][1]) == (0, n_voxels)
    assert all(before[1] >= after[0] for before, after in pairwise(chunks))
    assert {stop - start for start, stop in chunks} == {min(40, n_voxels)}


@pytest.mark.parametrize("shape", [(28, 40, 40), (16, 16, 16), (40, 28, 40)])
def test_without_margins_only_the_shell_is_lost(shape: Zyx) -> None:
    volume = np.random.default_rng(0).random(shape, np.float32)
    plan = LegacyPlan(shape, **SMALL)
    codes, is_covered = probabilities(volume, plan)
    inner = tuple(slice(1, n - 1) for n in shape)
    expected = np.zeros(shape, bool)
    expected[inner] = True
    np.testing.assert_array_equal(is_covered, expected)
    stretched = (volume - volume.min()) / (volume.max() - volume.min())
    inside = stretched[inner]
    # Each class is stretched from 0, its value in the shell, to its own maximum.
    np.testing.assert_allclose(codes[1][inner] / 255, inside / inside.max(), atol=0.003)


def test_chunks_without_overlap_lose_two_planes_and_change_the_contrast() -> None:
    volume = np.random.default_rng(0).random((16, 40, 80), np.float32) * 0.5
    volume[0, 0, 0], volume[5, 5, 70] = 0, 1
    codes, is_covered = probabilities(volume, LegacyPlan(volume.shape, **SMALL))
    assert not is_covered[:, :, 39:41].any()
    left, right = (codes[1, 1:-1, 1:-1, part] / 255 for part in (np.s_[1:39], np.s_[41:79]))
    # The left chunk's maximum of 0.5 became that of the volume, the right one kept its own.
    assert left.mean() == pytest.approx(0.5, abs=0.02)
    assert right.mean() == pytest.approx(0.25, abs=0.02)


def test_chunks_that_overlap_lose_the_first_row() -> None:
    axis = LegacyAxis(72, 40, 16, 4)
    first, second = axis.chunk_weights(0), axis.chunk_weights(1)
    assert axis.chunk_overlap == 8
    assert first[0] == 0
    np.testing.assert_array_equal(first[1:32], 1)
    np.testing.assert_allclose(first[32:] + second[:8], 1, atol=1e-6)


@pytest.fixture
def tomo(add_tomogram: Callable[..., Tomogram]) -> Tomogram:
    waves = np.sin(np.arange(40) / 6)[:, None] + np.zeros((30, 1, 80))
    volume = (waves + np.random.default_rng(0).normal(0, 0.02, waves.shape)).astype(np.float32)
    tomo = add_tomogram(volume)
    statistics = tomo.attributes("raw")["statistics"]
    density = np.clip((volume - statistics["mean"]) / statistics["standard_deviation"], 0, 1)
    codes = np.zeros((3, *volume.shape), np.uint8)
    codes[1] = np.rint(255 * density)
    codes[0] = 255 - codes[1]
    with tomo.write(
        "probs/net", dtype="uint8", channels=tomo.classes.names, recipe={}, parents=("raw",)
    ) as writer:
        for z in range(0, 30, 64):
            for x in range(0, 80, 64):
                box = Box((z, 0, x), (min(z + 64, 30), 40, min(x + 64, 80)))
                region = (slice(None), *box.slices)
                writer[region] = codes[region]
    return tomo


def test_the_comparison_names_what_is_lost(tomo: Tomogram) -> None:
    found = compare_with_legacy(tomo, DensityModel(), "net", **SMALL)
    # 30 slices: tiles from 1 to 29, whose outermost planes are 0; y and x lose each shell.
    covered = 26 * 38 * (38 + 38) / (30 * 40 * 80)
    assert found["uncovered_share"] == pytest.approx(1 - covered)
    assert found["wrong_sum_share"] >= found["uncovered_share"]
    assert found["other_class_share"] < 0.01
    assert found["largest_step"] > 5
    assert 1 < found["largest_step_here"] < 3


def test_what_the_published_way_cannot_do_is_named(tomo: Tomogram) -> None:
    with pytest.raises(UsageError, match="needs at least a tile of 128"):
        compare_with_legacy(tomo, DensityModel(), "net")
    with pytest.raises(MemoryBudgetError, match=r"4\.6 MB, allowed are 1\.0 MB"):
        compare_with_legacy(tomo, DensityModel(), "net", memory_bytes=10**6, **SMALL)
