"""The store: every chunk comes back, every loss is seen, bytes do not depend on the order."""

from __future__ import annotations

import itertools
import math
import random
from pathlib import Path
from tempfile import TemporaryDirectory

import numcodecs.blosc
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from otzi.errors import UsageError, VerificationError
from otzi.store.encoding import Encoding, encoding_for
from otzi.store.grid import LevelGrid, level_grids, level_shapes
from otzi.store.pyramid import halve
from otzi.store.shards import ArrayWriter
from references import mean_level, mode_level

DTYPES = ("uint8", "int8", "int16", "uint16", "float16", "float32")
ENCODINGS = ("lz4", "lz4hc", "bitplanes", "plain", "zstd-1", "zstd-3")


def _write(folder: Path, values: np.ndarray, grid: LevelGrid, name: str, seed: int) -> bytes:
    encoding = Encoding(name)
    zarr.create_array(
        folder,
        shape=grid.shape,
        dtype=values.dtype,
        chunks=grid.chunk,
        shards=grid.shard,
        compressors=encoding.zarr_codecs(values.dtype.itemsize),
        fill_value=0,
    )
    writer = ArrayWriter(folder, grid, values.dtype, encoding)
    indices = list(grid.chunk_indices((0,) * values.ndim, values.shape))
    random.Random(seed).shuffle(indices)
    for index in indices:
        region = grid.chunk_slices(index)
        writer[region] = values[region]
    records = writer.finish()
    files = [folder / record.key for record in records]
    assert [f.stat().st_size for f in files] == [record.n_bytes for record in records]
    assert sorted(files) == sorted(p for p in folder.glob("c/**/*") if p.is_file())
    return b"".join(f.read_bytes() for f in files)


@settings(deadline=None, max_examples=25)
@given(
    shape=st.tuples(*[st.integers(1, 19)] * 3),
    channels=st.none() | st.integers(1, 3),
    per_chunk=st.integers(1, 3),
    chunk=st.sampled_from([3, 4, 8]),
    dtype=st.sampled_from(DTYPES),
    encoding=st.sampled_from(ENCODINGS),
    seed=st.integers(0, 5),
)
def test_zarr_reads_what_was_written_in_any_order(
    shape: tuple[int, int, int],
    channels: int | None,
    per_chunk: int,
    chunk: int,
    dtype: str,
    encoding: str,
    seed: int,
) -> None:
    grid = level_grids(
        shape, n_channels=channels, chunk_voxels=chunk, channels_per_chunk=per_chunk
    )[0]
    rng = np.random.default_rng(seed)
    values = (rng.normal(0, 40, grid.shape) * (rng.random(grid.shape) > 0.5)).astype(dtype)
    with TemporaryDirectory() as folder:
        first = _write(Path(folder, "a"), values, grid, encoding, seed)
        second = _write(Path(folder, "b"), values, grid, encoding, seed + 1)
        np.testing.assert_array_equal(zarr.open_array(Path(folder, "a"), mode="r")[:], values)
    assert first == second


def test_a_shard_is_a_file_even_when_all_zeros(tmp_path: Path) -> None:
    grid = LevelGrid((8, 8, 8), (4, 4, 4), (4, 8, 8))
    assert _write(tmp_path / "a", np.zeros(grid.shape, np.uint8), grid, "zstd-1", 0)
    assert len([p for p in tmp_path.glob("a/c/**/*") if p.is_file()]) == 2


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_negative_zero_keeps_its_sign(tmp_path: Path, encoding: str) -> None:
    values = np.zeros((8, 4, 4), np.float32)
    values[5, 2, 1] = -0.0
    _write(tmp_path / "a", values, LevelGrid((8, 4, 4), (4, 4, 4), (8, 4, 4)), encoding, 0)
    read = np.asarray(zarr.open_array(tmp_path / "a", mode="r")[...])
    np.testing.assert_array_equal(np.signbit(read), np.signbit(values))


def test_an_unwritten_chunk_is_told(tmp_path: Path) -> None:
    grid = LevelGrid((8, 8, 8), (4, 4, 4), (8, 8, 8))
    writer = ArrayWriter(tmp_path, grid, np.dtype("u1"), Encoding("plain"))
    writer[0:4, 0:8, 0:8] = np.ones((4, 8, 8), np.uint8)
    with pytest.raises(VerificationError, match="1 of 1 shards"):
        writer.finish()


def test_a_voxel_written_twice_is_told(tmp_path: Path) -> None:
    grid = LevelGrid((4, 4, 4), (4, 4, 4), (4, 4, 4))
    writer = ArrayWriter(tmp_path, grid, np.dtype("u1"), Encoding("plain"))
    writer[0:4, 0:4, 0:4] = np.ones((4, 4, 4), np.uint8)
    with pytest.raises(VerificationError, match="second time"):
        writer[0:4, 0:4, 0:4] = np.ones((4, 4, 4), np.uint8)


@pytest.mark.parametrize("region", [slice(1, 8), slice(0, 7), slice(4, 4)])
def test_regions_must_be_whole_chunks(tmp_path: Path, region: slice) -> None:
    grid = LevelGrid((9, 4, 4), (4, 4, 4), (12, 4, 4))
    writer = ArrayWriter(tmp_path, grid, np.dtype("u1"), Encoding("plain"))
    with pytest.raises(UsageError, match="whole chunks"):
        writer[region, 0:4, 0:4] = np.ones((4, 4, 4), np.uint8)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_flipped_bit_is_seen(tmp_path: Path, encoding: str) -> None:
    grid = LevelGrid((8, 8, 8), (8, 8, 8), (8, 8, 8))
    values = np.random.default_rng(0).normal(0, 9, grid.shape).astype(np.float32)
    _write(tmp_path / "a", values, grid, encoding, 0)
    shard = tmp_path / "a/c/0/0/0"
    whole = shard.read_bytes()
    for position in np.random.default_rng(1).integers(0, len(whole) * 8, 40):
        damaged = bytearray(whole)
        damaged[position // 8] ^= 1 << position % 8
        shard.write_bytes(bytes(damaged))
        with pytest.raises((ValueError, RuntimeError)):
            zarr.open_array(tmp_path / "a", mode="r")[:]


@pytest.mark.parametrize("dtype", DTYPES)
def test_mean_level_is_the_rounded_numpy_mean(dtype: str) -> None:
    values = np.random.default_rng(0).normal(0, 30, (2, 7, 8, 9)).astype(dtype)
    expected = mean_level(values)
    np.testing.assert_allclose(halve(values, "mean"), expected, rtol=1e-3, atol=0)
    if np.issubdtype(values.dtype, np.integer):
        np.testing.assert_array_equal(halve(values, "mean"), expected)


def test_mode_level_is_the_most_frequent_label() -> None:
    labels = np.random.default_rng(0).integers(0, 4, (7, 8, 9)).astype(np.uint8)
    np.testing.assert_array_equal(halve(labels, "mode"), mode_level(labels))


@given(st.tuples(*[st.integers(1, 3000)] * 3))
def test_levels_halve_until_small(shape: tuple[int, int, int]) -> None:
    shapes = level_shapes(shape)
    assert shapes[0] == shape
    for fine, coarse in itertools.pairwise(shapes):
        assert coarse == tuple(n // 2 for n in fine)
        assert min(coarse) >= 1
    assert len(shapes) == 5 or max(shapes[-1]) <= 64 or min(shapes[-1]) == 1


@given(
    shape=st.tuples(*[st.integers(1, 700)] * 3),
    channels=st.none() | st.integers(1, 5),
    chunk=st.sampled_from([16, 48, 64, 96, 300]),
)
def test_shards_are_whole_chunks_that_cover_the_level(
    shape: tuple[int, int, int], channels: int | None, chunk: int
) -> None:
    for grid in level_grids(shape, n_channels=channels, chunk_voxels=chunk):
        assert all(s % c == 0 for s, c in zip(grid.shard, grid.chunk, strict=True))
        inside = sum(math.prod(grid.chunks_inside(shard)) for shard in grid.shards())
        assert inside == len(list(grid.chunk_indices((0,) * len(grid.shape), grid.shape)))


def test_noise_is_not_compressed_hard_and_labels_are() -> None:
    assert encoding_for("raw", np.dtype("f4")).name == "lz4"
    assert encoding_for("raw", np.dtype("f2")).name == "plain"
    assert encoding_for("labels", np.dtype("u1")).name == "zstd-3"
    assert encoding_for("labels", np.dtype("u1"), has_channels=True).name == "lz4hc"
    assert encoding_for("view", np.dtype("u1")).name == "bitplanes"


@pytest.mark.parametrize("name", ["lz4", "lz4hc", "bitplanes"])
def test_the_bytes_of_a_chunk_do_not_depend_on_threads(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Blosc takes threads of its own where it is called from the main thread.
    monkeypatch.setattr(numcodecs.blosc, "use_threads", None)
    n_threads = numcodecs.blosc.set_nthreads(8)
    try:
        steps = np.random.default_rng(0).integers(-2, 3, (8, 64, 64, 64))
        chunk = np.cumsum(steps, axis=-1).astype(np.uint8)
        assert len({Encoding(name).encode(chunk) for _ in range(100)}) == 1
    finally:
        numcodecs.blosc.set_nthreads(n_threads)
