"""Disks that are full or read-only under a run: nothing is half made, and all ends the same."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import numpy as np
import pytest

from mrc_files import mrc_bytes
from otzi.collection import open_collection
from otzi.ledger.audit import audit
from otzi.ledger.sqlite import ledger_path
from otzi.ledger.stages import read_stages

if TYPE_CHECKING:
    from pathlib import Path

    from commands import Otzi

pytestmark = pytest.mark.faults

PIPELINE = """
[run]
volumes = 1
[[stage]]
stage = "ingest"
sources = ["incoming"]
[[stage]]
stage = "view"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "incoming").mkdir()
    for n in range(3):
        volume = np.random.default_rng(n).integers(-90, 90, (40, 60, 60)).astype(np.int8)
        (tmp_path / "incoming" / f"ts_{n}.mrc").write_bytes(mrc_bytes(volume))
    (tmp_path / "p.toml").write_text(PIPELINE)
    return tmp_path


def _digests(path: Path) -> dict[str, str]:
    return {
        f"{tomo.id}/{product}": tomo.digest(product)
        for tomo in open_collection(path)
        for product in tomo.products
    }


def _fill(disk: Path, leave_bytes: int) -> None:
    status = subprocess.run(["stat", "-f", "-c", "%a %S", disk], capture_output=True, check=True)
    free, block = map(int, status.stdout.split())
    (disk / "ballast").write_bytes(bytes(max(0, free * block - leave_bytes)))


@pytest.mark.parametrize("leave_bytes", [0, 40_000, 400_000])
def test_a_full_disk_ends_the_run_and_the_next_one_goes_on(
    folder: Path, disk: Path, otzi: Otzi, leave_bytes: int
) -> None:
    assert otzi("run", folder / "unbroken", folder / "p.toml").code == 0
    assert otzi("run", disk / "c", folder / "p.toml", "--only", "ts_0").code == 0
    _fill(disk, leave_bytes)
    run = otzi("run", disk / "c", folder / "p.toml")
    assert run.code == 75, run.err
    assert "space" in run.err
    assert _digests(disk / "c").items() <= _digests(folder / "unbroken").items()
    (disk / "ballast").unlink()
    assert otzi("run", disk / "c", folder / "p.toml").code == 0
    assert _digests(disk / "c") == _digests(folder / "unbroken")
    assert audit(disk / "c").findings == []
    assert {row.state for row in read_stages(disk / "c")} == {"committed"}


def test_a_full_disk_under_the_ledger_alone_is_as_harmless(
    folder: Path, disk: Path, otzi: Otzi, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert otzi("run", folder / "unbroken", folder / "p.toml").code == 0
    monkeypatch.setenv("OTZI_LEDGER", str(disk / "ledger"))
    assert otzi("run", folder / "c", folder / "p.toml", "--only", "ts_0").code == 0
    assert ledger_path(folder / "c").is_relative_to(disk)
    _fill(disk, 0)
    assert otzi("run", folder / "c", folder / "p.toml").code == 75
    assert _digests(folder / "c").items() <= _digests(folder / "unbroken").items()
    (disk / "ballast").unlink()
    assert otzi("run", folder / "c", folder / "p.toml").code == 0
    assert _digests(folder / "c") == _digests(folder / "unbroken")


def test_a_read_only_collection_is_exit_code_77(folder: Path, disk: Path, otzi: Otzi) -> None:
    assert otzi("run", disk / "c", folder / "p.toml", "--only", "ts_0").code == 0
    before = _digests(disk / "c")
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    assert otzi("run", disk / "c", folder / "p.toml").code == 77
    assert otzi("run", disk / "c", folder / "p.toml", "--dry-run").code == 0
    assert _digests(disk / "c") == before
