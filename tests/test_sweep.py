"""The sweep: litter goes, what is held or published stays."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest

from otzi.collection import open_collection
from otzi.ledger.audit import audit
from otzi.ledger.sqlite import ledger_path
from otzi.ledger.staging import staged_work
from otzi.ledger.sweep import Sweep, sweep

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from otzi.tomogram import Tomogram

VOLUME = np.random.default_rng(4).integers(-99, 99, (300, 70, 9)).astype(np.int8)

WRITER = """
import sys, numpy as np, otzi
tomo = otzi.open_collection(sys.argv[1], mode="r+").add("ts_002")
volume = np.ones((300, 70, 9), np.int8)
with tomo.write(
    "raw", dtype="int8", shape=volume.shape, spacing_angstrom=(1, 1, 1), recipe={}
) as writer:
    writer[0:256, 0:70, 0:9] = volume[:256]
    print("begun", flush=True)
    sys.stdin.readline()
    writer[256:300, 0:70, 0:9] = volume[256:]
"""


@pytest.fixture
def tomo(add_tomogram: Callable[..., Tomogram]) -> Tomogram:
    return add_tomogram(VOLUME)


@pytest.fixture
def writer(tomo: Tomogram) -> Iterator[subprocess.Popen[str]]:
    """A process that has written one shard of two, and waits for a line."""
    command = [sys.executable, "-c", WRITER, str(tomo.collection.path)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        yield process
        process.kill()


def _what(swept: Sweep, collection: Path) -> dict[str, str]:
    return {item.path.relative_to(collection).as_posix(): item.what for item in swept.litter}


def _tree(folder: Path) -> dict[str, int]:
    return {
        str(path): path.stat().st_mtime_ns
        for path in folder.rglob("*")
        if path.is_file() and "catalog.sqlite" not in path.name
    }


def test_nothing_of_a_clean_collection_goes(tomo: Tomogram) -> None:
    assert sweep(tomo.collection.path) == Sweep((), ())
    assert audit(tomo.collection.path).findings == []


def test_a_live_writer_is_left_alone(tomo: Tomogram, writer: subprocess.Popen[str]) -> None:
    path = tomo.collection.path
    swept = sweep(path)
    assert swept == Sweep((), ("tomograms.ts_002.raw",))
    (work,) = staged_work(path)
    assert work.target == ("ts_002", "raw")
    assert (work.is_held, work.n_shards_done) == (True, 1)
    n_shards = sum("/c/" in name for name in tomo.manifest("raw"))
    assert work.n_shards == n_shards
    writer.communicate("go on\n")
    assert writer.returncode == 0
    assert open_collection(path)["ts_002"].array("raw")[...].all()
    assert sweep(path) == Sweep((), ())
    assert audit(path).findings == []


def test_interrupted_work_goes_once_nobody_holds_it(
    tomo: Tomogram, writer: subprocess.Popen[str]
) -> None:
    path = tomo.collection.path
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    before = _tree(path)
    looked = sweep(path, dry_run=True)
    assert _tree(path) == before
    assert _what(looked, path) == {
        ".staging/tomograms.ts_002.raw": "interrupted work",
        ".staging/tomograms.ts_002.raw.journal": "interrupted work",
        ".staging/tomograms.ts_002.raw.lock": "unused lock",
    }
    on_disk = [p.stat().st_size for p in (path / ".staging").rglob("*") if p.is_file()]
    assert looked.n_bytes == sum(on_disk) > 0
    assert sweep(path) == looked
    assert not list((path / ".staging").iterdir())
    assert audit(path).findings == []


def test_a_generation_that_nothing_points_at_goes(tomo: Tomogram) -> None:
    path = tomo.collection.path
    shutil.copytree(tomo.path("raw"), tomo.folder / "raw" / "7")
    shutil.copytree(tomo.path("raw"), tomo.folder / "view" / "1")
    assert _what(sweep(path), path) == {
        "tomograms/ts_001/raw/7": "orphaned generation",
        "tomograms/ts_001/view/1": "orphaned generation",
    }
    assert tomo.path("raw").is_dir()
    assert audit(path).findings == []


@pytest.mark.parametrize("text", ["", '{"attributes": {"otzi": {"current": "3"}}}', None])
@pytest.mark.parametrize("has_catalog", [True, False])
def test_a_damaged_pointer_costs_no_generation(
    tomo: Tomogram, text: str | None, has_catalog: bool
) -> None:
    pointer = tomo.folder / "raw" / "zarr.json"
    if text is None:
        pointer.unlink()
    else:
        pointer.write_text(text)
    if not has_catalog:
        ledger_path(tomo.collection.path).unlink()
    assert sweep(tomo.collection.path) == Sweep((), ())
    assert (tomo.folder / "raw" / "1" / "manifest.json").is_file()


def test_what_kills_left_beside_the_staging_folder_goes(tomo: Tomogram) -> None:
    staging = tomo.collection.path / ".staging"
    names = [f"tomograms.ts_009.raw{end}" for end in (".journal", ".journal.7-8.partial", ".lock")]
    for name in names:
        (staging / name).write_text("")
    assert [work.target for work in staged_work(tomo.collection.path)] == [("ts_009", "raw")]
    assert set(_what(sweep(tomo.collection.path), staging)) == set(names)
    assert not list(staging.iterdir())


def test_half_files_go_when_they_are_old(tomo: Tomogram) -> None:
    path = tomo.collection.path
    old = tomo.folder / "zarr.json.partial"
    new = path / "zarr.json.partial"
    for half in (old, new):
        half.write_text("{")
    os.utime(old, (0, time.time() - 7200))
    assert _what(sweep(path), path) == {"tomograms/ts_001/zarr.json.partial": "half a file"}
    assert new.exists()
    assert not old.exists()


def test_names_with_dots_are_told_apart(tomo: Tomogram) -> None:
    staging = tomo.collection.path / ".staging"
    for name in ("ts.1.raw.probs.net.v2", "raw.raw", "a.b.view"):
        (staging / f"tomograms.{name}").mkdir(parents=True)
    assert [work.target for work in staged_work(tomo.collection.path)] == [
        ("a.b", "view"),
        ("raw", "raw"),
        ("ts.1.raw", "probs/net.v2"),
    ]
