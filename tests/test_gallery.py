"""Pictures computed by processes beside this one: the same bytes, and the same say in errors."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from otzi.execute import executor
from otzi_pipelines.ramps.estimate import estimate_ramps
from otzi_viewers.render.film import read_comment
from pictures import add_probs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from commands import Otzi
    from otzi.collection import Collection
    from otzi.tomogram import Tomogram

SHAPE = (70, 50, 90)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with executor("processes:2") as there:
        yield str(there._cluster.scheduler_address)  # type: ignore[attr-defined]


@pytest.fixture
def collection(add_tomogram: Callable[..., Tomogram], collection: Collection) -> Collection:
    """Give two tomograms with probabilities and ramps, and one without."""
    random = np.random.default_rng(3)
    for number in (1, 2):
        tomo = add_tomogram(random.normal(0, 300, SHAPE).astype(np.int16), f"ts_{number:03}")
        drawn = np.zeros((2, *SHAPE), np.uint8)
        drawn[0, 4 * number : 60, 5:25, 6:50] = 120
        drawn[1, 10:65, 8 : 8 * number + 8, 9:70] = 100
        add_probs(tomo, "net", drawn, ("background", "membrane", "lumen"))
        estimate_ramps(tomo, "net")
    add_tomogram(np.zeros((8, 8, 8), np.int16), "ts_003")
    return collection


def test_stills_of_others_are_those_made_here(
    collection: Collection, otzi: Otzi, address: str, tmp_path: Path
) -> None:
    words = ("render", collection.path, "ts_*", "--size", "24x18", "--json", "-o")
    here = otzi(*words, tmp_path / "here_{tomogram}.png")
    away = otzi(*words, tmp_path / "away_{tomogram}.png", "--executor", address)
    assert (here.code, away.code) == (5, 5)
    assert "ts_003 is left out: ts_003 has no probabilities" in away.err
    documents = [json.loads(run.out) for run in (here, away)]
    assert [list(document) for document in documents] == [["ts_001", "ts_002", "ts_003"]] * 2
    for number in ("ts_001", "ts_002"):
        one, other = (tmp_path / f"{where}_{number}.png" for where in ("here", "away"))
        assert one.read_bytes() == other.read_bytes()
        assert documents[0][number]["digest"] == documents[1][number]["digest"]
    again = otzi(*words, tmp_path / "away_{tomogram}.png", "--executor", address)
    assert again.err.count("is done already") == 2
    alone = otzi(*words[:2], "ts_003", "-o", tmp_path / "a.png", "--executor", address)
    assert alone.code == 2
    assert "run `otzi segment`" in alone.err


@pytest.mark.parametrize("memory", ["1GB", "14500000B"])
def test_movies_of_frames_from_others_are_those_made_here(
    collection: Collection, otzi: Otzi, address: str, tmp_path: Path, memory: str
) -> None:
    pytest.importorskip("av")
    words = ("render", collection.path, "ts_001", "--size", "24x18", "--turntable", "6")
    words = (*words, "--memory", memory, "--level", "0", "-o")
    here, away = tmp_path / "here.mp4", tmp_path / "away.mp4"
    made = otzi(*words, here)
    assert made.code == 0, made.err
    assert ("streamed in bricks" in made.err) == (memory != "1GB")
    run = otzi(*words, away, "--executor", address)
    assert run.code == 0, run.err
    assert here.read_bytes() == away.read_bytes()
    assert json.loads(read_comment(away))["otzi digest"]
    assert sorted(path.name for path in tmp_path.glob("*.mp4*")) == ["away.mp4", "here.mp4"]
