"""Verb ramps: the stored curve is what the whole volume gives."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import dask.array as da
import numpy as np
import pytest
import zarr

from otzi.classes import ClassTable
from otzi.errors import CannotCreate, ConfigurationError, NotFoundError
from otzi.ramps import SliceThresholds, fit_quadratic
from otzi_pipelines.ramps import estimate
from otzi_pipelines.ramps.estimate import estimate_ramps
from otzi_pipelines.ramps.histograms import codes_of
from otzi_pipelines.ramps.picture import checked_pattern, draw_ramps
from otzi_pipelines.ramps.prior import ClassPrior, class_priors
from otzi_pipelines.ramps.slab import Slab, find_slab
from otzi_pipelines.ramps.stored import StoredRamps, read_ramps
from references import isodata_of_values

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

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


def _codes(seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (3, *SHAPE)).astype(np.uint8)


@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32"])
def test_curve_is_that_of_the_whole_volume(tomo: Tomogram, dtype: str) -> None:
    probs = np.random.default_rng(1).beta(0.5, 2, (3, *SHAPE))
    probs[1, 4] = 0
    _segment(tomo, np.rint(probs * 255).astype("u1") if dtype == "uint8" else probs.astype(dtype))
    assert estimate_ramps(tomo, "net")
    codes = codes_of(tomo.array("probs/net")[...])
    curves = zarr.open_array(tomo.path("ramps/net") / "thresholds", mode="r")[:]
    highest = 255 if dtype == "uint8" else 16383
    expected = [[isodata_of_values(s) / highest for s in one] for one in codes]
    np.testing.assert_allclose(curves, expected, atol=1e-6)
    ramps = tomo.attributes("ramps/net")["ramps"]
    assert list(ramps) == ["background", "membrane", "lumen"]
    assert ramps["membrane"]["slices_used"] == SHAPE[0] - 1
    assert ramps["membrane"]["low"] == pytest.approx(np.nanmean(expected[1]), abs=1e-5)
    assert ramps["membrane"]["quadratic"] == list(fit_quadratic(np.asarray(curves)[1]))


def test_a_second_run_does_nothing_until_the_probabilities_change(tomo: Tomogram) -> None:
    _segment(tomo, _codes())
    assert estimate_ramps(tomo, "net")
    assert not estimate_ramps(tomo, "net")
    _segment(tomo, _codes(seed=2))
    assert estimate_ramps(tomo, "net")


def test_ramps_need_probabilities(tomo: Tomogram) -> None:
    with pytest.raises(NotFoundError, match="no probs/net"):
        estimate_ramps(tomo, "net")
    with tomo.write("probs/net", dtype="uint8", recipe={}, chunk_voxels=70) as writer:
        writer[0:20, 0:70, 0:40] = np.zeros(SHAPE, np.uint8)
    with pytest.raises(ConfigurationError, match="no classes"):
        estimate_ramps(tomo, "net")


def test_what_an_older_version_stored_is_made_again(tomo: Tomogram) -> None:
    _segment(tomo, _codes())
    old = {"method": "isodata", "start": "mean", "over": "slices"}
    with tomo.stage("ramps/net", recipe=old, parents=("probs/net",)) as staging:
        staging.attributes["ramps"] = {"membrane": {"low": 0.5}}
    with pytest.raises(ConfigurationError, match=r"otzi ramps .* ts_001 --probs net"):
        read_ramps(tomo, "net")
    assert estimate_ramps(tomo, "net")
    assert list(read_ramps(tomo, "net").entries) == ["background", "membrane", "lumen"]


def test_the_verb_finds_nothing(tomo: Tomogram, otzi: Otzi) -> None:
    run = otzi("ramps", tomo.collection.path, "--probs", "net")
    assert (run.code, "no tomogram of" in run.err, "otzi segment" in run.err) == (2, True, True)


def test_the_verb_prints_the_curve(tomo: Tomogram, otzi: Otzi) -> None:
    _segment(tomo, _codes())
    run = otzi("ramps", tomo.collection.path, "--probs", "net")
    assert run.code == 0
    assert "left limits: background 0." in run.out
    assert "slab: slices 0 to 19, margins 0 Å and 0 Å" in run.out
    assert len(run.out.splitlines()) == 3 + SHAPE[0]
    again = otzi("ramps", tomo.collection.path, "ts_001", "--probs", "net", "--json")
    found = json.loads(again.out)["ts_001"]
    assert len(found["ramps"]["lumen"]["curve"]) == SHAPE[0]
    assert found["slab"]["margin_voxels"] == [0, 0]
    assert "done already" in again.err
    row = otzi("ramps", tomo.collection.path, "--probs", "net", "--quadratic").out.splitlines()[3]
    assert row.count("(0.") == 3


# The slab


def _bytes_with_slab(start: int, stop: int) -> np.ndarray:
    codes = np.zeros((3, *SHAPE), np.uint8)
    codes[1, start:stop, 10:30] = 230
    codes[2, start:stop, 40:60] = 200
    codes[1, :, 5, 5] = codes[2, :, 8, 8] = 220
    codes[0] = 255 - codes[1] - codes[2]
    return codes


def test_the_slab_is_where_classes_stand_out(tomo: Tomogram) -> None:
    _segment(tomo, _bytes_with_slab(4, 15))
    estimate_ramps(tomo, "net")
    slab = tomo.attributes("ramps/net")["slab"]
    # Slices are 20 Å apart. The threshold alone would not tell: a few voxels have one, too.
    assert slab == {
        "start": 4,
        "stop": 15,
        "margin_voxels": [4, 5],
        "margin_angstrom": [80.0, 100.0],
    }
    assert read_ramps(tomo, "net").thresholds["membrane"].n_used == SHAPE[0]


def test_single_slices_do_not_end_the_slab() -> None:
    contrast = np.r_[np.zeros(6), np.full(30, 0.2), np.zeros(9)].astype(np.float32)
    contrast[[20, 21]], contrast[2] = 0, 0.3
    assert find_slab([contrast]) == Slab(6, 36, 45)
    assert find_slab([contrast, np.zeros(45, np.float32)]) == Slab(6, 36, 45)
    assert find_slab([np.zeros(45, np.float32)]) == Slab(0, 45, 45)
    assert find_slab([np.full(1, 0.2, np.float32)]) == Slab(0, 1, 1)


# The collection


def test_a_limit_that_stands_out_is_named() -> None:
    lows = [0.30, 0.31, 0.29, 0.33, 0.32, 0.80]
    priors = class_priors([{"membrane": low, "lumen": None} for low in lows])
    assert list(priors) == ["membrane"]
    prior = priors["membrane"]
    assert prior.median == pytest.approx(np.median(lows))
    assert prior.mad == pytest.approx(np.median(np.abs(lows - np.median(lows))))
    verdicts = [prior.objection(low, 9) for low in lows]
    assert verdicts[:5] == [None] * 5
    assert "0.800 is" in str(verdicts[5])
    assert "median of 6 tomograms" in str(verdicts[5])
    assert "no slice has a threshold" in str(prior.objection(0, 0))


def test_too_few_or_too_alike_tomograms_accuse_none() -> None:
    assert ClassPrior(0.3, 0.0, 3).objection(0.9, 9) is None
    assert ClassPrior(0.3, 0.0, 4).objection(0.9, 9) is not None
    assert ClassPrior(0.3, 0.0, 40).objection(0.33, 9) is None


@pytest.fixture
def several(add_tomogram: Callable[..., Tomogram]) -> list[Tomogram]:
    """Give six tomograms, of which the last has another network's limits."""
    tomograms = []
    for i in range(6):
        tomo = add_tomogram(np.zeros(SHAPE, np.int8), f"ts_{i}")
        codes = _bytes_with_slab(0, 20)
        codes[1] = np.where(codes[1] > 0, 100 + i if i < 5 else 240, 0)
        codes[0] = 255 - codes[1] - codes[2]
        _segment(tomo, codes)
        tomograms.append(tomo)
    return tomograms


def _lows(tomograms: list[Tomogram]) -> list[float]:
    return [tomo.attributes("ramps/net")["ramps"]["membrane"]["low"] for tomo in tomograms]


def test_the_prior_takes_the_place_of_what_stands_out(
    several: list[Tomogram], otzi: Otzi, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("ramps", several[0].collection.path, "--probs", "net")
    plain = otzi(*command)
    own = _lows(several)
    assert plain.err.count("ts_5: ") == plain.err.count("stands out") == 2
    assert "ts_5: membrane stands out, 0.471 is" in plain.err
    assert "collection  membrane: 0.201 ± 0.003, median ± MAD of 6 tomograms" in plain.out
    digests = [tomo.digest("ramps/net") for tomo in several]

    # From here on the curves that are stored are enough.
    monkeypatch.setattr(estimate, "_histograms", None)
    run = otzi(*command, "--prior", "--json")
    assert run.code == 0, run.err
    assert _lows(several) == [*own[:5], pytest.approx(np.median(own))]
    entry = json.loads(run.out)["ts_5"]["ramps"]["membrane"]
    assert entry["own_low"] == own[5]
    assert "median of 6 tomograms" in entry["reason"]
    assert entry["collection"]["n_tomograms"] == 6
    assert [tomo.digest("ramps/net") for tomo in several[:5]] == digests[:5]
    # Neither the same command, nor what segmentation asks for, changes it; the plain one does.
    before = several[5].digest("ramps/net")
    assert otzi(*command[:2], "ts_5", *command[2:], "--prior").code == 0
    assert not estimate_ramps(several[5], "net")
    assert several[5].digest("ramps/net") == before
    otzi(*command)
    assert _lows(several) == own


def test_other_tomograms_are_not_read(
    several: list[Tomogram], otzi: Otzi, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("ramps", several[0].collection.path, "ts_0", "--probs", "net")
    assert otzi(*words).code == 0
    monkeypatch.setattr(estimate, "_histograms", None)
    run = otzi(*words, "--json")
    found = json.loads(run.out)
    assert list(found) == ["ts_0"]
    assert found["ts_0"]["ramps"]["membrane"]["collection"]["n_tomograms"] == 1


# The picture


def test_a_picture_shows_curve_limit_and_slab(
    several: list[Tomogram], otzi: Otzi, tmp_path: Path
) -> None:
    path = several[0].collection.path
    pattern = tmp_path / "ramps-{tomogram}.png"
    run = otzi("ramps", path, "--probs", "net", "--picture", pattern)
    assert run.code == 0, run.err
    names = [f"ramps-ts_{i}.png" for i in range(6)]
    assert sorted(file.name for file in tmp_path.glob("*.png")) == names


def test_lines_of_the_picture_lie_where_the_numbers_are() -> None:
    curve = np.full(50, 0.25, np.float32)
    curve[30] = np.nan
    own = SliceThresholds(curve, np.full(50, 0.1, np.float32))
    ramps = StoredRamps(
        {"membrane": {"low": 0.75, "quadratic": (0.5, 0, 0)}}, {"membrane": own}, Slab(10, 40, 50)
    )
    pixels = np.asarray(draw_ramps(ramps, ClassTable.named(["background", "membrane"]), "ts_1"))
    inside = pixels[40:441, 60:701]
    is_curve = (inside == (0xC7, 0x9A, 0xAB)).all(-1)
    rows = {round(1 - y / 400, 2): is_curve[y].mean() for y in np.flatnonzero(is_curve.any(1))}
    assert 0.9 < rows[0.25] < 0.98
    assert rows[0.5] > 0.9
    assert 0.4 < rows[0.75] < 0.6
    assert set(rows) <= {0.25, 0.5, 0.75, 0.24, 0.26}
    is_outside = (inside == (0xEF, 0xEF, 0xEF)).all(-1)[150]
    np.testing.assert_allclose(is_outside.mean(), 0.4, atol=0.02)
    assert not is_outside[130:510].any()


def test_pictures_that_cannot_be_are_named(tmp_path: Path) -> None:
    with pytest.raises(CannotCreate, match="would hold 2 pictures"):
        checked_pattern(str(tmp_path / "a.png"), ["a", "b"])
    assert checked_pattern(str(tmp_path / "a.png"), ["a"]) == {"a": tmp_path / "a.png"}
    for name in ("a.jpg", "missing/a.png"):
        with pytest.raises(CannotCreate, match="folder that is there"):
            checked_pattern(str(tmp_path / name), ["a"])
