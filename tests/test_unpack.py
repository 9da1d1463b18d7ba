"""Unpacking: every byte or an error by name, in bounded memory."""

from __future__ import annotations

import bz2
import gzip
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otzi.errors import NotAnMRC, OutOfSpace, SourceError, TruncatedMRC
from otzi_pipelines.ingest.unpack import Packing, packing_of, unpack, unpacked_start

COMPRESS: dict[Packing, Any] = {"gzip": gzip.compress, "bzip2": bz2.compress}
NOISE = np.random.default_rng(0).bytes(1 << 20)


@pytest.mark.parametrize("packing", COMPRESS)
def test_parts_after_one_another_are_one_file(tmp_path: Path, packing: Packing) -> None:
    path, target = tmp_path / "a", tmp_path / "b"
    path.write_bytes(COMPRESS[packing](NOISE) + COMPRESS[packing](b"end"))
    assert packing_of(path) == packing
    unpack(path, packing, target, len(NOISE) + 3)
    assert target.read_bytes() == NOISE + b"end"
    assert unpacked_start(path, packing, 100) == NOISE[:100]


def test_what_is_not_compressed_is_seen(tmp_path: Path) -> None:
    for content in (b"", b"B", b"\x1f\x8b\0\0", b"MAP "):
        (tmp_path / "a").write_bytes(content)
        assert packing_of(tmp_path / "a") is None


@pytest.mark.parametrize("packing", COMPRESS)
@given(data=st.data())
def test_no_damage_goes_unseen(
    tmp_path_factory: pytest.TempPathFactory, packing: Packing, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("damage")
    path, target = folder / "a", folder / "b"
    content = NOISE[:3000]
    packed = bytearray(COMPRESS[packing](content))
    if data.draw(st.booleans()):
        del packed[data.draw(st.integers(4, len(packed) - 1)) :]
    else:
        packed[data.draw(st.integers(4, len(packed) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(packed)
    try:
        unpack(path, packing, target, 10**6)
    except SourceError as error:
        assert str(path) in str(error)  # noqa: PT017  some bytes of the frame say nothing
    else:
        assert target.read_bytes() == content


@pytest.mark.parametrize("packing", COMPRESS)
def test_what_is_whole_of_a_cut_stream_can_be_kept(tmp_path: Path, packing: Packing) -> None:
    path, target = tmp_path / "a", tmp_path / "b"
    content = NOISE * 4
    packed = COMPRESS[packing](content)
    path.write_bytes(packed[: len(packed) // 2])
    with pytest.raises(TruncatedMRC, match=f"cut {packing} stream"):
        unpack(path, packing, target, len(content))
    unpack(path, packing, target, len(content), salvage=True)
    kept = target.read_bytes()
    assert len(content) // 4 < len(kept) < len(content)
    assert content.startswith(kept)


@pytest.mark.parametrize("packing", COMPRESS)
def test_a_bomb_is_stopped_and_memory_is_bounded(tmp_path: Path, packing: Packing) -> None:
    path, target = tmp_path / "a", tmp_path / "b"
    path.write_bytes(COMPRESS[packing](bytes(100 << 20)))
    tracemalloc.start()
    with pytest.raises(NotAnMRC, match="unpacks to more than 20000000 bytes"):
        unpack(path, packing, target, 20_000_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert target.stat().st_size <= 20_000_000
    assert peak < 20 << 20


def test_a_full_disk_is_no_fault_of_the_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a"
    path.write_bytes(gzip.compress(NOISE))
    with pytest.raises(OutOfSpace, match="no space left while writing /dev/full"):
        unpack(path, "gzip", Path("/dev/full"), 1 << 30)
