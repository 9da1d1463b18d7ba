"""The catalog: every row follows from the tree, none is lost, and none lies on a network disk."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from otzi import filesystem
from otzi.collection import create_collection, open_collection
from otzi.errors import ConfigurationError, VerificationError
from otzi.filesystem import file_system, is_network
from otzi.ledger.rebuild import rebuild
from otzi.ledger.sqlite import ledger_path, open_catalog, read_catalog
from otzi.ledger.tables import _MIGRATIONS

if TYPE_CHECKING:
    from collections.abc import Callable

    from commands import Otzi
    from otzi.collection import Collection
    from otzi.tomogram import Tomogram

VOLUME = np.random.default_rng(3).normal(0, 90, (66, 70, 9)).astype(np.int16)
MOUNT = "36 {n} 0:{n} / {point} rw,relatime shared:1 - {kind} server:/x rw\n"

PUBLISHER = """
import sys, numpy as np, otzi
col = otzi.open_collection(sys.argv[1], mode="r+")
for number in sys.argv[2:]:
    with col.add(f"ts_{number}").write(
        "raw", dtype="int8", shape=(4, 5, 6), spacing_angstrom=(1, 1, 1), recipe={}
    ) as writer:
        writer[0:4, 0:5, 0:6] = np.full((4, 5, 6), int(number), np.int8)
"""


def _dump(collection: Path) -> list[str]:
    with closing(sqlite3.connect(ledger_path(collection))) as connection:
        return list(connection.iterdump())


def _known(collection: Path) -> set[tuple[str, str]]:
    with read_catalog(collection) as catalog:
        assert catalog is not None
        assert catalog.problems() == []
        return set(catalog.digests())


def _publish_labels(tomo: Tomogram, value: int = 1) -> None:
    with tomo.write(
        "labels/hand", dtype="uint8", downsample="mode", recipe={"by": "hand"}, parents=("raw",)
    ) as writer:
        writer[0:66, 0:70, 0:9] = np.full(VOLUME.shape, value, np.uint8)


def _put_on(kind: str, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Have a folder, and what is below, on a file system of this kind."""
    mounts = tmp_path / "mountinfo"
    root = MOUNT.format(n=1, point="/", kind="ext4")
    point = str(folder.resolve()).replace(" ", r"\040")
    mounts.write_text(root + MOUNT.format(n=2, point=point, kind=kind))
    monkeypatch.setattr(filesystem, "_MOUNTS", mounts)


def test_every_publish_has_its_rows(add_tomogram: Callable[..., Tomogram]) -> None:
    tomo = add_tomogram(VOLUME)
    _publish_labels(tomo)
    with read_catalog(tomo.collection.path) as catalog:
        assert catalog is not None
        assert catalog.attributes is not None
        assert len(catalog.attributes["classes"]) == 3
        rows = catalog.rows("ts_001", "labels/hand")
        (volume,) = catalog.rows("ts_001", "raw")["tomogram"]
    assert volume[:7] == ("ts_001", 66, 70, 9, 20.0, 10.0, 10.0)
    assert rows["parent"] == [("ts_001", "labels/hand", "raw", tomo.digest("raw"))]
    (product,) = rows["product"]
    assert product[3:9] == (
        tomo.digest("labels/hand"), "labels", '{"by": "hand"}', "[66, 70, 9]", "uint8", 2,
    )  # fmt: skip
    manifest = tomo.manifest("labels/hand")
    assert {path: (n_bytes, crc) for _, _, path, n_bytes, crc, _ in rows["file"]} == manifest
    texts = {path: content for *_, path, _, _, content in rows["file"] if content is not None}
    assert texts == {
        name: (tomo.path("labels/hand") / name).read_text()
        for name in ("zarr.json", "0/zarr.json", "1/zarr.json")
    }


def test_a_rebuilt_catalog_is_the_one_that_was_lost(
    add_tomogram: Callable[..., Tomogram], otzi: Otzi
) -> None:
    for name in ("b", "a"):
        _publish_labels(add_tomogram(VOLUME, name))
    path = add_tomogram(VOLUME + 1, "b").collection.path
    before = _dump(path)
    assert sum("INSERT" in line for line in before) > 20
    ledger_path(path).unlink()
    assert open_collection(path)["a"].has("raw")
    assert otzi("ledger", "rebuild", path).code == 0
    assert _dump(path) == before
    assert otzi("ledger", "rebuild", path).code == 0
    assert _dump(path) == before


def test_a_lost_catalog_comes_back_with_the_next_publish(
    add_tomogram: Callable[..., Tomogram],
) -> None:
    path = add_tomogram(VOLUME, "a").collection.path
    ledger_path(path).unlink()
    add_tomogram(VOLUME, "b")
    before = _dump(path)
    ledger_path(path).unlink()
    rebuild(path)
    assert _dump(path) == before


@pytest.mark.faults
def test_a_kill_between_pointer_and_row_is_healed_by_the_next_writer(
    collection: Collection,
) -> None:
    command = [sys.executable, "-c", PUBLISHER, str(collection.path), "7"]
    environment = os.environ | {"OTZI_FAIL_AT": "pointer-written"}
    run = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert run.returncode == -signal.SIGKILL, run.stderr
    assert open_collection(collection.path).ids == ("ts_7",)
    assert _known(collection.path) == set()
    open_collection(collection.path, mode="r+")
    assert _known(collection.path) == {("ts_7", "raw")}


def test_what_is_removed_by_hand_is_forgotten(add_tomogram: Callable[..., Tomogram]) -> None:
    path = add_tomogram(VOLUME, "a").collection.path
    _publish_labels(add_tomogram(VOLUME, "b"))
    shutil.rmtree(path / "tomograms" / "b" / "raw")
    open_collection(path, mode="r+")
    assert _known(path) == {("a", "raw"), ("b", "labels/hand")}
    shutil.rmtree(path / "tomograms" / "b")
    open_collection(path, mode="r+")
    assert _known(path) == {("a", "raw")}
    before = _dump(path)
    ledger_path(path).unlink()
    rebuild(path)
    assert _dump(path) == before


def test_processes_that_publish_at_once_lose_no_row(collection: Collection) -> None:
    ledger_path(collection.path).unlink()
    numbers = [[str(10 * process + i) for i in range(4)] for process in range(3)]
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", PUBLISHER, str(collection.path), *some], stderr=subprocess.PIPE
        )
        for some in numbers
    ]
    for writer in writers:
        _, err = writer.communicate()
        assert writer.returncode == 0, err.decode()
    expected = {(f"ts_{number}", "raw") for some in numbers for number in some}
    assert _known(collection.path) == expected
    before = _dump(collection.path)
    ledger_path(collection.path).unlink()
    rebuild(collection.path)
    assert _dump(collection.path) == before


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "lustre", "gpfs", "9p", "fuse.sshfs"])
def test_a_network_disk_is_read_but_not_written(
    kind: str,
    add_tomogram: Callable[..., Tomogram],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    otzi: Otzi,
) -> None:
    path = add_tomogram(VOLUME).collection.path
    ledger_path(path).unlink()
    _put_on(kind, path, monkeypatch, tmp_path)
    np.testing.assert_array_equal(open_collection(path)["ts_001"].raw, VOLUME)
    assert otzi("verify", path).code == 0
    with pytest.raises(ConfigurationError, match=f"network file system .{kind}.*OTZI_LEDGER"):
        open_collection(path, mode="r+")
    with pytest.raises(ConfigurationError), add_tomogram(VOLUME).stage("strokes", recipe={}):
        pass
    with pytest.raises(ConfigurationError):
        create_collection(path / "another")
    assert not (path / "another").exists()
    assert not ledger_path(path).exists()
    assert otzi("ledger", "rebuild", path).code == 78


def test_a_network_disk_is_written_with_the_catalog_elsewhere(
    add_tomogram: Callable[..., Tomogram], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = add_tomogram(VOLUME).collection.path
    ledger_path(path).unlink()
    _put_on("nfs4", path, monkeypatch, tmp_path)
    monkeypatch.setenv("OTZI_LEDGER", str(tmp_path / "local" / "ledgers"))
    _publish_labels(open_collection(path, mode="r+")["ts_001"])
    assert _known(path) == {("ts_001", "raw"), ("ts_001", "labels/hand")}
    assert ledger_path(path).parent == tmp_path / "local" / "ledgers"
    assert not (path / "catalog.sqlite").exists()
    other = create_collection(tmp_path / "other" / path.name)
    assert ledger_path(other.path) != ledger_path(path)
    assert _known(other.path) == set()


def test_local_disks_are_no_network(tmp_path: Path) -> None:
    for kind in ("ext4", "xfs", "btrfs", "zfs", "tmpfs", "overlay", "fuseblk", "fuse.mergerfs", ""):
        assert not is_network(kind)
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        MOUNT.format(n=1, point="/", kind="ext4")
        + MOUNT.format(n=2, point=r"/data\040sets", kind="ext4")
        + MOUNT.format(n=3, point=r"/data\040sets", kind="nfs4")
        + MOUNT.format(n=4, point=r"/data\040sets/scratch", kind="xfs")
    )
    assert file_system(Path("/data sets/c"), mounts) == "nfs4"
    assert file_system(Path("/data sets/scratch/c"), mounts) == "xfs"
    assert file_system(Path("/data setsx/c"), mounts) == "ext4"
    assert file_system(Path("/c"), tmp_path / "nowhere") == ""


def test_a_catalog_of_a_later_otzi_is_refused(add_tomogram: Callable[..., Tomogram]) -> None:
    path = add_tomogram(VOLUME).collection.path
    with closing(sqlite3.connect(ledger_path(path))) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(ConfigurationError, match="version 99"):
        open_collection(path, mode="r+")
    np.testing.assert_array_equal(open_collection(path)["ts_001"].raw, VOLUME)


def test_a_damaged_catalog_is_named_and_rebuilt(
    add_tomogram: Callable[..., Tomogram], otzi: Otzi
) -> None:
    path = add_tomogram(VOLUME).collection.path
    before = _dump(path)
    ledger_path(path).write_bytes(b"no database at all" * 300)
    with pytest.raises(VerificationError, match="ledger rebuild"):
        open_collection(path, mode="r+")
    assert otzi("ledger", "rebuild", path).code == 0
    assert _dump(path) == before


def test_a_rebuild_keeps_the_rows_of_what_it_cannot_read(
    add_tomogram: Callable[..., Tomogram], otzi: Otzi
) -> None:
    """They may be all that is left to mend it with."""
    tomo = add_tomogram(VOLUME)
    before = _dump(tomo.collection.path)
    (tomo.path("raw") / "manifest.json").write_text("gone")
    run = otzi("ledger", "rebuild", tomo.collection.path)
    assert run.code == 4
    assert "manifest" in run.err or "metadata" in run.err
    assert _dump(tomo.collection.path) == before


def test_the_catalog_is_written_ahead_and_synced(collection: Collection) -> None:
    with open_catalog(collection.path) as catalog:
        run = catalog._connection.execute
        assert run("PRAGMA journal_mode").fetchone() == ("wal",)
        assert run("PRAGMA synchronous").fetchone() == (2,)
        assert run("PRAGMA foreign_keys").fetchone() == (1,)
        assert run("PRAGMA user_version").fetchone() == (len(_MIGRATIONS),)
