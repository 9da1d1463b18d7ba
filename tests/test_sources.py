"""Sources: which files are taken by their headers, as which volumes; what the others lack."""

from __future__ import annotations

import bz2
import gzip
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mrc_files import mrc_bytes
from otzi.box import Box
from otzi.errors import Locked, NotAnMRC, SourceError, TruncatedMRC, UnsupportedMRC
from otzi.mrc import read_window
from otzi.store.locks import lock_file, locked
from otzi_pipelines.ingest.sources import Reading, read_sources, unpacked

DATA = Path(__file__).parent / "data" / "mrc"
VOLUME = np.random.default_rng(4).normal(100, 30, (6, 5, 7)).astype(np.int16)


def _write(folder: Path, data: bytes, name: str = "a.mrc") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"cella_x": 0}, "no voxel size along x"),
        ({"mz": 0, "my": -1}, "no voxel size along z, y"),
        ({"cella_z": -60.0}, "no voxel size along z"),
        ({"mz": 1, "cella_z": 600}, "more than 10 times as long as wide"),
        ({"cella_x": 7e5, "cella_y": 5e5, "cella_z": 6e5}, "0.05 to 5000 can be"),
    ],
)
def test_a_voxel_size_that_cannot_be_is_asked_for(
    tmp_path: Path, fields: dict[str, Any], message: str
) -> None:
    path = _write(tmp_path, mrc_bytes(VOLUME, **fields))
    with pytest.raises(UnsupportedMRC, match=f"{message}.*pass --voxel-size in Å"):
        read_sources(path, Reading())
    (source,) = read_sources(path, Reading(voxel_size=(3.0, 2.0, 2.0)))
    assert source.spacing_angstrom == (3.0, 2.0, 2.0)


@pytest.mark.parametrize(
    ("spacing", "warns"),
    [
        ((10.0, 10.0, 10.0), ""),
        ((10.05, 10.0, 10.0), ""),
        ((10.2, 10.0, 10.0), "not cubes but 10.2 × 10 × 10"),
        ((100.0, 100.0, 100.0), "0.5 to 50 is usual"),
        ((0.1, 0.1, 0.1), "0.5 to 50 is usual"),
    ],
)
def test_odd_voxels_are_kept_with_a_warning(
    tmp_path: Path, spacing: tuple[float, float, float], warns: str
) -> None:
    cells = {f"cella_{a}": n * v for a, n, v in zip("zyx", VOLUME.shape, spacing, strict=True)}
    (source,) = read_sources(_write(tmp_path, mrc_bytes(VOLUME, **cells)), Reading())
    assert source.spacing_angstrom == pytest.approx(spacing)
    assert warns in "".join(source.warnings)
    assert bool(warns) == bool(source.warnings)


@pytest.mark.parametrize("name", ["EMD-3001.map", "3pqr-mode0.ccp4", "sfftk_test_data_multi0.map"])
def test_public_files_with_odd_axes_are_taken(name: str) -> None:
    (source,) = read_sources(DATA / name, Reading())
    assert source.spacing_angstrom == source.header.spacing_angstrom


def test_a_stack_of_volumes_is_split_where_one_says_so(tmp_path: Path) -> None:
    path = _write(tmp_path, mrc_bytes(VOLUME, mz=2, ispg=401, cella_z=20) + b"end")
    with pytest.raises(UnsupportedMRC, match=r"stack of volumes .* pass --split-volumes"):
        read_sources(path, Reading())
    sources = read_sources(path, Reading(split_volumes=True))
    assert [(s.volume, s.n_volumes) for s in sources] == [(1, 3), (2, 3), (3, 3)]
    for index, source in enumerate(sources):
        assert source.spacing_angstrom == (10, 10, 10)
        found = read_window(path, source.header, Box.whole(source.header.shape))
        np.testing.assert_array_equal(found, VOLUME[2 * index : 2 * index + 2])
    assert len({source.sha256 for source in sources}) == 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mz": 4}, r"6 sections are no volumes of mz = 4"),
        ({"mz": 0}, r"6 sections are no volumes of mz = 0"),
        ({"mz": 1}, r"6 sections are no volumes of mz = 1"),
        ({"mz": -2}, r"6 sections are no volumes of mz = -2"),
        ({"mapc": 3, "maps": 1, "mz": 2}, r"do not lie along z \(maps is 1\)"),
    ],
)
def test_a_stack_that_cannot_be_split_says_why(
    tmp_path: Path, fields: dict[str, Any], message: str
) -> None:
    path = _write(tmp_path, mrc_bytes(VOLUME, ispg=401, **fields))
    with pytest.raises(UnsupportedMRC, match=message):
        read_sources(path, Reading(split_volumes=True))


def test_split_volumes_leaves_other_files_alone(tmp_path: Path) -> None:
    (source,) = read_sources(_write(tmp_path, mrc_bytes(VOLUME)), Reading(split_volumes=True))
    assert source.volume is None


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress])
def test_a_compressed_file_is_what_it_unpacks_to(tmp_path: Path, compress: Any) -> None:
    data = mrc_bytes(VOLUME, extended=b"hello") + b"rest"
    path = _write(tmp_path, compress(data))
    (source,) = read_sources(path, Reading())
    target = tmp_path / "unpacked"
    with unpacked(source, target) as whole:
        assert target.read_bytes() == data
        assert whole.data_path == target
        assert whole.header.trailing_bytes == 4
        assert any("4 bytes follow the data" in w for w in whole.warnings)
        found = read_window(target, whole.header, Box.whole(whole.header.shape))
        np.testing.assert_array_equal(found, VOLUME)
    assert not target.exists()
    assert source.n_bytes == path.stat().st_size


def test_two_do_not_unpack_to_one_place(tmp_path: Path) -> None:
    (source,) = read_sources(_write(tmp_path, gzip.compress(mrc_bytes(VOLUME))), Reading())
    target = tmp_path / "unpacked"
    with locked(lock_file(target)), pytest.raises(Locked), unpacked(source, target):
        pass
    assert not target.exists()


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (gzip.compress(b"x" * 100, mtime=0), TruncatedMRC, "has 100 bytes"),
        (gzip.compress(b"text " * 1000, mtime=0), NotAnMRC, "make no sense"),
        (gzip.compress(mrc_bytes(VOLUME, mode=101), mtime=0), UnsupportedMRC, "packed 4-bit"),
        (gzip.compress(mrc_bytes(VOLUME), mtime=0)[:40], TruncatedMRC, "cut gzip stream"),
        (b"BZh9 no stream", NotAnMRC, "damaged bzip2 stream"),
        (gzip.compress(mrc_bytes(VOLUME, nz=2**30), mtime=0), TruncatedMRC, "cannot hold so much"),
        (
            gzip.compress(mrc_bytes(VOLUME, ispg=401, mz=2), mtime=0),
            UnsupportedMRC,
            "gunzip --keep",
        ),
    ],
)
def test_what_is_wrong_with_a_compressed_file_is_seen_in_its_start(
    tmp_path: Path, data: bytes, error: type[SourceError], message: str
) -> None:
    path = _write(tmp_path, data)
    with pytest.raises(error, match=message) as caught:
        read_sources(path, Reading(split_volumes=True))
    assert str(path) in str(caught.value)


def _read_whole(path: Path, target: Path) -> None:
    (source,) = read_sources(path, Reading())
    with unpacked(source, target):
        pass


@pytest.mark.parametrize("axes", [(1, 2, 3), (3, 1, 2), (2, 3, 1)])
@pytest.mark.parametrize("is_packed", [False, True])
def test_salvage_keeps_whole_sections(
    tmp_path: Path, axes: tuple[int, int, int], is_packed: bool
) -> None:
    names = dict(zip(("mapc", "mapr", "maps"), axes, strict=True))
    data = mrc_bytes(VOLUME, extended=b"abc", **names)[: 1027 + 4 * 70 + 33]
    path = _write(tmp_path, gzip.compress(data) if is_packed else data)
    target = tmp_path / "unpacked"
    with pytest.raises(TruncatedMRC, match=r"expected 1447 bytes .* there are 1340"):
        _read_whole(path, target)
    (source,) = read_sources(path, Reading(salvage=True))
    with unpacked(source, target) as whole:
        assert whole.header.missing_sections == 2
        assert whole.header.stored_shape[0] == 4
        assert any("SALVAGED: the last 2 of 6 sections are lost" in w for w in whole.warnings)
        found = read_window(whole.data_path, whole.header, Box.whole(whole.header.shape))
        np.testing.assert_array_equal(found, VOLUME[:4].transpose(whole.header.transpose))


def test_salvage_takes_a_cut_stream_too(tmp_path: Path) -> None:
    volume = np.random.default_rng(0).integers(-999, 999, (40, 64, 64), dtype=np.int16)
    packed = gzip.compress(mrc_bytes(volume))
    path = _write(tmp_path, packed[: len(packed) // 2])
    (source,) = read_sources(path, Reading(salvage=True))
    with unpacked(source, tmp_path / "unpacked") as whole:
        n_sections = whole.header.shape[0]
        assert 10 < n_sections < 30
        found = read_window(whole.data_path, whole.header, Box.whole(whole.header.shape))
        np.testing.assert_array_equal(found, volume[:n_sections])


@pytest.mark.parametrize("n_bytes", [500, 1024, 1024 + 69])
def test_salvage_needs_a_section(tmp_path: Path, n_bytes: int) -> None:
    path = _write(tmp_path, mrc_bytes(VOLUME)[:n_bytes])
    with pytest.raises(TruncatedMRC):
        read_sources(path, Reading(salvage=True))


def test_salvage_does_not_make_a_volume_of_one_section(tmp_path: Path) -> None:
    path = _write(tmp_path, mrc_bytes(VOLUME)[: 1024 + 70])
    with pytest.raises(UnsupportedMRC, match="single image"):
        read_sources(path, Reading(salvage=True))


def test_a_source_knows_when_it_was_changed(tmp_path: Path) -> None:
    path = _write(tmp_path, mrc_bytes(VOLUME))
    (source,) = read_sources(path, Reading())
    source.check_unchanged()
    os.utime(path, ns=(1, 1))
    with pytest.raises(SourceError, match="was changed while it was ingested"):
        source.check_unchanged()
    path.unlink()
    with pytest.raises(SourceError, match="is not there"):
        source.check_unchanged()


def test_a_pipe_is_no_source_and_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.mrc")
    with pytest.raises(NotAnMRC, match="is no file"):
        read_sources(tmp_path / "a.mrc", Reading())
