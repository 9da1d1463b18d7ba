"""Files are there whole, or as they were before."""

from __future__ import annotations

import errno
import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from otzi.files import sha256_of_file, writing_whole

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("before", [None, b"old"])
def test_a_file_is_seen_when_it_is_whole(tmp_path: Path, before: bytes | None) -> None:
    path = tmp_path / "a.json"
    if before is not None:
        path.write_bytes(before)
    with writing_whole(path) as file:
        file.write(b"new")
        file.flush()
        assert (path.read_bytes() if path.exists() else None) == before
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_what_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"old")

    def fail() -> None:
        with writing_whole(path) as file:
            file.write(b"new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"), writing_whole(path) as file:
        file.write(b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_writers_at_the_same_time_do_not_hinder_each_other(tmp_path: Path) -> None:
    def write(i: int) -> None:
        with writing_whole(tmp_path / "a") as file:
            file.write(bytes([i]) * 1000)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(200)))
    assert len(set((tmp_path / "a").read_bytes())) == 1
    assert len(list(tmp_path.iterdir())) == 1


def test_the_digest_is_that_of_the_content(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(bytes(range(256)) * 999)
    assert sha256_of_file(path) == hashlib.sha256(path.read_bytes()).hexdigest()
