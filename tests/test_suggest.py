"""Suggestions: unsure slices, apart from each other and from what is drawn."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from labelled import add_labels
from otzi.errors import UsageError
from otzi.strokes import Stroke, Strokes, write_strokes
from otzi_pipelines.label import suggest as module
from otzi_pipelines.label.stroke_import import import_strokes
from otzi_pipelines.label.suggest import choose_slices, hot_spots, suggest_slices
from otzi_pipelines.label.uncertainty import publish_uncertainty
from otzi_pipelines.label.verbs import suggest_verb

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from click.testing import Result

    from otzi.tomogram import Tomogram

SHAPE = (64, 80, 96)
UNSURE = {10: 1.0, 20: 0.9, 31: 0.8, 50: 0.7}
"""Slices, and which share of their rows is undecided."""


@pytest.fixture
def tomo(add_tomogram: Callable[..., Tomogram], tmp_path: Path) -> Tomogram:
    """Give labels that are sure but for four slices, on one of which there is a stroke."""
    density = np.ones(SHAPE, np.float32)
    density[50, 28:] = 0
    tomo = add_tomogram(density)
    labels = np.zeros((3, *SHAPE), np.uint8)
    labels[0] = 255
    for z, share in UNSURE.items():
        rows = round(share * SHAPE[1])
        labels[:, z, :rows] = np.array([85, 85, 85])[:, None, None]
    add_labels(tomo, labels)
    stroke = Stroke("membrane", 1.0, ((10.0, 5.0, 5.0), (10.0, 5.0, 70.0)))
    write_strokes(tmp_path / "s.json", Strokes("ts_001", tomo.classes.names, (stroke,)))
    import_strokes(tomo, tmp_path / "s.json")
    return tomo


@pytest.mark.parametrize("published", [False, True])
def test_unsure_slices_without_strokes_come_first(tomo: Tomogram, published: bool) -> None:
    """On slice 50, most of what has data is unsure."""
    if published:
        publish_uncertainty(tomo, "net")
    found = suggest_slices(tomo, "net", 5)
    assert [s.z for s in found] == [50, 20, 31]
    assert [s.uncertainty for s in found] == pytest.approx([1, 0.9, 0.8], abs=1e-3)
    for spot in (spot for s in found for spot in s.hot_spots):
        assert spot.uncertainty > 0.5
        assert 0 <= spot.y < SHAPE[1]


def test_a_coarse_level_names_slices_of_level_0(
    tomo: Tomogram, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_uncertainty(tomo, "net")
    monkeypatch.setattr(module, "_MOST_VOXELS", SHAPE[0] * SHAPE[1] * SHAPE[2] // 8)
    found = suggest_slices(tomo, "net", 3)
    assert [s.z for s in found] == [21, 31, 51]
    assert found[0].uncertainty == pytest.approx(0.45, abs=5e-3)


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=60),
    st.sets(st.integers(0, 59), max_size=5),
    st.integers(1, 8),
)
def test_slices_are_chosen_once_and_never_where_strokes_are(
    means: list[float], drawn: set[int], n: int
) -> None:
    centres = np.arange(len(means))
    chosen = choose_slices(np.array(means), centres, np.array(sorted(drawn), int), n)
    assert len(set(chosen)) == len(chosen) <= n
    assert not set(chosen) & drawn
    usable = sum(mean > 0 for z, mean in enumerate(means) if z not in drawn)
    assert len(chosen) == min(n, usable)


def test_slices_are_far_apart_where_there_is_room() -> None:
    means = 1 - np.arange(100) / 1000
    drawn = np.array([30])
    assert choose_slices(means, np.arange(100), drawn, 4) == [0, 12, 42, 54]
    assert choose_slices(means, 10 * np.arange(100), drawn * 0, 1) == [50]
    assert choose_slices(means * 0, np.arange(100), drawn, 4) == []


def test_hot_spots_are_the_worst_places_and_apart() -> None:
    plane = np.zeros((200, 300), np.uint8)
    plane[40:72, 100:132] = 255
    plane[150:182, 250:282] = 128
    first, second = hot_spots(plane)[:2]
    assert (first.y, first.x, first.uncertainty) == (56, 116, 1.0)
    assert (second.y, second.x) == (166, 266)
    assert second.uncertainty == pytest.approx(128 / 255, abs=1e-3)
    assert len(hot_spots(plane)) == 2
    coarse = hot_spots(plane[::4, ::4], level=2)[0]
    assert abs(coarse.y - 56) <= 4
    assert abs(coarse.x - 116) <= 4
    assert hot_spots(plane * 0) == ()


def run(tomo: Tomogram, *words: object) -> Result:
    """Call the verb as the command line does."""
    app = typer.Typer(add_completion=False)
    app.command("suggest")(suggest_verb)
    return CliRunner().invoke(app, [str(tomo.collection.path), "ts_001", *map(str, words)])


def test_the_verb_says_where_to_draw(tomo: Tomogram) -> None:
    words = ("--labels", "net", "-n", 2)
    result = run(tomo, *words)
    assert result.exit_code == 0, result.stderr
    first, second = result.stdout.splitlines()
    assert first.startswith("z   50  unsure 100%  most at y, x: ")
    assert second.startswith("z   31  unsure  80%")
    document = json.loads(run(tomo, *words, "--json").stdout)
    assert [s["z"] for s in document["slices"]] == [50, 31]
    assert set(document["slices"][0]["hot_spots"][0]) == {"y", "x", "uncertainty"}


def test_sure_labels_need_no_more_strokes(tomo: Tomogram) -> None:
    sure = np.zeros((3, *SHAPE), np.uint8)
    sure[1] = 255
    add_labels(tomo, sure, "sure")
    result = run(tomo, "--labels", "sure")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "labels/sure are sure of every slice" in result.stderr


def test_what_cannot_be_suggested_is_refused(tomo: Tomogram) -> None:
    with pytest.raises(UsageError, match="0 slices"):
        suggest_slices(tomo, "net", 0)
    add_labels(tomo, np.zeros(SHAPE, np.uint8), "hard")
    with pytest.raises(UsageError, match="are hard"):
        suggest_slices(tomo, "hard")
