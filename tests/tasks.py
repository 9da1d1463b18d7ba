"""Functions that tests have other processes call: those find them by name."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

from otzi.errors import OutOfSpace

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["add", "environment", "full", "kill_once", "kill_worker", "leave_mark", "nap", "square"]


def square(x: int) -> int:
    return x * x


def add(*terms: int) -> int:
    return sum(terms)


def nap(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def full(x: int) -> int:
    if x == 3:
        raise OutOfSpace(f"no space left while writing {x}")
    return x


def leave_mark(folder: Path, name: object, *_: object) -> object:
    """Give the name, and add a dot to the file of that name."""
    with (folder / str(name)).open("a") as file:
        file.write(".")
    return name


def kill_worker(_: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def kill_once(work: tuple[int, Path]) -> int:
    """Give the square of a number; the worker that begins with 3 first is killed in it."""
    x, flag = work
    time.sleep(0.02)
    if x == 3 and not flag.exists():
        flag.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return x * x


def environment(names: tuple[str, ...]) -> tuple[int, list[str | None]]:
    """Give the process, and what it has in its environment."""
    return os.getpid(), [os.environ.get(name) for name in names]
