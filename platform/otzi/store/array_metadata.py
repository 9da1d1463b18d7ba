"""What an array of ours is, from its ``zarr.json`` (Zarr v3).  Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from otzi.errors import VerificationError
from otzi.store.encoding import Encoding, encoding_of
from otzi.store.grid import LevelGrid

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ArrayMetadata", "parse_array_metadata"]

_DTYPES = {
    "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
    "float16", "float32", "float64",
}  # fmt: skip
_KEYS = {"name": "default", "configuration": {"separator": "/"}}


@dataclass(frozen=True, slots=True)
class ArrayMetadata:
    """How an array is cut, typed and encoded."""

    grid: LevelGrid
    dtype: np.dtype[Any]
    encoding: Encoding


def parse_array_metadata(text: bytes) -> ArrayMetadata:
    """Give the array that a ``zarr.json`` describes.

    Raises
    ------
    VerificationError
        If it is no array, or stored in another way than otzi does.
    """
    try:
        return _parsed(json.loads(text))
    except VerificationError:
        raise
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise VerificationError(f"it is no sharded array of Zarr v3: {error!r}") from error


def _parsed(metadata: Mapping[str, Any]) -> ArrayMetadata:
    sharding = metadata["codecs"][0]
    inner = sharding["configuration"]
    ours = {
        "zarr_format": (metadata["zarr_format"], 3),
        "node_type": (metadata["node_type"], "array"),
        "chunk_grid": (metadata["chunk_grid"]["name"], "regular"),
        "chunk_key_encoding": (metadata["chunk_key_encoding"], _KEYS),
        "fill_value": (metadata["fill_value"], 0),
        "codecs": (sharding["name"], "sharding_indexed"),
        "index_location": (inner.get("index_location", "end"), "end"),
        "index_codecs": ([c["name"] for c in inner["index_codecs"]], ["bytes", "crc32c"]),
        "endian": (inner["codecs"][0].get("configuration", {}).get("endian", "little"), "little"),
    }
    for name, (found, expected) in ours.items():
        if found != expected:
            raise VerificationError(f"its {name} is {found!r}, not {expected!r} as otzi writes it")
    if metadata["data_type"] not in _DTYPES:
        raise VerificationError(f"its data_type is {metadata['data_type']!r}, not a number's")
    shape = tuple(metadata["shape"])
    chunk, shard = (
        tuple(part["chunk_shape"]) for part in (inner, metadata["chunk_grid"]["configuration"])
    )
    return ArrayMetadata(
        LevelGrid(shape, chunk, shard), np.dtype(metadata["data_type"]), encoding_of(metadata)
    )
