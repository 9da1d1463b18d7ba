"""Disks that are full or read-only: told by exit code, nothing half-made seen, a later run ends."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import numpy as np
import pytest

from mrc_files import mrc_bytes
from otzi.collection import open_collection
from otzi.errors import AccessDenied, OutOfSpace
from otzi.ledger.audit import audit
from otzi_pipelines.ingest.batch import ingest

if TYPE_CHECKING:
    from pathlib import Path

    from commands import Otzi

pytestmark = pytest.mark.faults

VOLUME = np.random.default_rng(3).integers(-99, 99, (140, 90, 90)).astype(np.int16)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "b.mrc"
    path.write_bytes(mrc_bytes(VOLUME))
    return path


@pytest.mark.parametrize("share", [0.01, 0.3, 0.9, 0.999, 1.03])
def test_a_disk_that_fills_up_leaves_nothing_half_made(
    disk: Path, source: Path, share: float, otzi: Otzi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`share` of what the product takes is free, though there was enough at the first look."""
    ingest(source.parent / "unbroken", [source])
    unbroken = open_collection(source.parent / "unbroken")["b"]
    needed_bytes = sum(n_bytes for n_bytes, _ in unbroken.manifest("raw").values())
    small = source.with_name("a.mrc")
    small.write_bytes(mrc_bytes(VOLUME[:20]))
    assert otzi("ingest", disk / "c", small).code == 0
    enough = shutil.disk_usage(disk)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda folder: enough)
        (disk / "ballast").write_bytes(bytes(enough.free - int(share * needed_bytes)))
        run = otzi("ingest", disk / "c", source)
    assert run.code == OutOfSpace.exit_code
    assert "no space left" in run.err
    assert str(disk) in run.err
    seen = open_collection(disk / "c")
    assert seen.ids in (("a",), ("a", "b"))
    for tomo in seen:
        np.testing.assert_array_equal(tomo.raw, {"a": VOLUME[:20], "b": VOLUME}[tomo.id])
    assert not [path for path in (disk / "c" / ".staging").iterdir() if path.is_dir()]
    (disk / "ballast").unlink()
    # A product that is whole may lack its rows, for which there was no room.
    assert {finding.path for finding in audit(disk / "c").findings} <= {"catalog.sqlite"}
    assert otzi("ingest", disk / "c", source).code == 0
    assert open_collection(disk / "c")["b"].digest("raw") == unbroken.digest("raw")
    assert audit(disk / "c").findings == []


def test_a_full_disk_is_read(disk: Path, source: Path, otzi: Otzi) -> None:
    """Not a byte is left for the files that SQLite wants beside a catalog even to read it."""
    assert otzi("ingest", disk / "c", source).code == 0
    (disk / "ballast").write_bytes(bytes(shutil.disk_usage(disk).free))
    for verb, says in (("ls", "b  140"), ("status", "1 published"), ("verify", "0 damaged")):
        run = otzi(verb, disk / "c")
        assert (run.code, says in run.out) == (0, True), run
    (disk / "ballast").unlink()
    assert otzi("ingest", disk / "c", source).code == 0


def test_a_read_only_disk_is_read_and_named(disk: Path, source: Path, otzi: Otzi) -> None:
    assert otzi("ingest", disk / "c", source).code == 0
    other = source.with_name("a.mrc")
    other.write_bytes(mrc_bytes(VOLUME[:20]))
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    for collection in (disk / "c", disk / "new"):
        run = otzi("ingest", collection, other)
        assert run.code == AccessDenied.exit_code
        assert str(disk) in run.err
    assert sorted(path.name for path in disk.iterdir()) == ["c"]
    np.testing.assert_array_equal(open_collection(disk / "c")["b"].raw, VOLUME)
    for verb, says in (("ls", "b  140"), ("status", "1 published"), ("verify", "0 damaged")):
        run = otzi(verb, disk / "c")
        assert (run.code, says in run.out) == (0, True), run
