"""Verb ramps: the stored curve is what the whole volume gives."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import dask.array as da
import numpy as np
import pytest
import zarr

from otzi.errors import ConfigurationError, NotFoundError
from otzi_pipelines.ramps.estimate import estimate_ramps
from references import isodata_of_values

if TYPE_CHECKING:
    from collections.abc import Callable

    from commands import Otzi
    from otzi.tomogram import Tomogram

SHAPE = (20, 70, 40)


@pytest.fixture
def tomo(add_tomogram: Callable[..., Tomogram]) -> Tomogram:
    return add_tomogram(np.random.default_rng(0).normal(0, 9, SHAPE).astype(np.float32))


def _segment(tomo: Tomogram, probs: np.ndarray) -> None:
    with tomo.write(
        "probs/net",
        dtype=probs.dtype,
        channels=tomo.classes.names,
        chunk_voxels=16,
        recipe={},
        parents=("raw",),
    ) as writer:
        da.store(da.from_array(probs, chunks=(3, 16, 16, 16)), writer, lock=False)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_curve_is_that_of_the_whole_volume(tomo: Tomogram, dtype: str) -> None:
    probs = np.random.default_rng(1).beta(0.5, 2, (3, *SHAPE))
    probs[1, 4] = 0
    _segment(tomo, np.rint(probs * 255).astype("u1") if dtype == "uint8" else probs.astype("f4"))
    assert estimate_ramps(tomo, "net")
    stored = tomo.probs("net").values
    curves = zarr.open_array(tomo.path("ramps/net") / "thresholds", mode="r")[:]
    expected = [[isodata_of_values(s.astype(float)) for s in one] for one in stored]
    np.testing.assert_allclose(curves, expected, atol=1e-5 if dtype == "float32" else 1e-6)
    ramps = tomo.attributes("ramps/net")["ramps"]
    assert list(ramps) == ["background", "membrane", "lumen"]
    assert ramps["membrane"]["slices_used"] == SHAPE[0] - 1
    assert ramps["membrane"]["low"] == pytest.approx(np.nanmean(expected[1]), abs=1e-5)


def test_a_second_run_does_nothing_until_the_probabilities_change(tomo: Tomogram) -> None:
    _segment(tomo, np.random.default_rng(1).integers(0, 255, (3, *SHAPE)).astype(np.uint8))
    assert estimate_ramps(tomo, "net")
    assert not estimate_ramps(tomo, "net")
    _segment(tomo, np.random.default_rng(2).integers(0, 255, (3, *SHAPE)).astype(np.uint8))
    assert estimate_ramps(tomo, "net")


def test_ramps_need_probabilities(tomo: Tomogram) -> None:
    with pytest.raises(NotFoundError, match="no probs/net"):
        estimate_ramps(tomo, "net")
    with tomo.write("probs/net", dtype="uint8", recipe={}, chunk_voxels=70) as writer:
        writer[0:20, 0:70, 0:40] = np.zeros(SHAPE, np.uint8)
    with pytest.raises(ConfigurationError, match="no classes"):
        estimate_ramps(tomo, "net")


def test_the_verb_finds_nothing(tomo: Tomogram, otzi: Otzi) -> None:
    run = otzi("ramps", tomo.collection.path, "--probs", "net")
    assert (run.code, "no tomogram of" in run.err, "otzi segment" in run.err) == (2, True, True)


def test_the_verb_prints_the_curve(tomo: Tomogram, otzi: Otzi) -> None:
    _segment(tomo, np.random.default_rng(1).integers(0, 255, (3, *SHAPE)).astype(np.uint8))
    run = otzi("ramps", tomo.collection.path, "--probs", "net")
    assert run.code == 0
    assert "left limits: background 0." in run.out
    assert len(run.out.splitlines()) == 2 + SHAPE[0]
    again = otzi("ramps", tomo.collection.path, "ts_001", "--probs", "net", "--json")
    assert len(json.loads(again.out)["ts_001"]["lumen"]["curve"]) == SHAPE[0]
    assert "done already" in again.err
