"""Metadata of arrays: what we read of them is what zarr reads; what is not ours is refused."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import zarr

from otzi.errors import VerificationError
from otzi.store.array_metadata import parse_array_metadata
from otzi.store.encoding import Encoding

if TYPE_CHECKING:
    from pathlib import Path


def _written(folder: Path, dtype: str, encoding: str, **options: Any) -> zarr.Array[Any]:
    kind = np.dtype(dtype)
    return zarr.create_array(
        folder,
        dtype=kind,
        compressors=Encoding(encoding).zarr_codecs(kind.itemsize),
        **{"shape": (2, 9, 20, 30), "chunks": (1, 4, 4, 4), "shards": (2, 12, 8, 4)} | options,
    )


@pytest.mark.parametrize("encoding", ["lz4", "lz4hc", "bitplanes", "plain", "zstd-1", "zstd-3"])
@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "uint16", "float16", "float32"])
def test_it_says_what_zarr_says(tmp_path: Path, dtype: str, encoding: str) -> None:
    stored = _written(tmp_path, dtype, encoding)
    found = parse_array_metadata((tmp_path / "zarr.json").read_bytes())
    assert found.grid.shape == stored.shape
    assert found.grid.chunk == stored.chunks
    assert found.grid.shard == stored.shards
    assert found.dtype == stored.dtype
    assert found.encoding == Encoding(encoding)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"shards": None}, "codecs"),
        ({"fill_value": 1}, "fill_value"),
        ({"chunk_key_encoding": {"name": "v2", "separator": "/"}}, "chunk_key_encoding"),
        ({"serializer": zarr.codecs.BytesCodec(endian="big")}, "endian"),
        ({"filters": [zarr.codecs.TransposeCodec(order=(3, 2, 1, 0))]}, "transpose"),
        ({"dtype": "bool"}, "data_type"),
    ],
)
def test_what_is_stored_otherwise_is_refused(
    tmp_path: Path, options: dict[str, Any], named: str
) -> None:
    dtype = options.pop("dtype", "int16")
    _written(tmp_path, dtype, "zstd-1", **options)
    with pytest.raises(VerificationError, match=named):
        parse_array_metadata((tmp_path / "zarr.json").read_bytes())


@pytest.mark.parametrize("text", [b"", b"{}", b"[]", b'{"codecs": []}', b"\xff"])
def test_what_is_no_array_is_refused(text: bytes) -> None:
    with pytest.raises(VerificationError, match="no sharded array"):
        parse_array_metadata(text)


def test_an_index_elsewhere_is_refused(tmp_path: Path) -> None:
    _written(tmp_path, "uint8", "zstd-1")
    document = json.loads((tmp_path / "zarr.json").read_text())
    document["codecs"][0]["configuration"]["index_location"] = "start"
    with pytest.raises(VerificationError, match="index_location"):
        parse_array_metadata(json.dumps(document).encode())
