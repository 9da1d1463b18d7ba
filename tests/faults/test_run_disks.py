"""Disks that are full, read-only, closed or broken under a run: all that can be is made, whole."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
import sys
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pytest

from invariants import content, published
from otzi.ledger.sqlite import ledger_path
from otzi.ledger.stages import read_stages

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from commands import Otzi
    from conftest import World

pytestmark = pytest.mark.faults


def _fill(disk: Path, leave_bytes: int) -> None:
    status = subprocess.run(["stat", "-f", "-c", "%a %S", disk], capture_output=True, check=True)
    free, block = map(int, status.stdout.split())
    (disk / "ballast").write_bytes(bytes(max(0, free * block - leave_bytes)))


# Row 6: no space


@pytest.mark.parametrize("leave_bytes", [0, 40_000, 400_000])
def test_a_full_disk_ends_the_run_and_the_next_one_goes_on(
    world: World, disk: Path, otzi: Otzi, leave_bytes: int
) -> None:
    assert otzi("run", disk / "c", world.pipeline, "--only", "ts_0").code == 0
    _fill(disk, leave_bytes)
    run = otzi("run", disk / "c", world.pipeline)
    assert run.code == 75, run.err
    assert "space" in run.err
    world.undisturbed.holds(disk / "c", is_over=False)
    assert "leased" not in {row.state for row in read_stages(disk / "c")}
    (disk / "ballast").unlink()
    assert otzi("run", disk / "c", world.pipeline).code == 0
    world.undisturbed.holds(disk / "c")
    assert {row.state for row in read_stages(disk / "c")} == {"committed"}


def test_a_full_disk_under_the_ledger_alone_is_as_harmless(
    world: World, disk: Path, tmp_path: Path, otzi: Otzi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTZI_LEDGER", str(disk / "ledger"))
    path = tmp_path / "c"
    assert otzi("run", path, world.pipeline, "--only", "ts_0").code == 0
    assert ledger_path(path).is_relative_to(disk)
    _fill(disk, 0)
    assert otzi("run", path, world.pipeline).code == 75
    world.undisturbed.holds(path, is_over=False)
    (disk / "ballast").unlink()
    assert otzi("run", path, world.pipeline).code == 0
    world.undisturbed.holds(path)


# Row 7: read-only, closed, broken


def test_a_read_only_collection_is_exit_code_77(world: World, disk: Path, otzi: Otzi) -> None:
    assert otzi("run", disk / "c", world.pipeline, "--only", "ts_0").code == 0
    before = published(disk / "c")
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    assert otzi("run", disk / "c", world.pipeline).code == 77
    assert otzi("run", disk / "c", world.pipeline, "--dry-run").code == 0
    assert published(disk / "c") == before
    world.undisturbed.holds(disk / "c", is_over=False)
    subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
    assert otzi("run", disk / "c", world.pipeline).code == 0
    world.undisturbed.holds(disk / "c")


@pytest.fixture
def bad_disk(tmp_path: Path, require: Callable[[str, str], None]) -> Iterator[Path]:
    """Give a file system within the file ``bad.img``; it is bad when the end of that is cut off."""
    image, folder = tmp_path / "bad.img", tmp_path / "bad"
    folder.mkdir()
    image.write_bytes(bytes(4 << 20))
    commands = [["mkfs.ext2", "-q", "-F", image], ["mount", "-o", "loop", image, folder]]
    for command in commands:
        is_there = shutil.which(str(command[0])) is not None and os.geteuid() == 0
        if not is_there or subprocess.run(command, capture_output=True, check=False).returncode:
            require("loop", f"no file system can be made in a file: {command[0]} fails")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_source_on_a_broken_disk_holds_nobody_up(
    world: World, bad_disk: Path, tmp_path: Path, otzi: Otzi
) -> None:
    """The disk's own EIO: the file is tried as often as any, left out, and taken once mended."""
    image, source = tmp_path / "bad.img", world.sources / "ts_1.mrc"
    (bad_disk / "ts_1.mrc").write_bytes(source.read_bytes())
    shutil.copystat(source, bad_disk / "ts_1.mrc")
    source.unlink()
    source.symlink_to(bad_disk / "ts_1.mrc")
    os.sync()
    whole = image.read_bytes()
    os.truncate(image, len(whole) // 8)
    with source.open("rb") as file:  # what the system remembers of it
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    run = otzi("run", tmp_path / "c", world.pipeline)
    assert run.code == 5, run.err
    assert os.strerror(errno.EIO) in run.err
    rows = {row.tomogram: row for row in read_stages(tmp_path / "c") if row.stage == "ingest"}
    assert (rows["ts_1"].state, rows["ts_1"].attempt) == ("quarantined", 3)
    assert published(tmp_path / "c").keys() == {
        f"{id_}/{product}" for id_ in ("ts_0", "ts_2") for product in ("raw", "view")
    }
    image.write_bytes(whole)
    assert otzi("run", tmp_path / "c", world.pipeline, "--retry").code == 0
    world.undisturbed.holds(tmp_path / "c")


def _broken_once(monkeypatch: pytest.MonkeyPatch, name: str, n: int) -> list[int]:
    """Have the n-th call of a function of `os` fail with EIO; give a list that counts calls."""
    real, calls = getattr(os, name), [0]

    def call(*arguments: Any, **keywords: Any) -> Any:
        calls[0] += 1
        if calls[0] == n:
            raise OSError(errno.EIO, os.strerror(errno.EIO), *map(str, arguments[:1]))
        return real(*arguments, **keywords)

    monkeypatch.setattr(os, name, call)
    return calls


def _fails_at_each(
    world: World, folder: Path, otzi: Otzi, name: str, numbers: Iterable[int]
) -> int:
    """Break each of these calls of a run, one run for each; give how many were reached."""
    n_reached = 0
    for n in numbers:
        path = folder / f"{name}_{n}"
        with pytest.MonkeyPatch.context() as patch:
            calls = _broken_once(patch, name, n)
            first = otzi("run", path, world.pipeline)
        # A stage is tried again in the same run; what concerns all stages ends it.
        assert first.code in (0, 75), first.err
        world.undisturbed.holds(path, is_over=first.code == 0)
        if first.code:
            assert otzi("run", path, world.pipeline).code == 0
            world.undisturbed.holds(path)
        shutil.rmtree(path)
        if calls[0] < n:
            break
        n_reached += 1
    return n_reached


@pytest.mark.parametrize("name", ["fsync", "rename", "replace"])
def test_a_disk_that_fails_once_costs_nothing(
    world: World, tmp_path: Path, otzi: Otzi, name: str
) -> None:
    assert _fails_at_each(world, tmp_path, otzi, name, (1, 2, 5, 14)) >= 2


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fsync", "rename", "replace"])
def test_a_disk_that_fails_once_at_any_time_costs_nothing(
    world: World, tmp_path: Path, otzi: Otzi, name: str
) -> None:
    assert _fails_at_each(world, tmp_path, otzi, name, count(1)) >= 2


_AS_NOBODY = """
import contextlib, os, sys
from otzi.cli import main
collection, warm, pipeline = sys.argv[1:]
sys.argv = ["otzi", "run", warm, pipeline]
with contextlib.suppress(SystemExit):  # imports what nobody else may be allowed to read
    main()
os.setuid(65534)
sys.argv = ["otzi", "run", collection, pipeline]
main()
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize(("closed", "code"), [("c", 77), ("incoming/ts_1.mrc", 5)])
def test_what_is_closed_to_the_user_is_named_and_left_as_it_is(
    world: World, otzi: Otzi, closed: str, code: int
) -> None:
    """A collection ends the run; a file is left out, and the others go on."""
    for folder in Path(__file__).resolve().parents:
        if not folder.stat().st_mode & stat.S_IXOTH:
            pytest.skip(f"somebody else cannot read this checkout: {folder} is closed to others")
    with TemporaryDirectory() as name:  # below a folder that is open to all
        root, path = Path(name), Path(name, "c")
        shutil.copytree(world.sources, root / "incoming")
        shutil.copy(world.pipeline, root / "p.toml")
        path.mkdir()
        for folder in (root, path):
            folder.chmod(0o777)
        (root / closed).chmod(0)
        before = content(root / "incoming")
        words = map(str, (path, root / "warm", root / "p.toml"))
        command = [sys.executable, "-c", _AS_NOBODY, *words]
        run = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
        assert run.returncode == code, run.stderr
        assert "no permission" in run.stderr
        assert content(root / "incoming") == before
        (root / closed).chmod(0o777)
        world.undisturbed.holds(path, is_over=False)
        assert otzi("run", path, root / "p.toml", "--retry").code == 0
        world.undisturbed.holds(path)
