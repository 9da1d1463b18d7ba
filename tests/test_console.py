"""What a person is told while work goes on, on a terminal and beside one."""

from __future__ import annotations

import io

import pytest
from rich.console import Console as RichConsole

from otzi.console import Console
from otzi.events import step


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_terminal_shows_how_much_time_is_left(is_terminal: bool) -> None:
    console, seen = Console(), io.StringIO()
    console._err = RichConsole(file=seen, force_terminal=is_terminal, width=120)
    with step(console, "frames", 8, "frames") as work:
        work.advance(4)
        bars = console._bars
        assert (bars is not None) == is_terminal
        if bars is not None:
            bars.refresh()
    text = seen.getvalue()
    assert ("4/8" in text and "left" in text) == is_terminal
    assert "peak memory" in text
