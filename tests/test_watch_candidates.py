"""What is known from look to look: quiet begins anew with every change, and nothing is lost."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otzi.ledger.sources import FileState, Quiet, SourceRow, SourceState
from otzi_pipelines.watch import clock
from otzi_pipelines.watch.candidates import carry_on
from otzi_pipelines.watch.clock import now, seconds_between
from otzi_pipelines.watch.scan import Seen

FOLDER = Path("/in")
PATH = FOLDER / "a.mrc"
STATE = FileState(1, 100, 10, 10)
Rows = dict[Path, SourceRow]


def _at(seconds: float, boot: str = "b") -> Quiet:
    return Quiet(boot, seconds)


def _look(rows: Rows, moment: Quiet, **files: FileState) -> Rows:
    seen = Seen({FOLDER / f"{name}.mrc": state for name, state in files.items()})
    return carry_on(rows, seen, FOLDER, moment).rows


def _row(state: SourceState, **values: object) -> SourceRow:
    row = SourceRow(PATH, FOLDER, state, STATE, _at(0))
    return replace(row, **values)  # type: ignore[arg-type]


def test_quiet_counts_from_the_first_look_that_found_it_so() -> None:
    rows = _look({}, _at(5), a=STATE)
    assert (rows[PATH].state, rows[PATH].quiet) == ("seen", _at(5))
    rows = _look(rows, _at(9), a=STATE)
    assert (rows[PATH].state, rows[PATH].quiet) == ("settling", _at(5))
    assert _look(rows, _at(99), a=STATE) == rows


@pytest.mark.parametrize("field", FileState._fields)
def test_any_change_begins_anew(field: str) -> None:
    rows = _look(_look({}, _at(5), a=STATE), _at(9), a=STATE)
    other = STATE._replace(**{field: 77})
    rows = _look(rows, _at(20), a=other)
    assert (rows[PATH].state, rows[PATH].file, rows[PATH].quiet) == ("seen", other, _at(20))


@given(
    sizes=st.lists(st.integers(0, 3), min_size=1, max_size=12),
    steps=st.lists(st.floats(0.1, 20), min_size=12, max_size=12),
)
def test_quiet_is_never_longer_than_the_file_has_been_as_it_is(
    sizes: list[int], steps: list[float]
) -> None:
    rows: Rows = {}
    seconds, since = 0.0, 0.0
    for i, size in enumerate(sizes):
        seconds += steps[i]
        if i == 0 or size != sizes[i - 1]:
            since = seconds
        rows = _look(rows, _at(seconds), a=STATE._replace(n_bytes=size))
        assert rows[PATH].quiet == _at(since)
        assert rows[PATH].state == ("seen" if since == seconds else "settling")


def test_a_clock_that_cannot_be_compared_begins_anew() -> None:
    rows = _look(_look({}, _at(5), a=STATE), _at(9), a=STATE)
    for moment in (_at(900, boot="other"), _at(2)):
        assert _look(rows, moment, a=STATE)[PATH].quiet == moment
    assert seconds_between(_at(5), _at(9)) == 4
    assert seconds_between(_at(5), _at(4)) is None
    assert seconds_between(_at(5, "x"), _at(9)) is None


def test_the_clock_goes_on_and_is_the_same_in_every_process() -> None:
    first, second = now(), now()
    passed = seconds_between(first, second)
    assert passed is not None
    assert 0 <= passed < 60


def test_without_the_number_of_the_start_the_machine_is_told_by_its_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert now().boot != os.uname().nodename
    monkeypatch.setattr(clock, "_BOOT_ID", tmp_path / "hidden")
    assert now().boot == os.uname().nodename


def test_what_was_taken_and_changes_is_a_new_revision() -> None:
    sealed = _row("sealed", tomogram="a", sha256="x")
    rows = _look({PATH: sealed}, _at(50), a=STATE._replace(mtime_ns=11))
    row = rows[PATH]
    assert (row.state, row.revision, row.tomogram, row.sha256) == ("seen", 2, "a", None)
    duplicate = _row("duplicate", tomogram="b")
    row = _look({PATH: duplicate}, _at(50), a=STATE._replace(n_bytes=11))[PATH]
    assert (row.revision, row.tomogram) == (2, None)


def test_another_inode_alone_is_no_new_revision() -> None:
    """Network file systems number their files anew at every mount."""
    moved = STATE._replace(inode=5, ctime_ns=99)
    row = _look({PATH: _row("sealed")}, _at(50), a=moved)[PATH]
    assert (row.state, row.revision, row.file) == ("sealed", 1, moved)


def test_the_quarantine_ends_with_a_change() -> None:
    row = _row("quarantined", reason="bad", attempts=2)
    seen = Seen({PATH: STATE})
    assert carry_on({PATH: row}, seen, FOLDER, _at(50)).put == []
    changed = carry_on({PATH: row}, Seen({PATH: STATE._replace(ctime_ns=11)}), FOLDER, _at(50))
    assert changed.freed == [row]
    (new,) = changed.put
    assert (new.state, new.revision, new.reason, new.attempts) == ("seen", 1, None, 0)


def test_a_rename_into_place_is_known_by_its_inode() -> None:
    hidden = FOLDER / ".a.mrc.Xy"
    rows = carry_on({}, Seen(temporary={hidden: STATE}), FOLDER, _at(1)).rows
    assert rows[hidden].state == "temporary"
    changes = carry_on(rows, Seen({PATH: STATE}), FOLDER, _at(2))
    assert changes.rows[PATH].evidence == "renamed"
    assert [row.path for row in changes.gone] == [hidden]
    other = carry_on(rows, Seen({PATH: STATE._replace(inode=2)}), FOLDER, _at(2))
    assert other.rows[PATH].evidence is None


def test_what_vanishes_before_its_end_is_forgotten_and_what_came_to_it_is_not() -> None:
    for state, is_kept in (("seen", False), ("sealed", True), ("quarantined", True)):
        changes = carry_on({PATH: _row(state)}, Seen(), FOLDER, _at(2))
        assert (PATH in changes.rows) == is_kept
    hidden = Seen(closed={FOLDER})
    assert PATH in carry_on({PATH: _row("settling")}, hidden, FOLDER, _at(2)).rows
