"""MRC: what any correct reader gets, at any axis and byte order; what is wrong is said by name."""

from __future__ import annotations

import gzip
import hashlib
import itertools
import json
import os
import tracemalloc
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import mrcfile
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mrc_files import mrc_bytes
from otzi.box import Box
from otzi.errors import (
    AccessDenied,
    NotAnMRC,
    NotFoundError,
    SourceError,
    TruncatedMRC,
    UnsupportedMRC,
)
from otzi.mrc import read_header, read_window, slabs
from otzi.mrc_volume import check_tomogram

DATA = Path(__file__).parent / "data" / "mrc"
VECTORS: dict[str, Any] = json.loads((DATA / "expected.json").read_text())["files"]
DTYPES = ("int8", "int16", "float32", "complex64", "uint16", "float16")
VOLUME = np.random.default_rng(0).normal(0, 100, (5, 6, 7)).astype(np.int16)


def _write(folder: Path, data: bytes, name: str = "a.mrc") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def _values(seed: int, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if dtype == "complex64":
        return (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(dtype)
    return (rng.normal(60, 20, shape)).astype(dtype)


def _vector(name: str, folder: Path) -> tuple[Path, bool]:
    """Give the file of a test vector, and whether its voxels are those of the original."""
    path = DATA / name
    if path.exists():
        return path, True
    if name.endswith(".gz"):
        packed = gzip.compress((DATA / "EMD-3197.map").read_bytes())
        return _write(folder, gzip.decompress(packed), "unpacked.map"), True
    vector = VECTORS[name]
    header = path.with_suffix(".header").read_bytes()
    shape = vector["shape_sections_rows_columns"]
    values = _values(1, shape, vector["dtype"]).tobytes()
    return _write(folder, header + bytes(vector["nsymbt"]) + values), False


@pytest.mark.parametrize("name", VECTORS)
def test_vectors_read_as_expected(name: str, tmp_path: Path) -> None:
    vector = VECTORS[name]
    path, is_original = _vector(name, tmp_path)
    header = read_header(path)
    assert header.mode == vector["mode"]
    assert header.dtype.name == vector["dtype"]
    assert header.data_offset == vector["data_offset"]
    assert header.stored_shape == tuple(vector["shape_sections_rows_columns"])
    assert header.axes == tuple(vector["mapc_mapr_maps"])
    assert header.shape == tuple(vector["shape_zyx"])
    assert header.start_voxels == tuple(vector["start_voxels_zyx"])
    assert (header.ispg, header.nsymbt) == (vector["ispg"], vector["nsymbt"])
    assert header.exttyp == vector["exttyp"]
    for found, expected in zip(
        header.spacing_angstrom, vector["spacing_angstrom_zyx"], strict=True
    ):
        assert found == (None if expected is None else pytest.approx(expected, abs=1e-6))
    volume = read_window(path, header, Box.whole(header.shape))
    with mrcfile.open(path, permissive=True) as oracle:
        stored = oracle.data.reshape(header.stored_shape)
        np.testing.assert_array_equal(volume, stored.transpose(header.transpose))
    if is_original:
        assert volume.sum(dtype=np.float64) == pytest.approx(vector["sum"], rel=1e-12)
        for index, value in vector["probes_zyx"]:
            assert volume[tuple(index)] == value


@settings(deadline=None, max_examples=60)
@given(
    stored_shape=st.tuples(*[st.integers(1, 6)] * 3),
    dtype=st.sampled_from(DTYPES),
    order=st.sampled_from("<>"),
    axes=st.permutations([1, 2, 3]),
    extended=st.binary(max_size=7),
    trailing=st.binary(max_size=3),
    depth=st.integers(1, 7),
    seed=st.integers(0, 3),
    data=st.data(),
)
def test_windows_and_slabs_are_the_volume(
    stored_shape: tuple[int, int, int],
    dtype: str,
    order: str,
    axes: list[int],
    extended: bytes,
    trailing: bytes,
    depth: int,
    seed: int,
    data: st.DataObject,
) -> None:
    stored = _values(seed, stored_shape, dtype)
    by_axis = dict(zip(axes[::-1], range(3), strict=True))  # 1, 2, 3 = x, y, z -> stored axis
    expected = stored.transpose(by_axis[3], by_axis[2], by_axis[1])
    names = dict(zip(("mapc", "mapr", "maps"), axes, strict=True))
    content = mrc_bytes(stored, order, extended, **names) + trailing
    spans = [sorted(data.draw(st.tuples(*[st.integers(0, n)] * 2))) for n in expected.shape]
    box = Box(*zip(*spans, strict=True))
    with TemporaryDirectory() as folder:
        path = _write(Path(folder), content)
        header = read_header(path)
        assert header.shape == expected.shape
        assert header.trailing_bytes == len(trailing)
        window = read_window(path, header, box)
        np.testing.assert_array_equal(window, expected[box.slices])
        assert window.dtype.isnative
        seen: list[bytes] = []
        parts = list(slabs(path, header, depth, seen=lambda b: seen.append(bytes(b))))
        np.testing.assert_array_equal(np.concatenate([p for _, p in parts]), expected)
        for part_box, part in parts:
            np.testing.assert_array_equal(part, expected[part_box.slices])
        assert b"".join(seen) == (content if header.is_z_slowest else b"")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("order", "<>")
def test_every_mode_reads_as_by_mrcfile(tmp_path: Path, dtype: str, order: str) -> None:
    path = _write(tmp_path, mrc_bytes(_values(0, (3, 4, 5), dtype), order))
    header = read_header(path)
    assert not header.warnings
    assert header.to_json()["byte_order"] == {"<": "little", ">": "big"}[order]
    with mrcfile.open(path) as oracle:
        np.testing.assert_array_equal(
            read_window(path, header, Box.whole(header.shape)), oracle.data
        )
        spacing = [float(oracle.voxel_size[axis]) for axis in "zyx"]
    assert header.spacing_angstrom == pytest.approx(spacing)


def test_start_origin_and_spacing_go_with_their_axes(tmp_path: Path) -> None:
    fields: dict[str, Any] = {"mapc": 3, "mapr": 1, "maps": 2, "cella_z": 70, "mz": 7}
    fields |= {"nxstart": 30, "nystart": 10, "nzstart": 20, "origin": (1, 2, 3)}
    header = read_header(_write(tmp_path, mrc_bytes(VOLUME, **fields)))
    assert header.shape == (7, 5, 6)  # columns are z, sections y, rows x
    assert header.start_voxels == (30, 20, 10)
    assert header.origin_angstrom == (3, 2, 1)
    assert header.spacing_angstrom[0] == 10


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(
    "stamp", [b"\0\0\0\0", b"\x44\x20\x20\x20", b"\x11\x11\0\0", b"\x44\x44\0\0", b"\x01" * 4]
)
def test_a_wrong_stamp_is_seen_through(tmp_path: Path, order: str, stamp: bytes) -> None:
    content = mrc_bytes(VOLUME, order, machst=tuple(stamp))
    header = read_header(_write(tmp_path, content))
    right = b"\x44\x44" if order == "<" else b"\x11\x11"
    assert any(w.startswith("machst: ") for w in header.warnings) == (stamp[:2] != right)
    np.testing.assert_array_equal(
        read_window(tmp_path / "a.mrc", header, Box.whole(header.shape)), VOLUME
    )


def test_mode_0_is_signed_unless_imod_says_otherwise(tmp_path: Path) -> None:
    data = np.arange(-60, 60, dtype=np.int8).reshape(4, 5, 6)
    content = bytearray(mrc_bytes(data))

    def dtype_with(flags: int) -> str:
        content[152:160] = (1146047817).to_bytes(4, "little") + flags.to_bytes(4, "little")
        return read_header(_write(tmp_path, bytes(content))).dtype.name

    assert read_header(_write(tmp_path, bytes(content))).dtype == np.int8
    assert dtype_with(0) == "uint8"
    assert dtype_with(1) == "int8"
    with pytest.raises(UnsupportedMRC, match="packed 4-bit"):
        dtype_with(17)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"nversion": 16843009}, "nversion"),
        ({"exttyp": b"\x01\x01\x01\x01"}, "exttyp"),
        ({"cella_z": 0}, "cella"),
        ({"mz": 0}, "cella"),
        ({"cella_x": np.nan}, "cella"),
        ({"mz": 1, "cella_z": 5000}, "mz"),
        ({"mapc": 0, "mapr": 0, "maps": 0}, "mapc"),
        ({"map": b"xxxx"}, "map"),
        ({"origin": (np.nan, 0, 0)}, "origin"),
    ],
)
def test_oddities_are_warnings_that_name_the_field(
    tmp_path: Path, fields: dict[str, Any], field: str
) -> None:
    header = read_header(_write(tmp_path, mrc_bytes(VOLUME, **fields)))
    assert [w.partition(":")[0] for w in header.warnings] == [field]
    assert json.dumps(header.to_json(), allow_nan=False)


def test_amira_and_fei_files_without_stamp_are_read(tmp_path: Path) -> None:
    fields = {"machst": (0, 0, 0, 0), "exttyp": b"\x01" * 4, "nversion": 16843009}
    header = read_header(_write(tmp_path, mrc_bytes(VOLUME, **fields)))
    assert {w.partition(":")[0] for w in header.warnings} == {"machst", "exttyp", "nversion"}


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (b"", TruncatedMRC, "has 0 bytes, an MRC header alone has 1024"),
        (bytes(2000), NotAnMRC, "make no sense"),
        (b"Once upon a time " * 100, NotAnMRC, "make no sense"),
        (gzip.compress(b"x" * 2000, mtime=0), NotAnMRC, "gunzip"),
        (b"BZh91AY" + bytes(2000), NotAnMRC, "bunzip2"),
        (b"II*\0" + bytes(2000), NotAnMRC, "TIFF"),
        (mrc_bytes(VOLUME, mode=3), UnsupportedMRC, r"mode 3 \(complex int16\)"),
        (mrc_bytes(VOLUME, mode=16), UnsupportedMRC, r"mode 16 \(8-bit RGB\)"),
        (mrc_bytes(VOLUME, mode=101), UnsupportedMRC, r"mode 101 \(packed 4-bit\)"),
        (mrc_bytes(VOLUME, mode=77), UnsupportedMRC, r"mode 77 \(unknown\)"),
        (mrc_bytes(VOLUME, mode=77, map=b"    "), NotAnMRC, "mode 77"),
        (mrc_bytes(VOLUME, ny=-4), NotAnMRC, "ny is -4"),
        (mrc_bytes(VOLUME, nsymbt=-1), NotAnMRC, "nsymbt is -1"),
        (mrc_bytes(VOLUME, mapc=1, mapr=1), UnsupportedMRC, "mapc, mapr, maps = 1, 1, 3"),
        (mrc_bytes(VOLUME, map=b"    ") + b"x", NotAnMRC, "need 1444 bytes, it has 1445"),
        (mrc_bytes(VOLUME, nsymbt=10**9), TruncatedMRC, "expected 1000001444 bytes"),
        (mrc_bytes(VOLUME, nx=2**31 - 1, ny=2**31 - 1, nz=2**31 - 1), TruncatedMRC, "there are"),
    ],
)
def test_what_is_refused_is_named(
    tmp_path: Path, content: bytes, error: type[SourceError], message: str
) -> None:
    path = _write(tmp_path, content, "bad.mrc")
    with pytest.raises(error, match=message) as caught:
        read_header(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@given(missing=st.integers(1, VOLUME.nbytes))
def test_any_cut_says_expected_and_actual_bytes(missing: int) -> None:
    content = mrc_bytes(VOLUME)
    with TemporaryDirectory() as folder:
        path = _write(Path(folder), content[:-missing])
        expected = f"expected {len(content)} bytes.*there are {len(content) - missing}"
        with pytest.raises(TruncatedMRC, match=expected):
            read_header(path)


def test_trailing_bytes_are_a_warning(tmp_path: Path) -> None:
    header = read_header(_write(tmp_path, mrc_bytes(VOLUME) + b"abc"))
    assert header.trailing_bytes == 3
    assert [w for w in header.warnings if "3 bytes follow" in w]


@pytest.mark.parametrize(
    ("shape", "dtype", "fields", "message"),
    [
        ((5, 0, 7), "int16", {}, "holds nothing: it has 5 × 0 × 7"),
        ((1, 6, 7), "int16", {}, "single image"),
        ((5, 6, 7), "complex64", {}, "complex"),
        ((5, 6, 7), "int16", {"ispg": 0}, "--as-volume"),
        ((5, 6, 7), "int16", {"ispg": 401}, "stack of volumes"),
    ],
)
def test_what_is_no_tomogram_is_refused(
    tmp_path: Path, shape: tuple[int, ...], dtype: str, fields: dict[str, Any], message: str
) -> None:
    header = read_header(_write(tmp_path, mrc_bytes(np.ones(shape, dtype), **fields)))
    with pytest.raises(UnsupportedMRC, match=message):
        check_tomogram(header, "a.mrc")


def test_a_stack_is_a_tomogram_when_one_says_so(tmp_path: Path) -> None:
    header = read_header(_write(tmp_path, mrc_bytes(VOLUME, ispg=0)))
    check_tomogram(header, "a.mrc", as_volume=True)
    check_tomogram(read_header(_write(tmp_path, mrc_bytes(VOLUME))), "a.mrc")


def test_a_file_that_changes_or_shrinks_while_it_is_read_is_refused(tmp_path: Path) -> None:
    path = _write(tmp_path, mrc_bytes(VOLUME))
    header = read_header(path)
    reading = slabs(path, header, 2)
    next(reading)
    with path.open("r+b") as file:
        file.truncate(1100)
    with pytest.raises(TruncatedMRC, match="cut while it was read"):
        list(reading)
    path = _write(tmp_path, mrc_bytes(VOLUME))
    reading = slabs(path, header, 2)
    next(reading)
    os.utime(path, ns=(1, 1))
    with pytest.raises(SourceError, match="changed while it was read"):
        list(reading)


def test_files_that_cannot_be_read_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(NotFoundError, match=r"absent\.mrc"):
        read_header(tmp_path / "absent.mrc")
    with pytest.raises(NotAnMRC, match="is no file"):
        read_header(tmp_path)
    path = _write(tmp_path, mrc_bytes(VOLUME))

    def refuse(*args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(AccessDenied, match=r"a\.mrc"):
        read_header(path)


@pytest.mark.parametrize("axes", [(1, 2, 3), (3, 2, 1)])
def test_a_header_of_nothing_is_read_at_once(tmp_path: Path, axes: tuple[int, int, int]) -> None:
    fields = dict(zip(("mapc", "mapr", "maps"), axes, strict=True))
    extents = {"nx": 0, "ny": 2**31 - 1, "nz": 2**31 - 1}
    path = _write(tmp_path, mrc_bytes(VOLUME, **fields, **extents)[:1024])
    header = read_header(path)
    assert list(slabs(path, header, 1)) == []
    box = Box((0, 0, 0), (3, 3, 3)).clip(header.shape)
    assert read_window(path, header, box).shape == box.shape


def test_a_window_beyond_the_volume_is_refused(tmp_path: Path) -> None:
    path = _write(tmp_path, mrc_bytes(VOLUME))
    with pytest.raises(ValueError, match="beyond"):
        read_window(path, read_header(path), Box((0, 0, 0), (5, 6, 8)))


@pytest.mark.parametrize("axes", list(itertools.permutations((1, 2, 3))))
def test_slabs_hold_one_slab(tmp_path: Path, axes: tuple[int, int, int]) -> None:
    shape = (96, 128, 128)
    names = dict(zip(("mapc", "mapr", "maps"), axes, strict=True))
    path = _write(tmp_path, mrc_bytes(np.zeros(shape, np.float32), ">", **names))
    header = read_header(path)
    slab_bytes = 8 * 4 * header.shape[1] * header.shape[2]
    peaks = []
    for _ in range(3):  # other threads of this process may take memory of their own meanwhile
        tracemalloc.start()
        for slab in slabs(path, header, 8, seen=hashlib.sha256().update):
            del slab
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    one_section = 128 * 128 * 4
    assert min(peaks) < 1.1 * slab_bytes + one_section
