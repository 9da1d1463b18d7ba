"""The reader: any region is what NumPy and Zarr give, from any thread, and damage is named."""

from __future__ import annotations

import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from otzi.collection import create_collection
from otzi.errors import CorruptShard, VerificationError
from otzi.store import descriptors
from otzi.store.chunk_cache import ChunkCache
from otzi.store.encoding import encoding_of
from otzi.store.reader import LevelArray

if TYPE_CHECKING:
    from collections.abc import Callable

    from otzi.tomogram import Tomogram

RNG = np.random.default_rng(2)
SHAPE = (19, 20, 37)
KINDS = {
    "raw": np.dtype("i2"),  # lz4
    "probs/half": np.dtype("f2"),  # zstd
    "labels/soft": np.dtype("u1"),
}


@pytest.fixture(scope="module")
def tomo(tmp_path_factory: pytest.TempPathFactory) -> Tomogram:
    """Products of 8³ chunks in shards of 256; some chunks hold nothing."""
    tomo = create_collection(tmp_path_factory.mktemp("reader") / "c").add("ts_001")
    for name, dtype in KINDS.items():
        channels = None if name == "raw" else ("a", "b")
        shape = SHAPE if channels is None else (2, *SHAPE)
        volume = RNG.normal(0, 50, shape).astype(dtype)
        volume[..., :8, 8:16, :16] = 0
        with tomo.write(
            name,
            dtype=dtype,
            shape=SHAPE,
            spacing_angstrom=(1.0,) * 3,
            channels=channels,
            chunk_voxels=8,
            recipe={},
        ) as writer:
            writer[tuple(slice(n) for n in shape)] = volume
    return tomo


def _part(n: int) -> st.SearchStrategy[Any]:
    whole = st.integers(-n, n - 1)
    cut = st.none() | st.integers(-n - 3, n + 3)
    return whole | st.builds(slice, cut, cut, st.sampled_from([None, 1, 2, 5, -1, -3]))


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(name=st.sampled_from(sorted(KINDS)), cache=st.sampled_from([0, 3000]), data=st.data())
def test_any_region_is_what_numpy_gives(
    tomo: Tomogram, name: str, cache: int, data: st.DataObject
) -> None:
    array = LevelArray(tomo.path(name), 0, cache)
    whole = np.asarray(zarr.open_array(tomo.path(name) / "0", mode="r")[...])
    parts = [data.draw(_part(n)) for n in whole.shape]
    if data.draw(st.booleans()):
        cut = data.draw(st.integers(0, len(parts)))
        parts[cut : data.draw(st.integers(cut, len(parts)))] = [Ellipsis]
    region = tuple(parts)
    np.testing.assert_array_equal(array[region], whole[region])
    assert array[region].dtype == whole.dtype


def test_indices_beyond_the_array_are_refused(tomo: Tomogram) -> None:
    array = tomo.array("raw")
    for region in ((19, 0, 0), (0, 0, 0, 0)):
        with pytest.raises(IndexError):
            array[region]


def test_threads_and_copies_read_the_same(tomo: Tomogram) -> None:
    array = pickle.loads(pickle.dumps(tomo.array("raw")))  # as Dask sends it to a process
    whole = array[...]
    boxes = [tuple(slice(a, a + 9) for a in RNG.integers(0, 12, 3)) for _ in range(200)]
    with ThreadPoolExecutor(4) as pool:
        for box, found in zip(boxes, pool.map(array.__getitem__, boxes), strict=True):
            np.testing.assert_array_equal(found, whole[box])


def test_shards_stay_open_up_to_a_limit(tomo: Tomogram, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(descriptors.resource, "getrlimit", lambda which: (32, 32))
    shards = descriptors._OpenShards()
    assert shards.most == 8
    before = len(list(Path("/proc/self/fd").iterdir()))
    array = tomo.array("raw")
    path = array.path.joinpath("c", "0", "0", "0")
    n_chunks = int(np.prod(array.grid.chunks_per_shard))
    n_bytes = path.stat().st_size
    first = shards.get(path, 0, n_bytes, n_chunks)
    assert shards.get(path, 0, n_bytes, n_chunks) is first
    assert shards.get(path, 1, n_bytes, n_chunks) is not first
    links = [path.with_name(f"link{i}") for i in range(20)]
    for link in links:
        link.hardlink_to(path)
        shards.get(link, 0, n_bytes, n_chunks)
        link.unlink()
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 9
    assert first.read([0])[0] is not None  # whoever holds it can go on


def test_what_is_made_anew_at_the_same_place_is_read_anew(tmp_path: Path) -> None:
    for value in (1, 2):
        tomo = create_collection(tmp_path / "c").add("ts_001")
        with tomo.write(
            "raw", dtype="f2", shape=SHAPE, spacing_angstrom=(1.0,) * 3, recipe={}
        ) as writer:
            writer[tuple(slice(n) for n in SHAPE)] = np.full(SHAPE, value, np.float16)
        assert (tomo.array("raw")[...] == value).all()
        shutil.rmtree(tmp_path / "c")


def test_a_chunk_is_decoded_once_while_it_is_kept(
    tomo: Tomogram, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: list[int] = []
    decode = type(tomo.array("raw").encoding).decode

    def counted(self: Any, data: bytes, buffer: np.ndarray) -> np.ndarray:
        counts.append(1)
        return decode(self, data, buffer)

    monkeypatch.setattr(type(tomo.array("raw").encoding), "decode", counted)
    array = LevelArray(tomo.path("raw"), 0, 10**6)
    for _ in range(3):
        array[0:19, 0:20, 0:37]
    # 3 × 3 × 5 chunks, two of which hold nothing
    assert len(counts) == 3 * 3 * 5 - 2


@given(st.lists(st.integers(0, 9), max_size=60), st.integers(0, 5))
def test_the_cache_keeps_what_was_used_last(indices: list[int], n_kept: int) -> None:
    cache = ChunkCache(n_kept * 8)
    kept: list[int] = []
    for i in indices:
        found = cache.get((i,))
        assert (found is not None) == (i in kept)
        cache.put((i,), np.full(8, i, np.uint8))
        kept = [*(k for k in kept if k != i), i][-n_kept:] if n_kept else []


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda data: data[: len(data) // 2], "bytes"),
        (lambda data: data[:100] + bytes([data[100] ^ 4]) + data[101:], "damaged"),
        (lambda data: data[:-2] + bytes([data[-2] ^ 1]) + data[-1:], "index"),
        (lambda data: data[:-30] + bytes([data[-30] ^ 1]) + data[-29:], "index"),
    ],
)
@pytest.mark.parametrize("name", KINDS)
def test_damage_names_the_shard(
    add_tomogram: Callable[..., Tomogram],
    tmp_path: Path,
    name: str,
    damage: Callable[[bytes], bytes],
    says: str,
) -> None:
    tomo = add_tomogram(RNG.normal(0, 9, SHAPE).astype(np.float32))
    channels = None if name == "raw" else ("a", "b")
    volume = RNG.normal(0, 50, SHAPE if channels is None else (2, *SHAPE)).astype(KINDS[name])
    with tomo.write(
        name, dtype=KINDS[name], channels=channels, recipe={"i": 1}, chunk_voxels=16
    ) as writer:
        writer[tuple(slice(n) for n in volume.shape)] = volume
    shard = next(p for p in sorted(tomo.path(name).glob("0/c/**/*")) if p.is_file())
    shard.write_bytes(damage(shard.read_bytes()))

    def read() -> None:
        tomo.array(name)[...]

    with pytest.raises(CorruptShard, match=says) as told:
        read()
    assert str(shard) in str(told.value)


def test_changed_metadata_are_seen(add_tomogram: Callable[..., Tomogram]) -> None:
    tomo = add_tomogram(RNG.normal(0, 9, SHAPE).astype(np.float32))
    metadata = tomo.path("raw") / "0" / "zarr.json"
    metadata.write_text(metadata.read_text().replace("37", "36"))
    with pytest.raises(VerificationError, match=r"zarr\.json is not what was written"):
        tomo.array("raw")


def test_foreign_codecs_are_named() -> None:
    with pytest.raises(VerificationError, match="bytes, gzip"):
        encoding_of({"codecs": [{"name": "bytes"}, {"name": "gzip"}]})
