"""The command line: data to standard output, one line of error, the promised exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest

from otzi import errors
from otzi.console import Console
from otzi.errors import OtziError
from otzi.events import step

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from commands import Otzi
    from otzi.tomogram import Tomogram

VOLUME = np.random.default_rng(0).normal(0, 9, (70, 8, 9)).astype(np.float32)


def test_verbs_are_listed_with_what_they_do(otzi: Otzi) -> None:
    run = otzi("--help")
    assert run.code == 0
    assert "List the tomograms of a collection" in run.out
    assert otzi("--version").out.startswith("otzi 0.")


def test_ls_info_and_path(add_tomogram: Callable[..., Tomogram], otzi: Otzi) -> None:
    tomo = add_tomogram(VOLUME)
    collection = tomo.collection.path
    listed = otzi("ls", collection)
    assert listed.out == "ts_001  70 × 8 × 9  10 Å  raw\n"
    document = json.loads(otzi("ls", collection, "--json").out)
    assert document["tomograms"][0]["shape"] == [70, 8, 9]
    info = json.loads(otzi("info", collection, "ts_001", "--json").out)
    assert info["products"]["raw"]["digest"] == tomo.digest("raw")
    assert "standard_deviation" in otzi("info", collection, "ts_001").out
    assert otzi("path", collection, "ts_001", "raw").out == f"{tomo.path('raw')}\n"


def test_an_error_is_one_line_on_standard_error(tmp_path: Path, otzi: Otzi) -> None:
    run = otzi("ls", tmp_path / "nowhere")
    assert (run.code, run.out) == (2, "")
    assert run.err.startswith("otzi: no collection at")
    assert len(run.err.splitlines()) == 1
    assert otzi("ls", tmp_path).code == 78
    assert "Traceback" in otzi("ls", tmp_path, "-v").err


def test_unknown_verbs_and_options_are_usage_errors(tmp_path: Path, otzi: Otzi) -> None:
    assert otzi("sl", tmp_path).code == 2
    assert otzi("ls", tmp_path, "--colour").code == 2
    assert otzi("ls").code == 2


def _all_errors(kind: type[OtziError]) -> list[type[OtziError]]:
    return [kind, *(e for sub in kind.__subclasses__() for e in _all_errors(sub))]


@pytest.mark.parametrize("kind", _all_errors(OtziError)[1:])
def test_each_error_is_a_builtins_too_and_drawn_in_the_tree(kind: type[OtziError]) -> None:
    builtin = [b for b in kind.__mro__ if b.__module__ == "builtins"]
    assert set(builtin) - {Exception, BaseException, object}
    line = next(line for line in errors.__doc__.splitlines() if f" {kind.__name__} " in line)
    assert f" {kind.exit_code} " in line
    assert any(f" {b.__name__} " in line for b in builtin)


def test_progress_is_one_line_for_each_stage_off_a_terminal(
    capfd: pytest.CaptureFixture[str],
) -> None:
    console = Console()
    with step(console, "outer", 2) as work:
        work.advance()
        with step(console, "inner"):
            pass
    out, err = capfd.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert err.startswith("outer")


def test_quiet_says_only_what_went_wrong(capfd: pytest.CaptureFixture[str]) -> None:
    console = Console(verbosity=-1)
    console.say("chatter")
    with step(console, "work"):
        pass
    assert capfd.readouterr().err == ""
    console.error("trouble")
    assert capfd.readouterr().err == "otzi: trouble\n"


def test_output_is_plain_where_it_is_piped(add_tomogram: Callable[..., Tomogram]) -> None:
    path = add_tomogram(VOLUME).collection.path
    command = [sys.executable, "-m", "otzi", "info", str(path), "ts_002"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert "\x1b" not in run.stderr
    assert "there are ts_001" in run.stderr
