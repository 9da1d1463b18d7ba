"""Blocks, however cut, give what the whole volume gives, and a slice costs its blocks only."""

from __future__ import annotations

from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import otzi
from otzi.box import Box
from otzi.errors import UsageError
from otzi.pseudo.bank import FeatureBank
from otzi.pseudo.forest import StrokeForest
from otzi.pseudo.lazy import block_memory_bytes, label_block, slab_planes
from otzi.pseudo.sample import sample
from otzi.stroke_voxels import StrokeVoxels

BANK = FeatureBank(scales=(0.3, 0.7, 1.6))
SHAPE = (19, 26, 23)
VOLUME = np.random.default_rng(0).normal(100, 30, SHAPE).astype(np.float32)
CLASSES = ("background", "membrane", "lumen")


def density(chunks: Any = 10, volume: np.ndarray = VOLUME) -> xr.DataArray:
    coords = {axis: np.arange(n) * 20.0 for axis, n in zip("zyx", volume.shape, strict=True)}
    attrs = {"unit": "angstrom", "tomogram": "ts_001", "statistics": {}}
    data = da.from_array(volume, chunks=chunks)
    return xr.DataArray(data, dims=("z", "y", "x"), coords=coords, attrs=attrs)


def stroke_labels(shape: tuple[int, int, int] = SHAPE, share: float = 0.02) -> StrokeVoxels:
    rng = np.random.default_rng(1)
    volume = rng.choice(4, shape, p=(1 - 3 * share, share, share, share))
    return StrokeVoxels.from_labels(shape, [(Box.whole(shape), volume)])


@pytest.fixture(scope="module")
def whole() -> np.ndarray:
    return BANK.compute(VOLUME)


@pytest.fixture(scope="module")
def forest(whole: np.ndarray) -> StrokeForest:
    voxels = stroke_labels()
    z, y, x = voxels.coordinates.T
    classes = np.digitize(whole[0, z, y, x], (90, 110)).astype(np.uint8)
    return StrokeForest.fit(whole[:, z, y, x].T, classes, bank=BANK, classes=CLASSES, n_trees=11)


chunk_lengths = st.tuples(st.integers(6, 19), st.integers(7, 26), st.integers(7, 23))


@settings(max_examples=8, deadline=None)
@given(chunk_lengths)
def test_chunks_do_not_show(
    whole: np.ndarray, forest: StrokeForest, chunks: tuple[int, int, int]
) -> None:
    lazy = otzi.features(density(chunks), BANK)
    np.testing.assert_allclose(lazy.values, whole, rtol=0, atol=1e-5 * abs(whole).max())
    labels = otzi.pseudo_labels(density(chunks), BANK, forest)
    expected = forest.predict(whole.reshape(len(whole), -1)).reshape(3, *SHAPE)
    np.testing.assert_array_equal(labels.values, expected)


@pytest.mark.parametrize("scheduler", ["synchronous", "threads"])
@pytest.mark.parametrize("dtype", ["int8", "int16", "float16", "float64"])
def test_any_dtype_and_scheduler(forest: StrokeForest, scheduler: str, dtype: str) -> None:
    volume = np.rint(VOLUME).clip(-128, 127).astype(dtype)
    expected, _ = label_block(volume, Box.whole(SHAPE), Box.whole(SHAPE), forest)
    with dask.config.set(scheduler=scheduler):
        found = otzi.pseudo_labels(density(10, volume), BANK, forest).values
    np.testing.assert_array_equal(found, expected)


def test_early_exit_is_passed_on(forest: StrokeForest, whole: np.ndarray) -> None:
    early_exit = (3, 0.8)
    found = otzi.pseudo_labels(density(), BANK, forest, early_exit)
    expected = forest.predict(whole.reshape(len(whole), -1), early_exit).reshape(3, *SHAPE)
    np.testing.assert_array_equal(found.values, expected)
    assert (found.values != otzi.pseudo_labels(density(), BANK, forest).values).any()
    box = Box((2, 3, 4), (9, 12, 14))
    held = box.grow(BANK.halo_voxels).clip(SHAPE)
    block, n_continued = label_block(VOLUME[held.slices], held, box, forest, early_exit)
    np.testing.assert_array_equal(block, expected[(slice(None), *box.slices)])
    assert 0 < n_continued < box.n_voxels


def test_a_slice_reads_its_blocks_and_their_halo_only(forest: StrokeForest) -> None:
    read: list[tuple[slice, ...]] = []

    class Source:
        shape, dtype, ndim = (60, 60, 60), np.dtype(np.float32), 3

        def __getitem__(self, region: tuple[slice, ...]) -> np.ndarray:
            read.append(region)
            return np.zeros([s.stop - s.start for s in region], np.float32)

    lazy = da.from_array(
        Source(), chunks=20, asarray=False, name="source", meta=np.empty((0, 0, 0))
    )
    raw = xr.DataArray(lazy, dims=("z", "y", "x"))
    with dask.config.set(scheduler="synchronous"):
        otzi.pseudo_labels(raw, BANK, forest)[:, 5, 30, 25].compute()
    halo = BANK.halo_voxels
    assert halo < 20
    assert max(region[0].stop for region in read) <= 40
    assert sum(np.prod([s.stop - s.start for s in region]) for region in read) <= 40 * 60 * 60


def test_keys_tell_what_differs(forest: StrokeForest) -> None:
    base = otzi.pseudo_labels(density(), BANK, forest).data.name
    assert otzi.pseudo_labels(density(), BANK, forest).data.name == base
    other = FeatureBank(scales=(0.3, 0.7, 1.6), structure_tensor="vigra")
    names = {
        otzi.pseudo_labels(density(), BANK, forest, (20, 0.95)).data.name,
        otzi.pseudo_labels(density(volume=VOLUME + 1), BANK, forest).data.name,
        otzi.pseudo_labels(density(chunks=9), BANK, forest).data.name,
        otzi.features(density(), BANK).data.name,
        otzi.features(density(), other).data.name,
    }
    assert len(names | {base}) == 6
    first, second = (otzi.pseudo_labels(density(), BANK, forest).data for _ in range(2))
    assert set(first.__dask_graph__()) == set(second.__dask_graph__())


def test_results_know_their_channels_places_and_unit(forest: StrokeForest) -> None:
    features = otzi.features(density(), BANK)
    assert features.dims == ("feature", "z", "y", "x")
    assert tuple(features.feature.values) == BANK.names
    assert features.sel(feature="gaussian_smoothing_1.6").shape == SHAPE
    labels = otzi.pseudo_labels(density(), BANK, forest)
    assert labels.dims == ("c", "z", "y", "x")
    assert tuple(labels.c.values) == CLASSES
    assert labels.chunks == ((3,), (10, 9), (10, 10, 6), (10, 10, 3))
    assert labels.dtype == features.dtype == np.float32
    np.testing.assert_array_equal(labels.z, np.arange(19) * 20.0)
    assert labels.attrs == {"unit": "angstrom", "tomogram": "ts_001"}
    np.testing.assert_allclose(labels.sum("c"), 1, atol=1e-5)


def test_a_volume_in_memory_needs_no_dask(forest: StrokeForest) -> None:
    np.testing.assert_array_equal(
        otzi.pseudo_labels(density().compute(), BANK, forest).values,
        otzi.pseudo_labels(density(), BANK, forest).values,
    )


def test_bank_volume_and_forest_must_fit(forest: StrokeForest) -> None:
    with pytest.raises(UsageError, match="scale 10 needs 36 voxels"):
        otzi.features(density(), FeatureBank())
    with pytest.raises(UsageError, match="another bank"):
        otzi.pseudo_labels(density(), FeatureBank(scales=(0.7,)), forest)


# Samples


@pytest.mark.parametrize("workers", [1, 3])
def test_samples_are_the_channels_of_their_voxels(whole: np.ndarray, workers: int) -> None:
    voxels = stroke_labels()
    boxes: list[Box] = []

    def read(box: Box) -> np.ndarray:
        boxes.append(box)
        return VOLUME[box.slices]

    found = sample(BANK, read, voxels, workers=workers)
    z, y, x = voxels.coordinates.T
    np.testing.assert_allclose(found, whole[:, z, y, x].T, rtol=0, atol=1e-5 * abs(whole).max())
    assert len(boxes) == 1


def test_only_blocks_with_strokes_are_computed() -> None:
    shape = (20, 300, 300)
    volume = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    coordinates = np.array([[3, 10, 10], [4, 10, 60], [5, 200, 290]], np.int32)
    voxels = StrokeVoxels(shape, coordinates, np.array([0, 1, 1], np.uint8))
    boxes: list[Box] = []

    def read(box: Box) -> np.ndarray:
        boxes.append(box)
        return volume[box.slices]

    found = sample(BANK, read, voxels)
    halo = BANK.halo_voxels
    assert [box.start[1:] for box in boxes] == [(10 - halo, 10 - halo), (200 - halo, 290 - halo)]
    near = Box((0, 150, 230), (20, 250, 300))
    expected = BANK.compute(volume[near.slices])[:, 5, 200 - 150, 290 - 230]
    np.testing.assert_allclose(found[2], expected, rtol=0, atol=1e-5)


def test_strokes_in_a_thin_volume_are_refused() -> None:
    with pytest.raises(UsageError, match="scale 10 needs 36 voxels"):
        sample(FeatureBank(), lambda box: VOLUME[box.slices], stroke_labels())


# Memory


def test_slabs_of_channels_are_bounded() -> None:
    bank = FeatureBank()
    for side in (1, 64, 128, 256):
        inner = Box.whole((128, side, side))
        slab_bytes = slab_planes(bank, inner) * side * side * 61 * 4
        assert slab_bytes <= 32e6 or slab_planes(bank, inner) == 4
    assert block_memory_bytes(bank, (64, 64, 64), 3) < block_memory_bytes(bank, (128, 128, 128), 3)
