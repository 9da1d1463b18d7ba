"""The density that networks see: the same with and without a cache, which decodes chunks once."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from otzi.box import Box
from otzi.collection import create_collection
from otzi.normalise import Normalisation
from otzi.store.encoding import Encoding
from otzi.tiles.density import NormalisedDensity, slab_bytes
from otzi.tiles.plan import TilePlan

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from otzi.tomogram import Tomogram

    Quantised = Callable[[tuple[int, int, int]], Tomogram]

RNG = np.random.default_rng(5)
TILE, OVERLAP, CHUNK = 32, 8, 16


@pytest.fixture
def quantised(tmp_path: Path) -> Quantised:
    """Give a function that publishes int8 noise, which means a fifth of it and 3 more."""

    def make(shape: tuple[int, int, int]) -> Tomogram:
        tomo = create_collection(tmp_path / "c").add("ts_001")
        volume = RNG.integers(-100, 100, shape).astype(np.int8)
        with tomo.write(
            "raw",
            dtype=np.int8,
            shape=shape,
            spacing_angstrom=(10.0,) * 3,
            chunk_voxels=CHUNK,
            recipe={},
        ) as writer:
            writer[tuple(slice(n) for n in shape)] = volume
            writer.attributes["quantisation"] = {"scale": 0.2, "offset": 3.0}
            writer.attributes["statistics"] = {
                "mean": 3.0,
                "standard_deviation": 11.5,
                "percentiles": {"0.1": -16.0, "99.9": 22.0},
            }
        return tomo

    return make


@pytest.mark.parametrize("cache_bytes", [0, 3 * CHUNK**3, 10**7])
def test_a_box_is_that_of_the_normalised_volume(quantised: Quantised, cache_bytes: int) -> None:
    tomo = quantised((40, 50, 60))
    whole = Normalisation.of(tomo.raw)(np.asarray(tomo.raw))
    plan = TilePlan(tomo.shape, TILE, OVERLAP)
    density = NormalisedDensity(tomo, cache_bytes)
    for index in plan.sweep:
        box = plan.read(index)
        np.testing.assert_array_equal(density(box), whole[box.slices])


@pytest.mark.parametrize("shape", [(56, 80, 80), (80, 80, 30), (33, 64, 100)])
def test_a_slab_that_is_kept_has_every_chunk_decoded_once(
    quantised: Quantised, shape: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    tomo = quantised(shape)
    plan = TilePlan(shape, TILE, OVERLAP)
    n_decoded = 0
    decode = Encoding.decode

    def counted(self: Encoding, data: bytes, buffer: Any) -> Any:
        nonlocal n_decoded
        n_decoded += 1
        return decode(self, data, buffer)

    def decodes(cache_bytes: int) -> int:
        nonlocal n_decoded
        n_decoded, density = 0, NormalisedDensity(tomo, cache_bytes)
        for index in plan.sweep:
            density(plan.read(index))
        return n_decoded

    monkeypatch.setattr(Encoding, "decode", counted)
    kept_bytes = slab_bytes(tomo.array("raw"), plan)
    n_chunks = int(np.prod([-(-n // CHUNK) for n in shape]))
    assert decodes(0) > 1.9 * n_chunks
    assert decodes(kept_bytes) == n_chunks
    assert kept_bytes <= n_chunks * CHUNK**3


@pytest.mark.parametrize("dtype", ["int8", "uint16", "int16", "float16", "float32"])
def test_one_pass_gives_the_bits_of_the_normalisation(tmp_path: Path, dtype: str) -> None:
    """Also of values that are clipped, and of those that are no numbers."""
    values = RNG.normal(20, 25, (20, 30, 33)).clip(0 if dtype == "uint16" else -120, 120)
    volume = values.astype(dtype)
    if dtype.startswith("float"):
        volume[3, 4, 5:8] = np.nan, np.inf, -np.inf
    tomo = create_collection(tmp_path / "c").add("ts_001")
    with tomo.write(
        "raw", dtype=dtype, shape=volume.shape, spacing_angstrom=(10.0,) * 3, recipe={}
    ) as writer:
        writer[tuple(slice(n) for n in volume.shape)] = volume
        writer.attributes["quantisation"] = {"scale": 0.37, "offset": -1.25}
        writer.attributes["statistics"] = {
            "mean": 6.1,
            "standard_deviation": 8.9,
            "percentiles": {"0.1": -7.3, "99.9": 21.7},
        }
    true = volume.astype(np.float32) * np.float32(0.37) + np.float32(-1.25)
    expected = Normalisation.of(tomo.raw)(true)
    np.testing.assert_array_equal(NormalisedDensity(tomo)(Box.whole(tomo.shape)), expected)
    if dtype.startswith("float"):
        assert expected[3, 4, 5] == 0


def test_copies_in_another_process_are_one_reader(quantised: Quantised) -> None:
    density = NormalisedDensity(quantised((40, 50, 60)), 10**6)
    one, other = (pickle.loads(pickle.dumps(density)) for _ in range(2))
    assert one is other
    assert one.shape == density.shape
    box = Box((3, 4, 5), (20, 40, 50))
    np.testing.assert_array_equal(one(box), density(box))
    assert len(pickle.dumps(density)) < 2000
