"""Statistics: of blocks in any order as of the whole, of the valid region, without overflow."""

from __future__ import annotations

import random
from functools import reduce

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from otzi.errors import SourceError, UsageError
from otzi.store.moments import PERCENTS, Moments

DTYPES = ("int8", "uint8", "int16", "uint16", "float16", "float32")
EXACT = tuple(name for name in DTYPES if name != "float32")


def volumes(dtype: str) -> st.SearchStrategy[np.ndarray]:
    shapes = hnp.array_shapes(min_dims=3, max_dims=3, max_side=6)
    return hnp.arrays(np.dtype(dtype), shapes)


def moments_of(volume: np.ndarray, reference: float = 0.0) -> Moments:
    return Moments.none(volume.dtype, reference).add(volume)


def valid_values(volume: np.ndarray, moments: Moments) -> np.ndarray:
    finite = volume[np.isfinite(volume)].astype(np.float64)
    return finite[finite != 0] if moments.empty_voxels else finite


@settings(deadline=None)
@given(data=st.data(), dtype=st.sampled_from(DTYPES), reference=st.sampled_from([0.0, 7.5, -1e4]))
def test_statistics_are_those_of_the_valid_values(
    data: st.DataObject, dtype: str, reference: float
) -> None:
    volume = data.draw(volumes(dtype))
    moments = moments_of(volume, reference)
    values = valid_values(volume, moments)
    assume(values.size)
    statistics = moments.to_json()
    scale = np.abs(values).max()
    assert statistics["mean"] == pytest.approx(values.mean(), rel=1e-9, abs=1e-9 * scale)
    assert statistics["standard_deviation"] == pytest.approx(
        values.std(), rel=1e-6, abs=1e-9 * scale
    )
    finite = volume[np.isfinite(volume)]
    assert statistics["minimum"] == finite.min()
    assert statistics["maximum"] == finite.max()
    assert statistics["nonfinite_voxels"] == volume.size - finite.size
    assert statistics["empty_voxels"] in (0, np.count_nonzero(finite == 0))
    if dtype in EXACT:
        expected = np.percentile(values, PERCENTS)
        assert list(statistics["percentiles"].values()) == pytest.approx(expected, rel=1e-10)


@settings(deadline=None)
@given(
    data=st.data(),
    dtype=st.sampled_from(DTYPES),
    n_parts=st.integers(1, 7),
    seed=st.integers(0, 9),
)
def test_merging_is_associative_and_takes_any_order(
    data: st.DataObject, dtype: str, n_parts: int, seed: int
) -> None:
    volume = data.draw(volumes(dtype))
    assume(np.isfinite(volume).any())
    whole = moments_of(volume).to_json()
    parts = [moments_of(part) for part in np.array_split(volume.reshape(-1), n_parts)]
    random.Random(seed).shuffle(parts)
    from_the_left = reduce(Moments.merge, parts).to_json()
    from_the_right = reduce(lambda a, b: b.merge(a), reversed(parts)).to_json()
    scale = float(np.abs(volume[np.isfinite(volume)].astype(np.float64)).max())
    for merged in (from_the_left, from_the_right):
        for name in ("minimum", "maximum", "percentiles", "nonfinite_voxels", "empty_voxels"):
            assert merged[name] == whole[name]
        for name in ("mean", "standard_deviation"):
            assert merged[name] == pytest.approx(whole[name], rel=1e-6, abs=1e-8 * scale)


@pytest.mark.parametrize(("mean", "sd"), [(0, 1), (3e4, 30), (-5, 1e-3), (1e-12, 1e-12)])
def test_float32_percentiles_are_good_to_a_fraction_of_the_deviation(
    mean: float, sd: float
) -> None:
    values = np.random.default_rng(0).normal(mean, sd, 100_000).astype(np.float32)
    statistics = moments_of(values, reference=float(values[0])).to_json()
    errors = np.array(list(statistics["percentiles"].values())) - np.percentile(
        values.astype(np.float64), PERCENTS
    )
    assert np.abs(errors).max() < 0.02 * values.std(dtype=np.float64)


def test_a_float32_histogram_survives_the_ends_of_the_range() -> None:
    values = np.array([-3e38, 3e38, 1e-45, 5.0], np.float32)
    percentiles = moments_of(values, reference=-3e38).to_json()["percentiles"]
    assert all(np.isfinite(list(percentiles.values())))
    assert percentiles["99.9"] > 1e38


def test_float16_sums_do_not_overflow() -> None:
    volume = np.full((40, 50, 60), 60000, np.float16)
    volume[0] = -60000
    statistics = moments_of(volume).to_json()
    assert statistics["mean"] == pytest.approx(60000 * 38 / 40, rel=1e-4)
    assert statistics["standard_deviation"] == pytest.approx(18728, rel=1e-3)


def test_a_small_deviation_on_a_large_mean_is_not_lost() -> None:
    values = (1e6 + np.arange(-2, 3)).astype(np.float32).repeat(1000)
    parts = [moments_of(part, 1e6) for part in np.array_split(values, 50)]
    deviation = reduce(Moments.merge, parts).standard_deviation
    assert deviation == pytest.approx(np.sqrt(2), rel=1e-10)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_field_without_data_is_left_out(dtype: str) -> None:
    volume = np.random.default_rng(0).normal(60, 12, (20, 30, 40)).astype(dtype)
    data = volume[:, 5:].astype(np.float64)
    volume[:, :5] = 0
    statistics = moments_of(volume).to_json()
    assert statistics["empty_voxels"] == 20 * 5 * 40
    assert statistics["mean"] == pytest.approx(data.mean())
    assert statistics["percentiles"]["0.1"] > 15
    assert statistics["minimum"] == 0


@pytest.mark.parametrize("sd", [3, 30, 3000])
def test_integer_zeros_amid_the_data_are_data(sd: float) -> None:
    volume = np.random.default_rng(0).normal(0, sd, (20, 30, 40)).astype(np.int16)
    statistics = moments_of(volume).to_json()
    assert statistics["empty_voxels"] == 0
    assert statistics["standard_deviation"] == pytest.approx(volume.std())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [0, 5])
def test_a_constant_volume_is_fine(dtype: str, value: int) -> None:
    statistics = moments_of(np.full((3, 4, 5), value, dtype)).to_json()
    assert statistics["mean"] == statistics["minimum"] == statistics["maximum"] == value
    assert statistics["standard_deviation"] == 0
    assert set(statistics["percentiles"].values()) == {value}
    assert statistics["empty_voxels"] == 0


def test_a_volume_without_a_finite_voxel_is_refused() -> None:
    with pytest.raises(SourceError, match="none of the 60 voxels is finite"):
        moments_of(np.full((3, 4, 5), np.nan, np.float32)).to_json()


def test_what_is_not_finite_is_counted_and_skipped() -> None:
    volume = np.array([[[1, 2, np.nan, np.inf, -np.inf, 3]]], np.float32)
    statistics = moments_of(volume).to_json()
    assert statistics["nonfinite_voxels"] == 3
    assert (statistics["minimum"], statistics["maximum"], statistics["mean"]) == (1, 3, 2)


def test_large_blocks_are_the_sum_of_their_pieces() -> None:
    volume = np.random.default_rng(0).normal(0, 99, (3, 900, 1000)).astype(np.int16)
    statistics = moments_of(volume[:, ::-1].transpose(2, 0, 1)).to_json()
    assert statistics["mean"] == pytest.approx(volume.mean(), rel=1e-9)
    assert statistics["standard_deviation"] == pytest.approx(volume.std(), rel=1e-9)


def test_what_does_not_go_together_is_refused() -> None:
    with pytest.raises(UsageError, match="other types or references"):
        moments_of(np.ones(3, np.float32), 1.0).merge(moments_of(np.ones(3, np.float32)))
    with pytest.raises(UsageError, match="no statistics of complex64"):
        Moments.none(np.dtype("complex64"))
