"""Headers that lie: an error of otzi by name or a sound volume, never more memory than the file."""

from __future__ import annotations

import json
import math
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mrc_files import mrc_bytes
from otzi import mrc
from otzi.box import Box
from otzi.errors import SourceError
from otzi.mrc import read_window, slabs
from otzi.mrc_header import MrcHeader, parse_header
from otzi_pipelines.ingest.sources import Reading, read_sources

VOLUME = np.random.default_rng(0).normal(0, 100, (4, 5, 6)).astype(np.int16)
SEEDS = [
    mrc_bytes(VOLUME),
    mrc_bytes(VOLUME, ">", b"extended"),
    mrc_bytes(VOLUME.astype(np.float32), mapc=3, mapr=1, maps=2),
    mrc_bytes(VOLUME, ispg=401, mz=2, cella_z=20),
    mrc_bytes(VOLUME, ispg=0, exttyp=b"SERI"),
    bytes(1024 + 240),
]
FIELDS = [*range(0, 28, 4), *range(28, 52, 4), 64, 68, 72, 88, 92, 96, 104, 108, 152, 156, 208, 212]
NUMBERS = [0, 1, -1, 2, 7, 255, 256, 65535, 65536, 2**24, 2**31 - 1, -(2**31), 0x7F800000]
READINGS = [Reading(), Reading((9.0, 9.0, 9.0), as_volume=True, split_volumes=True, salvage=True)]


@st.composite
def files(draw: st.DrawFn) -> bytes:
    """Give a file: a sound one with some bytes, fields and its length changed, or any bytes."""
    if draw(st.integers(0, 19)) == 0:
        return draw(st.binary(max_size=2000))
    data = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(0, 5))):
        if draw(st.booleans()):
            at = draw(st.sampled_from(FIELDS))
            number = draw(st.sampled_from(NUMBERS))
            order = draw(st.sampled_from(["little", "big"]))
            data[at : at + 4] = number.to_bytes(4, order, signed=number < 0)
        else:
            data[draw(st.integers(0, 1023))] = draw(st.integers(0, 255))
    if draw(st.integers(0, 3)) == 0:
        del data[draw(st.integers(0, len(data))) :]
    return bytes(data) + draw(st.binary(max_size=3))


def _survive(data: bytes) -> None:
    parsed = _parse(data)
    with TemporaryDirectory() as folder:
        path = Path(folder, "a.mrc")
        path.write_bytes(data)
        if parsed is not None:
            _read(path, parsed, len(data))
        for reading in READINGS:
            try:
                sources = read_sources(path, reading)
            except SourceError as error:
                assert "\n" not in str(error)  # noqa: PT017
                continue
            for source in sources:
                assert 0 not in source.header.shape
                assert all(math.isfinite(v) and v > 0 for v in source.spacing_angstrom)
                _read(path, source.header, len(data))


def _parse(data: bytes) -> MrcHeader | None:
    try:
        header = parse_header(data[:1024], len(data), "a.mrc")
    except SourceError as error:
        assert "a.mrc" in str(error)  # noqa: PT017
        return None
    assert header.data_offset + header.data_bytes + header.trailing_bytes == len(data)
    json.dumps(header.to_json(), allow_nan=False)
    return header


def _read(path: Path, header: MrcHeader, n_bytes: int) -> None:
    asked = []

    def empty(shape: Any, dtype: Any) -> np.ndarray:
        asked.append(math.prod(np.atleast_1d(shape).tolist()) * np.dtype(dtype).itemsize)
        assert asked[-1] <= n_bytes
        return np.empty(shape, dtype)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mrc, "np", _Numpy(empty))
        parts = [part for _, part in slabs(path, header, 2, seen=bytes)]
        assert sum(part.nbytes for part in parts) == header.data_bytes
        part = Box.whole(header.shape).clip((2, 3, 2))
        assert read_window(path, header, part).shape == part.shape
    assert len(asked) <= n_bytes


class _Numpy:
    """NumPy whose `empty` is watched."""

    def __init__(self, empty: Any) -> None:
        self.empty = empty

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)


@settings(deadline=2000, max_examples=300)
@given(files())
def test_a_lying_header_does_no_harm(data: bytes) -> None:
    _survive(data)


@pytest.mark.slow
@settings(deadline=2000, max_examples=10_000)
@given(files())
def test_ten_thousand_lying_headers_do_no_harm(data: bytes) -> None:
    _survive(data)
