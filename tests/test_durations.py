"""Times as people read them."""

from __future__ import annotations

import pytest

from otzi.durations import format_seconds


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (99, "99 s"), (150, "2 min"), (19_230, "5 h 20 min")]
)
def test_times_are_readable(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text
