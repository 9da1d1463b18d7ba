"""Strokes as they are drawn: nothing that was on the disk is lost, whatever comes after it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otzi.errors import Locked, StrokesError
from otzi.stroke_journal import StrokeJournal
from otzi.strokes import Stroke, Strokes

if TYPE_CHECKING:
    from pathlib import Path

CLASSES = ("background", "membrane")
WHO = {"user": "ada", "time": "2026-01-01T00:00:00+00:00"}


def stroke(n: int) -> Stroke:
    return Stroke(CLASSES[n % 2], 1.5, ((float(n), 2.0, 3.0), (4.0, 5.0, 6.0)))


def strokes(*numbers: int) -> Strokes:
    return Strokes("ts_001", CLASSES, tuple(map(stroke, numbers)))


def opened(folder: Path) -> StrokeJournal:
    return StrokeJournal(folder / "strokes" / "drawn.jsonl", "ts_001", CLASSES)


def test_a_line_says_what_who_and_when(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    assert not journal.path.exists()
    journal.draw(stroke(1), **WHO)
    journal.undo(**WHO)
    drawn, undone = map(json.loads, journal.path.read_text().splitlines())
    assert undone == {"schema": 1, "tomogram": "ts_001", "action": "undo"} | WHO
    assert drawn["strokes"] == strokes(1).to_json()["strokes"]
    assert (drawn["user"], drawn["time"], drawn["schema"]) == (*WHO.values(), 1)


@given(st.lists(st.one_of(st.integers(0, 5), st.just("undo"), st.just("reopen")), max_size=8))
def test_it_is_a_stack_that_survives_reopening(
    tmp_path_factory: pytest.TempPathFactory, events: list[int | str]
) -> None:
    folder = tmp_path_factory.mktemp("journal")
    journal, expected = opened(folder), []
    for event in events:
        if event == "reopen":
            journal = opened(folder)
        elif event == "undo":
            assert journal.undo(**WHO) == (expected.pop() if expected else None)
        else:
            journal.draw(stroke(event), **WHO)
            expected.append(stroke(event))
        assert journal.strokes.strokes == tuple(expected)
    assert opened(folder).strokes.strokes == tuple(expected)


def test_strokes_of_elsewhere_come_first_and_once(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    journal.draw(stroke(1), **WHO)
    journal.draw(stroke(2), **WHO)
    journal.undo(**WHO)
    assert journal.has_seen(strokes(2, 1))
    assert not journal.has_seen(strokes(1, 3))
    journal.take_over(strokes(3, 1), **WHO)
    for one in (journal, opened(tmp_path)):
        assert one.strokes == strokes(3, 1)
        assert one.has_seen(strokes(1, 2, 3))


def test_a_line_cut_short_by_a_kill_does_not_count(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    journal.draw(stroke(1), **WHO)
    journal.draw(stroke(2), **WHO)
    text = journal.path.read_bytes()
    first = text.index(b"\n") + 1
    for end in (first, first + 1, first + 30, len(text) - 1):
        journal.path.write_bytes(text[:end])
        again = opened(tmp_path)
        assert again.strokes == strokes(1)
        again.draw(stroke(4), **WHO)
        assert opened(tmp_path).strokes == strokes(1, 4)


def test_of_two_who_draw_at_once_one_is_told(tmp_path: Path) -> None:
    one, other = opened(tmp_path), opened(tmp_path)
    one.draw(stroke(1), **WHO)
    with pytest.raises(Locked, match="drawn elsewhere meanwhile: open it again"):
        other.draw(stroke(2), **WHO)
    assert other.strokes.strokes == ()
    assert opened(tmp_path).strokes == strokes(1)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("nonsense", "line 1 is no event"),
        ("[]", "line 1 is no event"),
        ('{"schema": 1, "action": "undo"}', "'tomogram'"),
        ('{"schema": 9, "tomogram": "ts_001", "action": "undo"}', "has schema 9"),
        ('{"schema": 1, "tomogram": "other", "action": "undo"}', "is of tomogram 'other'"),
        ('{"schema": 1, "tomogram": "ts_001", "action": "undo"}', "nothing is known to 'undo'"),
        ('{"schema": 1, "tomogram": "ts_001", "action": "erase"}', "nothing is known to 'erase'"),
    ],
)
def test_what_cannot_be_understood_is_not_passed_over(tmp_path: Path, line: str, says: str) -> None:
    path = tmp_path / "strokes" / "drawn.jsonl"
    path.parent.mkdir()
    path.write_text(line + "\n")
    with pytest.raises(StrokesError, match=says):
        opened(tmp_path)
