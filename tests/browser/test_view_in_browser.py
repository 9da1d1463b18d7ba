"""`otzi view` as people run it: a process, an address, a page."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from browser.driver import Browser
    from otzi.tomogram import Tomogram

pytestmark = pytest.mark.browser

SECONDS = 120


def _is_colored(page: Browser) -> bool:
    """Tell whether the upper left panel has classes: Neuroglancer's own shader is grey."""
    picture = page.picture().astype(int)
    rows, columns, _ = picture.shape
    panel = picture[80 : rows // 2, : columns // 4]
    return bool((np.ptp(panel, axis=-1) > 40).mean() > 0.01)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Have Ctrl-C reach a new process even where a shell runs the tests in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize(("by", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_the_page_of_the_command_loads(
    by: signal.Signals, code: int, page: Browser, virion_tomogram: Tomogram, tmp_path: Path
) -> None:
    folder = str(virion_tomogram.collection.path)
    errors = tmp_path / "errors"
    command = [sys.executable, "-m", "otzi", "view", folder, "--no-browser", "--json"]
    with (
        errors.open("w") as stderr,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True) as process,
    ):
        try:
            assert process.stdout is not None
            document = json.loads("".join(iter(process.stdout.readline, "}\n")) + "}")
            assert document["tomograms"] == ["virion"]
            page.open(document["url"])
            page.wait_for("the title", lambda: page.driver.title.startswith("virion"), SECONDS)
            page.wait_for("classes", lambda: _is_colored(page), SECONDS)
            process.send_signal(by)
            assert process.wait(SECONDS) == code
        finally:
            process.kill()
    assert "Traceback" not in errors.read_text()
