"""The verb objects as it is typed, and its particle file."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy import ndimage

from labelled import add_labels
from otzi.collection import open_collection
from otzi_pipelines.objects.star import particle_columns

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from commands import Otzi
    from otzi.tomogram import Tomogram

SHAPE = (10, 20, 30)


def boxes() -> np.ndarray:
    hard = np.zeros(SHAPE, np.uint8)
    hard[1:5, 2:6, 2:6] = 1
    hard[7, 15:17, 20:24] = 1
    hard[2:4, 10:14, 8] = 2
    return hard


@pytest.fixture
def path(add_tomogram: Callable[..., Tomogram]) -> Path:
    for name in ("ts_1", "ts_2"):
        tomo = add_tomogram(np.zeros(SHAPE, np.int8), name)
        add_labels(tomo, boxes(), "hard")
    return tomo.collection.workspace


def test_it_says_what_there_is_and_where(path: Path, otzi: Otzi) -> None:
    words = ("objects", path, "--of", "labels/hard", "--class", "membrane", "--class", "lumen")
    run = otzi(*words, "--labels", "--json")
    assert run.code == 0, run.err
    result = json.loads(run.out)["ts_2"]
    assert result["made"]
    assert result["thresholds"] is None
    tomo = open_collection(path)["ts_2"]
    assert result["table"] == str(tomo.path("objects/membrane_lumen") / "objects.csv")
    assert result["counts"] == {
        "membrane": {"objects": 2, "volume_nm3": 144.0, "largest_nm3": 128.0},
        "lumen": {"objects": 1, "volume_nm3": 16.0, "largest_nm3": 16.0},
    }
    expected = np.zeros(SHAPE, np.uint32)
    expected[boxes() > 0] = ndimage.label(boxes())[0][boxes() > 0]
    np.testing.assert_array_equal(tomo.array("objects/membrane_lumen")[:], expected)
    again = otzi(*words, "--labels")
    assert again.code == 0
    assert "membrane: 2 objects, 144 nm³ in all, 128 the largest" in again.out
    assert "ts_1 has these objects/membrane_lumen already" in again.err
    assert otzi("verify", path).code == 0


def test_the_only_probabilities_are_taken_and_small_objects_left_out(
    path: Path, otzi: Otzi
) -> None:
    refused = otzi("objects", path, "ts_1", "--class", "membrane")
    assert refused.code == 2
    assert "ts_1 has no probabilities: name labels by --of labels/NAME" in refused.err
    tomo = open_collection(path, mode="r+")["ts_1"]
    soft = np.stack([255 * (boxes() == i) for i in range(3)]).astype(np.uint8)
    with tomo.write(
        "probs/unet", dtype="u1", channels=tomo.classes.names, recipe={}, parents=("raw",)
    ) as writer:
        writer[:, :, :, :] = soft
    words = ("objects", path, "ts_1", "--class", "membrane", "--name", "big")
    run = otzi(*words, "--min-volume-nm3", 100)
    assert run.code == 0, run.err
    assert "membrane from 0.5 on: 1 object, 128 nm³ in all" in run.out


def test_one_that_lacks_it_is_left_out_and_the_others_go_on(
    path: Path, add_tomogram: Callable[..., Tomogram], otzi: Otzi
) -> None:
    add_tomogram(np.zeros(SHAPE, np.int8), "bare")
    words = ("objects", path, "--of", "labels/hard", "--class", "lumen")
    run = otzi(*words, "--json", "--workers", 1, "--memory", "1GB")
    assert run.code == 5
    results = json.loads(run.out)
    assert {id_: result["made"] for id_, result in results.items()} == {
        "bare": False,
        "ts_1": True,
        "ts_2": True,
    }
    assert "bare is left out: bare has no labels/hard" in run.err


def test_what_cannot_be_meant_is_refused(path: Path, otzi: Otzi) -> None:
    words = ("objects", path, "--of", "labels/hard", "--class", "lumen")
    assert "6 (faces), 18 (edges, too)" in otzi(*words, "--connectivity", 8).err
    assert "ends in .star" in otzi(*words, "--star", path / "particles.txt").err
    assert otzi(*words, "--min-volume-nm3", -1).code == 2
    assert otzi("objects", path).code == 2
    assert not open_collection(path)["ts_1"].has("objects/lumen")


def test_centroids_as_particles(path: Path, otzi: Otzi, tmp_path: Path) -> None:
    starfile = pytest.importorskip("starfile")
    file = tmp_path / "particles.star"
    words = ("objects", path, "--of", "labels/hard", "--class", "membrane")
    run = otzi(*words, "--star", file)
    assert run.code == 0, run.err
    found = starfile.read(file)
    assert found["rlnTomoName"].tolist() == ["ts_1", "ts_1", "ts_2", "ts_2"]
    assert found["rlnCoordinateX"].tolist() == [3.5, 21.5] * 2
    assert found["rlnCoordinateY"].tolist() == [3.5, 15.5] * 2
    assert found["rlnCoordinateZ"].tolist() == [2.5, 7.0] * 2
    # From the middle, 5, 10 and 15 voxels, at 20, 10 and 10 Å.
    assert found["rlnCenteredCoordinateZAngst"].tolist() == [-50.0, 40.0] * 2
    assert found["rlnCenteredCoordinateXAngst"].tolist() == [-115.0, 65.0] * 2
    assert "rlnAutopickFigureOfMerit" not in found


def test_particles_have_their_class_and_probability() -> None:
    places = {f"centroid_{axis}_voxels": 1.0 for axis in "zyx"}
    columns = particle_columns(
        {
            "tomogram": "ts",
            "classes": ["a", "b"],
            "thresholds": [0.5, 0.5],
            "shape": [2, 4, 6],
            "spacing_angstrom": [1.0, 1.0, 2.0],
            "objects": [{"id": 1, "class": "b", "mean_probability": 0.75, **places}],
        }
    )
    assert columns["rlnClassNumber"] == [2]
    assert columns["rlnAutopickFigureOfMerit"] == [0.75]
    assert columns["rlnCenteredCoordinateXAngst"] == [-4.0]
