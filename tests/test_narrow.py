"""Narrow types: to the last bit, or not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mrc_files import mrc_bytes
from otzi.collection import open_collection
from otzi_pipelines.ingest import convert as convert_module
from otzi_pipelines.ingest.batch import ingest
from otzi_pipelines.ingest.narrow import DoesNotFit, exact_dtypes, narrowed
from otzi_pipelines.ingest.sources import Reading, read_sources

if TYPE_CHECKING:
    from pathlib import Path

RNG = np.random.default_rng(8)
SHAPE = (40, 30, 20)
INTEGERS = (np.int8, np.int16, np.uint16)


def _source(folder: Path, volume: np.ndarray, **fields: Any) -> Path:
    path = folder / "a.mrc"
    path.write_bytes(mrc_bytes(volume, **fields))
    return path


@settings(deadline=None)
@given(
    st.lists(
        st.one_of(
            st.floats(width=32),
            st.integers(-40000, 70000).map(float),
            st.sampled_from([0.0, -0.0, 127.0, 128.0, -128.0, 65535.0, 65536.0, np.nan, np.inf]),
        ),
        min_size=1,
        max_size=4,
    ),
    st.sampled_from(INTEGERS),
)
def test_what_is_narrowed_comes_back_to_the_last_bit(values: list[float], dtype: Any) -> None:
    block = np.array(values, np.float32)
    info = np.iinfo(dtype)
    holds = all(
        v == v and abs(v) < 1e6 and v == int(v) and info.min <= v <= info.max
        and not (v == 0 and np.signbit(v))
        for v in values
    )  # fmt: skip
    if holds:
        narrow = narrowed(block, np.dtype(dtype))
        assert narrow.dtype == dtype
        assert narrow.astype(np.float32).tobytes() == block.tobytes()
    else:
        with pytest.raises(DoesNotFit):
            narrowed(block, np.dtype(dtype))


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(
    ("low", "high", "dtype"),
    [
        (-128, 127, np.int8),
        (-129, 127, np.int16),
        (0, 65535, np.uint16),
        (-1, 65535, np.float32),  # no type has both ends
        (0, 20, np.float32),  # too coarse: its means would be rounded
    ],
)
def test_the_narrowest_type_is_stored(
    tmp_path: Path, order: str, low: int, high: int, dtype: Any
) -> None:
    volume = RNG.integers(low, high, SHAPE, endpoint=True).astype(np.float32)
    volume[20, 15, :2] = low, high
    ingest(tmp_path / "c", [_source(tmp_path, volume, order=order)])
    tomo = open_collection(tmp_path / "c")["a"]
    stored = tomo.array("raw")[...]
    assert stored.dtype == dtype
    assert stored.astype(np.float32).tobytes() == volume.tobytes()
    assert tomo.attributes("raw")["source"]["header"]["dtype"] == "float32"
    statistics = tomo.attributes("raw")["statistics"]
    assert (statistics["minimum"], statistics["maximum"]) == (low, high)


@pytest.mark.parametrize("odd", [0.5, -0.0, np.nan, np.inf, 1e9])
def test_one_voxel_that_does_not_fit_is_enough(tmp_path: Path, odd: float) -> None:
    """It lies where the look beforehand does not see it."""
    volume = RNG.integers(-999, 999, SHAPE).astype(np.float32)
    volume[volume == 0] = 1
    volume[37, 29, 19] = odd
    path = _source(tmp_path, volume)
    (source,) = read_sources(path, Reading())
    assert exact_dtypes(source) == [np.int16, np.float32]
    ingest(tmp_path / "c", [path])
    col = open_collection(tmp_path / "c")
    assert col["a"].array("raw")[...].tobytes() == volume.tobytes()
    assert not [p for p in (col.path / ".staging").iterdir() if p.suffix != ".lock"]


def test_noise_is_told_by_one_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _source(tmp_path, RNG.normal(0, 100, SHAPE).astype(np.float32))
    (source,) = read_sources(path, Reading())
    monkeypatch.setattr(convert_module, "narrowed", None)
    assert exact_dtypes(source) == [np.float32]
    assert ingest(tmp_path / "c", [path]).exit_code == 0
