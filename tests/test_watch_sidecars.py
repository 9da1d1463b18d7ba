"""Side-cars: what they say counts only of the file they are about, and only if it can be true."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from otzi.ledger.sources import FileState
from otzi_pipelines.watch.sidecars import (
    Mdoc,
    SideCarFolder,
    SideCars,
    is_sidecar_name,
    parse_mdoc,
    parse_sha256,
)

if TYPE_CHECKING:
    from pathlib import Path

DIGEST = "0123456789abcdef" * 4
MDOC = """PixelSpacing = 13.48
ImageFile = ts_001.mrc
ImageSize = 326 315
DataMode = 1

[T = SerialEM: Digitized on Titan]

[ZValue = 0]
TiltAngle = -60
PixelSpacing = 99

[ZValue = 1]
TiltAngle = -57
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "ts_001.mrc"
    path.write_bytes(b"x")
    os.utime(path, ns=(10**18, 10**18))
    return path


def _read(source: Path, **files: str) -> SideCars:
    beside = []
    for name, text in files.items():
        path = source.with_name(name.replace("__", "."))
        path.write_text(text)
        beside.append(path)
    return SideCarFolder(beside).of(source, FileState.of(source.stat()))


def test_digests() -> None:
    assert parse_sha256(DIGEST.upper()) == {"": DIGEST}
    other = "f" * 64
    text = f"{DIGEST}  ts_001.mrc\n{other} *./ts 2.mrc\nno digest\n\n{DIGEST[:-1]}  short.mrc\n"
    text += f"{other}  sub/ts_001.mrc\n{other}  /in/ts_001.mrc"
    assert parse_sha256(text) == {"ts_001.mrc": DIGEST, "ts 2.mrc": other}


def test_a_digest_is_found_in_its_own_file_or_in_a_list(source: Path) -> None:
    assert _read(source, ts_001__mrc__sha256=DIGEST).sha256 == DIGEST
    assert _read(source, SHA256SUMS=f"{DIGEST}  ts_001.mrc").sha256 == DIGEST
    assert _read(source, ts_002__mrc__sha256=DIGEST).sha256 is None
    assert _read(source, SHA256SUMS=f"{DIGEST}  ts_002.mrc").sha256 is None
    assert _read(source, ts_001__mrc__sha256="being written").sha256 is None


def test_done_is_said_by_name_or_by_a_line(source: Path) -> None:
    assert _read(source, ts_001__mrc__done="").is_done
    assert _read(source, ts_001__done="").is_done
    assert _read(source, session__done="ts_000.mrc\nts_001.mrc\n").is_done
    assert not _read(source, session__done="ts_000.mrc\n").is_done
    assert not _read(source, ts_0011__done="").is_done


def test_done_that_is_older_than_the_file_says_nothing(source: Path) -> None:
    done = source.with_name("ts_001.done")
    done.touch()
    file = FileState.of(source.stat())
    os.utime(done, ns=(file.mtime_ns, file.mtime_ns))
    assert SideCarFolder([done]).of(source, file).is_done
    os.utime(done, ns=(file.mtime_ns - 1, file.mtime_ns - 1))
    assert not SideCarFolder([done]).of(source, file).is_done


def test_an_mdoc_gives_counts_and_spacing(source: Path) -> None:
    mdoc = parse_mdoc(MDOC)
    assert mdoc == Mdoc(2, 13.48, (326, 315))
    assert mdoc.is_of(326, 315)
    assert not mdoc.is_of(163, 157)
    assert Mdoc(2).is_of(163, 157)
    assert parse_mdoc("no mdoc") is None
    assert parse_mdoc("[ZValue = 0]\nPixelSpacing = zero\nImageSize = 1\n") == Mdoc(1)
    own = _read(source, ts_001__mrc__mdoc=MDOC)
    assert (own.mdoc, own.own_mdoc) == (mdoc, mdoc)
    series = _read(source, ts_001__mdoc=MDOC)
    assert (series.mdoc, series.own_mdoc) == (mdoc, None)


def test_what_cannot_be_read_says_nothing(source: Path, tmp_path: Path) -> None:
    binary = tmp_path / "ts_001.mrc.mdoc"
    binary.write_bytes(b"\xff\xfe\x00" * 99)
    file = FileState.of(source.stat())
    gone = [tmp_path / "ts_001.done", tmp_path / "ts_001.mrc.sha256"]
    assert SideCarFolder([binary, *gone]).of(source, file) == SideCars()


def test_names() -> None:
    for name in ("a.mrc.sha256", "A.MDOC", "SHA256SUMS", "x.done"):
        assert is_sidecar_name(name)
    assert not is_sidecar_name("a.mrc")
