"""Shared fixtures, and the rule that a missing part fails where it is required."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import dask.array as da
import numpy as np
import pytest
from hypothesis import settings

from commands import Run
from otzi.cli import main
from otzi.collection import Collection, create_collection

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from commands import Otzi
    from otzi.tomogram import Tomogram

SPACING_ANGSTROM = (20.0, 10.0, 10.0)
_DISK_BYTES = 8 << 20

# How long an example takes says more of the machine than of the code.
settings.register_profile("otzi", deadline=None)
settings.load_profile("otzi")


def require(part: str, reason: str) -> None:
    """Skip with the reason, or fail where ``OTZI_REQUIRE`` names the part."""
    if part in os.environ.get("OTZI_REQUIRE", "").split(","):
        pytest.fail(f"{part} is required here: {reason}")
    pytest.skip(reason)


@pytest.fixture(name="require", scope="session")
def _require() -> Callable[[str, str], None]:
    return require


@pytest.fixture
def collection(tmp_path: Path) -> Collection:
    return create_collection(tmp_path / "collection", ("background", "membrane", "lumen"))


@pytest.fixture
def add_tomogram(collection: Collection) -> Callable[..., Tomogram]:
    """Give a function that publishes an array as a new tomogram's ``raw``."""

    def add(volume: NDArray[np.generic], name: str = "ts_001") -> Tomogram:
        tomo = collection.add(name)
        values = volume.astype(np.float64)
        low, middle, high = (float(v) for v in np.percentile(values, (0.1, 50, 99.9)))
        statistics = {
            "minimum": float(values.min()),
            "maximum": float(values.max()),
            "mean": float(values.mean()),
            "standard_deviation": float(values.std()),
            "percentiles": {
                **dict.fromkeys(("0.1", "0.5", "1"), low),
                "50": middle,
                **dict.fromkeys(("99", "99.5", "99.9"), high),
            },
            "nonfinite_voxels": 0,
            "empty_voxels": 0,
        }
        with tomo.write(
            "raw",
            dtype=volume.dtype,
            shape=volume.shape,
            spacing_angstrom=SPACING_ANGSTROM,
            recipe={"made": "by a test"},
        ) as writer:
            da.store(da.from_array(volume, chunks=64), writer, lock=False)
            writer.attributes["statistics"] = statistics
        return collection[name]

    return add


@pytest.fixture
def disk(tmp_path: Path, require: Callable[[str, str], None]) -> Iterator[Path]:
    """Give a file system of 8 MiB of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={_DISK_BYTES}", "tmpfs", str(folder)]
    is_there = shutil.which("mount") is not None and os.geteuid() == 0
    run = subprocess.run(command, capture_output=True, check=False) if is_there else None
    if run is None or run.returncode:
        why = run.stderr.decode().strip() if run else "it takes root and the command mount"
        require("mount", f"no tmpfs can be mounted: {why}")
    try:
        yield folder
    finally:
        # Lazily: shards that were read stay open.
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def otzi(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Otzi:
    """Give a function that runs ``otzi WORDS…`` and returns exit code, output and errors."""

    def run(*words: object) -> Run:
        monkeypatch.setattr(sys, "argv", ["otzi", *map(str, words)])
        monkeypatch.setenv("COLUMNS", "200")
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capfd.readouterr()
        return Run(int(ended.value.code or 0), out, err)

    return run
