"""Memory: sizes as people write them, and what this process takes."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otzi.errors import UsageError
from otzi.memory import (
    PeakMemory,
    format_bytes,
    parse_bytes,
    peak_memory_bytes,
    resident_memory_bytes,
)


@pytest.mark.parametrize(
    ("text", "n_bytes"),
    [
        ("2GB", 2 * 10**9),
        ("512 MiB", 512 * 2**20),
        ("1000000", 10**6),
        ("1.5g", 15 * 10**8),
        ("3ti", 3 * 2**40),
        ("7B", 7),
    ],
)
def test_sizes_are_read_as_people_write_them(text: str, n_bytes: int) -> None:
    assert parse_bytes(text) == n_bytes


@pytest.mark.parametrize("text", ["", "0", "-1GB", "two", "1 PB", "GB", "1e9", "nan"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="write it as 2GB, 512MiB or a number of bytes"):
        parse_bytes(text)


@given(st.integers(1, 10**15))
def test_what_is_written_is_read_back_to_its_digits(n_bytes: int) -> None:
    assert parse_bytes(format_bytes(n_bytes)) == pytest.approx(n_bytes, rel=0.05, abs=500)


def test_the_peak_is_that_of_this_process_alone() -> None:
    large = np.ones(3 * 10**8, np.uint8)
    assert resident_memory_bytes() >= large.nbytes
    assert peak_memory_bytes() >= large.nbytes
    code = "from otzi.memory import peak_memory_bytes as p; print(p())"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(child.stdout) < large.nbytes / 2


def test_a_peak_is_counted_from_its_beginning() -> None:
    before = PeakMemory()
    large = np.ones(2 * 10**8, np.uint8)
    n_bytes = large.nbytes
    del large
    after = PeakMemory()
    if not after.is_since_start:
        pytest.skip("this system does not forget a peak")
    assert before.peak_bytes - after.peak_bytes > n_bytes / 2
    assert peak_memory_bytes() >= before.peak_bytes


def test_a_peak_of_a_system_that_forgets_nothing_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr("pathlib.Path.write_text", refuse)
    peak = PeakMemory()
    assert not peak.is_since_start
    assert peak.peak_bytes >= resident_memory_bytes() / 2
