"""What the doctor says of the clock, of inotify, of room for the largest tomogram, of a store."""

from __future__ import annotations

import ctypes
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest

from otzi import doctor
from otzi.collection import create_collection
from otzi.ledger.sqlite import ledger_path
from s3_server import BUCKET, s3_server

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from commands import Otzi
    from otzi.doctor import Check
    from otzi.tomogram import Tomogram


def _check(folder: Path, what: str) -> Check:
    return next(check for check in doctor.checks(folder) if check.what == what)


class _Library:
    """A C library whose clock is in a state, or that knows nothing of clocks."""

    def __init__(self, state: int | None) -> None:
        if state is not None:
            self.adjtimex = lambda _: state


@pytest.mark.skipif(sys.platform != "linux", reason="adjtimex is Linux's own")
@pytest.mark.parametrize(
    ("state", "found", "says"),
    [
        (5, "warning", "no time server"),
        (0, "ok", "kept by"),
        (-1, "ok", "cannot tell"),
        (None, "ok", "cannot tell"),
    ],
)
def test_a_clock_that_nobody_keeps_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: int | None, found: str, says: str
) -> None:
    assert _check(tmp_path, "clock").state in ("ok", "warning")  # of this machine
    monkeypatch.setattr(ctypes, "CDLL", lambda _: _Library(state))
    check = doctor._clock()
    assert (check.state, says in check.found) == (found, True)


@pytest.mark.parametrize(
    ("text", "found", "says"),
    [("128\n", "warning", "128"), ("65536\n", "ok", "65536"), ("", "ok", "by the clock alone")],
)
def test_few_watches_are_a_warning_and_none_is_as_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, found: str, says: str
) -> None:
    (tmp_path / "max").write_text(text)
    monkeypatch.setattr(doctor, "_INOTIFY", tmp_path / "max")
    check = _check(tmp_path, "inotify")
    assert (check.state, says in check.found) == (found, True)


def test_there_is_to_be_room_for_the_largest_tomogram_twice(
    add_tomogram: Callable[..., Tomogram], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "_LEAST_DISK_BYTES", 0)
    tomo = add_tomogram(np.arange(120, dtype=np.uint8).reshape(4, 5, 6))
    path = tomo.collection.workspace
    assert _check(path, "free disk").state == "ok"
    monkeypatch.setattr(doctor, "largest_bytes", lambda folder: 10**15)
    check = _check(path, "free disk")
    assert (check.state, "the largest tomogram takes" in check.remedy) == ("warning", True)


def test_a_damaged_catalog_is_named(tmp_path: Path) -> None:
    path = create_collection(tmp_path / "c").workspace
    ledger_path(path).write_bytes(b"no database at all" * 300)
    check = _check(path, "catalog")
    assert (check.state, "ledger rebuild" in check.remedy) == ("warning", True)


def test_of_a_store_it_names_the_disk_that_products_are_made_on(
    tmp_path: Path, otzi: Otzi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTZI_SCRATCH", str(tmp_path / "scratch"))
    with s3_server() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        create_collection(f"s3://{BUCKET}/doctor")
        run = otzi("doctor", f"s3://{BUCKET}/doctor")
        assert run.code == 0
        assert "object store   0 tomograms" in run.out
        assert f"at {tmp_path}" in run.out
        assert otzi("doctor", f"s3://{BUCKET}/nothing").code == 2
