"""Ends that are asked for: noted, told to the work at its next step, and the old ways put back."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from otzi.errors import Stopped
from otzi.events import Event, Noted
from otzi.stopping import Stop, stopping


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 3), (signal.SIGHUP, 3), (signal.SIGINT, 130)]
)
def test_a_signal_ends_the_work_at_its_next_step(number: signal.Signals, code: int) -> None:
    heard: list[Event] = []
    before = signal.getsignal(number)
    with stopping() as stop:
        listen = stop.listening(heard.append)
        listen(Noted("one"))
        os.kill(os.getpid(), number)
        assert stop.asked.wait(5)
        with pytest.raises(Stopped, match=number.name):
            listen(Noted("two"))
        assert stop.exit_code(work_remains=True) == code
        assert stop.exit_code(work_remains=False) == (130 if code == 130 else 0)
    assert heard == [Noted("one"), Noted("two")]
    assert signal.getsignal(number) is before


def test_whoever_interrupts_twice_does_not_wait() -> None:
    stop = Stop()
    for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT):
        stop.ask(number)
    with pytest.raises(KeyboardInterrupt):
        stop.ask(signal.SIGINT)
    assert stop.by is signal.SIGINT


def test_in_another_thread_signals_are_left_alone() -> None:
    before = signal.getsignal(signal.SIGTERM)
    found: list[Stop] = []

    def work() -> None:
        with stopping() as stop:
            found.append(stop)
            assert signal.getsignal(signal.SIGTERM) is before

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not found[0].asked.is_set()
    found[0].check()
