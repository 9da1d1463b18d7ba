"""Tiles to volume: every tile inferred once, and the bits of the dense reference."""

from __future__ import annotations

from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr

from fake_models import PlaceModel
from otzi.errors import ConfigurationError, ModelError, UsageError
from otzi.normalise import Normalisation
from otzi.tiles.graph import predict_tiles
from otzi.tiles.plan import TilePlan
from references import blended, blended_uint8

NORMALISATION = Normalisation(offset=3.0, scale=2.0, low=-4.0, high=9.0)

# Whole tiles, a remainder, thin, smaller than a tile, odd, one voxel; tile and overlap of each.
CASES = [
    ((40, 40, 40), 16, 4),
    ((33, 47, 29), 16, 8),
    ((9, 50, 37), 16, 4),
    ((7, 5, 11), 16, 4),
    ((1, 1, 30), 16, 4),
    ((20, 31, 23), 12, 0),
    ((32, 20, 21), 20, 5),
]


def density(shape: tuple[int, ...], chunks: Any = "auto") -> xr.DataArray:
    values = np.random.default_rng(0).normal(3, 2, shape).astype(np.float32)
    coords = {
        axis: np.arange(n) * spacing
        for axis, n, spacing in zip("zyx", shape, (20.0, 10.0, 10.0), strict=True)
    }
    attrs = {"unit": "angstrom", "tomogram": "ts_001", "statistics": {}}
    data = da.from_array(values, chunks=chunks)
    return xr.DataArray(data, dims=("z", "y", "x"), coords=coords, attrs=attrs)


def predict(raw: xr.DataArray, model: PlaceModel, tile: int, overlap: int, dtype: Any) -> Any:
    return predict_tiles(
        raw, model, tile=tile, overlap=overlap, normalisation=NORMALISATION, dtype=dtype
    )


@pytest.mark.parametrize(("shape", "tile", "overlap"), CASES)
@pytest.mark.parametrize("size_multiple", [1, 4])
def test_the_bits_are_those_of_the_dense_reference(
    shape: tuple[int, int, int], tile: int, overlap: int, size_multiple: int
) -> None:
    raw = density(shape, chunks=13)
    oracle = blended(NORMALISATION(raw.values), PlaceModel(size_multiple), tile, overlap)
    model = PlaceModel(size_multiple)
    stored = predict(raw, model, tile, overlap, "uint8").values
    np.testing.assert_array_equal(stored, blended_uint8(oracle))
    assert (stored.sum(0, dtype=int) == 255).all()
    assert len(model.tiles) == TilePlan(shape, tile, overlap).n_tiles
    floats = predict(raw, model, tile, overlap, "float32").values
    np.testing.assert_allclose(floats, oracle / (16383 * 2**18), rtol=0, atol=1e-7)


@pytest.mark.parametrize("scheduler", ["synchronous", "threads"])
@pytest.mark.parametrize("chunks", [5, 16, (33, 7, 29)])
def test_chunks_and_scheduler_do_not_show(scheduler: str, chunks: Any) -> None:
    raw = density((33, 47, 29), chunks)
    model = PlaceModel()
    with dask.config.set(scheduler=scheduler):
        stored = predict(raw, model, 16, 8, "uint8").values
    oracle = blended(NORMALISATION(raw.values), PlaceModel(), 16, 8)
    np.testing.assert_array_equal(stored, blended_uint8(oracle))
    assert len(model.tiles) == TilePlan((33, 47, 29), 16, 8).n_tiles


def test_a_slice_needs_its_tiles_only_and_is_the_same() -> None:
    raw = density((40, 60, 60), chunks=8)
    whole = predict(raw, PlaceModel(), 16, 4, "uint8").values
    model = PlaceModel()
    lazy = predict(raw, model, 16, 4, "uint8")
    # Voxels 30 to 31 of x are in cell 2, [24, 36), which tiles 1 and 2 reach; likewise y and z.
    part = lazy.isel(z=slice(0, 6), y=slice(14, 20), x=slice(30, 32))
    np.testing.assert_array_equal(part.values, whole[:, 0:6, 14:20, 30:32])
    assert len(model.tiles) == 1 * 2 * 2


def test_two_results_of_one_compute_share_their_tiles() -> None:
    raw = density((20, 40, 40))
    model = PlaceModel()
    lazy = predict(raw, model, 16, 4, "float32")
    same = predict(raw, model, 16, 4, "float32")
    dask.compute(lazy.data.mean(), same.data.max())
    assert len(model.tiles) == TilePlan((20, 40, 40), 16, 4).n_tiles


def test_measures_are_no_classes() -> None:
    raw = density((20, 30, 20))
    plain = predict(raw, PlaceModel(), 16, 4, "uint8")
    measured = predict(raw, PlaceModel(n_measures=1), 16, 4, "uint8")
    assert measured.shape == plain.shape
    np.testing.assert_array_equal(measured.values, plain.values)


def test_keys_tell_what_differs() -> None:
    raw = density((20, 20, 20))
    base = predict(raw, PlaceModel(), 16, 4, "float32").data.name
    others = {
        predict(raw, PlaceModel(), 16, 8, "float32").data.name,
        predict(raw, PlaceModel(), 12, 4, "float32").data.name,
        predict(raw, PlaceModel(), 16, 4, "uint8").data.name,
        predict(raw, PlaceModel(2), 16, 4, "float32").data.name,
        predict(raw + 1, PlaceModel(), 16, 4, "float32").data.name,
    }
    assert len(others | {base}) == 6
    assert predict(raw, PlaceModel(), 16, 4, "float32").data.name == base


def test_the_result_knows_its_classes_places_and_unit() -> None:
    raw = density((9, 20, 21))
    lazy = predict(raw, PlaceModel(), 16, 4, "float32")
    assert lazy.dims == ("c", "z", "y", "x")
    assert list(lazy.c.values) == ["background", "membrane", "lumen"]
    np.testing.assert_array_equal(lazy.z, raw.z)
    assert lazy.attrs == {"unit": "angstrom", "tomogram": "ts_001"}
    assert lazy.chunks == ((3,), (9,), (12, 8), (12, 9))
    assert lazy.dtype == np.float32


def test_a_volume_in_memory_needs_no_dask() -> None:
    raw = density((20, 20, 20))
    np.testing.assert_array_equal(
        predict(raw.compute(), PlaceModel(), 16, 4, "uint8").values,
        predict(raw, PlaceModel(), 16, 4, "uint8").values,
    )


def test_no_statistics_no_normalisation() -> None:
    raw = density((20, 20, 20))
    del raw.attrs["statistics"]
    with pytest.raises(ConfigurationError, match="statistics"):
        predict_tiles(raw, PlaceModel(), tile=16, overlap=4)


def test_a_tile_must_fit_the_model() -> None:
    with pytest.raises(UsageError, match=r"tile 18 .* multiple of 4"):
        predict(density((20, 20, 20)), PlaceModel(4), 18, 4, "uint8")


def test_a_model_of_other_shape_is_refused() -> None:
    class Wrong(PlaceModel):
        def __call__(self, tiles: np.ndarray, /) -> np.ndarray:
            return super().__call__(tiles)[:, :2]

    with pytest.raises(ModelError, match="one channel for each of background, membrane, lumen"):
        predict(density((20, 20, 20)), Wrong(), 16, 4, "uint8").compute()
