"""The MRC writer: valid by mrcfile, read back by our reader, whole or not there."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import mrcfile
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otzi.box import Box, tile
from otzi.errors import CannotCreate, OutOfSpace, VerificationError
from otzi.mrc import read_header, read_window
from otzi.mrc_writer import MrcImage, writing_mrc

DTYPES = ("int8", "int16", "uint16", "float16", "float32")


def _image(volume: np.ndarray, **more: Any) -> MrcImage:
    return MrcImage(volume.shape, volume.dtype, (20.0, 10.0, 5.0), **more)


def _write(path: Path, volume: np.ndarray, image: MrcImage, **options: Any) -> None:
    depth = volume.shape[0]
    with writing_mrc(path, image, **options) as writer:
        for box in reversed(list(tile(volume.shape, (max(1, depth // 2), 3, volume.shape[2])))):
            writer[box] = volume[box.slices]


@settings(deadline=None, max_examples=40)
@given(
    dtype=st.sampled_from(DTYPES),
    shape=st.tuples(st.integers(2, 6), st.integers(2, 6), st.integers(2, 6)),
    mean=st.sampled_from([0, 50]),
    labels=st.lists(
        st.text(st.characters(codec="ascii", categories=["L"]), min_size=1), max_size=12
    ),
    start=st.tuples(*[st.integers(-99, 99)] * 3),
)
def test_what_is_written_is_valid_and_read_back(
    dtype: str,
    shape: tuple[int, int, int],
    mean: int,
    labels: list[str],
    start: tuple[int, int, int],
) -> None:
    volume = np.random.default_rng(0).normal(mean, 9, shape).clip(0, 99).astype(dtype)
    image = _image(
        volume, origin_angstrom=(3.0, 2.0, 1.0), start_voxels=start, labels=tuple(labels)
    )
    with TemporaryDirectory() as folder:
        path = Path(folder, "a.mrc")
        _write(path, volume, image)
        report = io.StringIO()
        assert mrcfile.validate(path, print_file=report), report.getvalue()
        assert path.stat().st_size == image.n_bytes
        header = read_header(path)
        assert not header.warnings
        assert header.shape == shape
        assert header.dtype == dtype
        assert header.spacing_angstrom == pytest.approx((20, 10, 5))
        assert (header.origin_angstrom, header.start_voxels) == ((3, 2, 1), start)
        assert header.labels == tuple(text[:80] for text in labels[:10])
        assert (header.ispg, header.machine_stamp) == (1, b"\x44\x44\0\0")
        np.testing.assert_array_equal(read_window(path, header, Box.whole(shape)), volume)
        with mrcfile.open(path) as oracle:
            np.testing.assert_array_equal(oracle.data, volume)
            values = volume.astype(np.float64)
            assert oracle.header.dmin == values.min()
            assert oracle.header.dmax == values.max()
            assert oracle.header.dmean == pytest.approx(values.mean(), rel=1e-6)
            assert oracle.header.rms == pytest.approx(values.std(), rel=1e-6, abs=1e-9)


def test_statistics_are_of_what_is_finite(tmp_path: Path) -> None:
    volume = np.array([1, np.nan, 3, np.inf], np.float32).reshape(2, 2, 1)
    _write(tmp_path / "a.mrc", volume, _image(volume))
    volume[:] = np.nan
    _write(tmp_path / "b.mrc", volume, _image(volume))
    with mrcfile.open(tmp_path / "a.mrc", header_only=True) as oracle:
        header = oracle.header
        assert (header.dmin, header.dmax, header.dmean, header.rms) == (1, 3, 2, 1)
    with mrcfile.open(tmp_path / "b.mrc", header_only=True) as oracle:  # the format's "unknown"
        header = oracle.header
        assert (header.dmin, header.dmax, header.dmean, header.rms) == (0, -1, -2, -1)


def test_what_cannot_be_ascii_does_not_spoil_a_label(tmp_path: Path) -> None:
    volume = np.ones((2, 2, 2), np.int8)
    _write(tmp_path / "a.mrc", volume, _image(volume, labels=("10 Å, Nano-Ötzi", "b" * 100)))
    assert read_header(tmp_path / "a.mrc").labels == ("10 ?, Nano-?tzi", "b" * 80)


def test_what_is_there_stays_until_the_new_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.mrc"
    volume = np.ones((2, 4, 2), np.int16)
    path.write_bytes(b"precious")
    with pytest.raises(CannotCreate, match=r"there already: pass --force"):
        _write(path, volume, _image(volume))
    with (
        pytest.raises(ZeroDivisionError),
        writing_mrc(path, _image(volume), force=True) as writer,
    ):
        writer[Box((0, 0, 0), (1 // 0, 4, 2))] = volume
    with (
        pytest.raises(VerificationError, match="8 voxels were written, not 16"),
        writing_mrc(path, _image(volume), force=True) as writer,
    ):
        writer[Box((0, 0, 0), (1, 4, 2))] = volume[:1]
    assert path.read_bytes() == b"precious"
    _write(path, volume, _image(volume), force=True)
    assert read_header(path).shape == (2, 4, 2)
    assert [p.name for p in tmp_path.iterdir()] == ["a.mrc"]


def test_blocks_must_be_whole_rows_of_the_type(tmp_path: Path) -> None:
    volume = np.ones((2, 4, 2), np.int16)
    for block, box in [
        (volume[:, :, :1], Box((0, 0, 0), (2, 4, 1))),
        (volume.astype(np.int8), Box.whole(volume.shape)),
        (volume[:1], Box.whole(volume.shape)),
    ]:
        with (
            pytest.raises(ValueError, match="write whole rows"),
            writing_mrc(tmp_path / "a.mrc", _image(volume)) as writer,
        ):
            writer[box] = block


def test_places_that_cannot_be_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    volume = np.ones((2, 4, 2), np.int16)
    with pytest.raises(CannotCreate, match="nowhere is no folder"):
        _write(tmp_path / "nowhere" / "a.mrc", volume, _image(volume))
    with pytest.raises(CannotCreate, match="is a folder"):
        _write(tmp_path, volume, _image(volume), force=True)
    usage = type("usage", (), {"free": 1000})
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(OutOfSpace, match=r"1000 bytes free .* a.mrc needs 1056"):
        _write(tmp_path / "a.mrc", volume, _image(volume))
    assert not list(tmp_path.iterdir())
