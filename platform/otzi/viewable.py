"""What Neuroglancer can show, and why not, before somebody looks at a grey screen.  Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import DTypeLike

__all__ = ["is_viewable_dtype", "viewing_problems"]

_DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "float32")
_CODECS = {"blosc", "bytes", "crc32c", "gzip", "sharding_indexed", "transpose", "zstd"}
_LARGEST_CHUNK_VOXELS = 2048
"""Of a 3-D texture on common graphics hardware."""


def is_viewable_dtype(dtype: DTypeLike) -> bool:
    """Tell whether voxels of this type can be shown; float16 and float64 cannot."""
    return np.dtype(dtype).name in _DTYPES


def viewing_problems(array: Mapping[str, Any], axes: Sequence[Mapping[str, Any]]) -> list[str]:
    """Give why an array cannot be shown, each with its remedy; an empty list where it can.

    Parameters
    ----------
    array
        The content of its ``zarr.json`` (Zarr v3).
    axes
        The OME-Zarr axes of its image.
    """
    problems = []
    if not is_viewable_dtype(dtype := array["data_type"]):
        problems.append(f"{dtype} voxels: store them as float32 or uint8")
    shape, chunk = array["shape"], _inner_chunk(array)
    for axis, extent, length in zip(axes, shape, chunk, strict=True):
        if axis["type"] == "channel" and length != extent:
            problems.append(
                f"{extent} channels in chunks of {length}: put all channels into one chunk"
            )
        if axis["type"] == "space" and not axis.get("unit"):
            problems.append(f"axis {axis['name']} has no unit: write it as angstrom")
        if length > _LARGEST_CHUNK_VOXELS:
            problems.append(
                f"chunks of {length} along {axis['name']}, at most {_LARGEST_CHUNK_VOXELS} fit "
                "into a texture: take smaller ones"
            )
    unknown = sorted(set(_codec_names(array["codecs"])) - _CODECS)
    if unknown:
        problems.append(f"codec {', '.join(unknown)}: take zstd or blosc")
    return problems


def _inner_chunk(array: Mapping[str, Any]) -> Sequence[int]:
    for codec in array["codecs"]:
        if codec["name"] == "sharding_indexed":
            inner: Sequence[int] = codec["configuration"]["chunk_shape"]
            return inner
    outer: Sequence[int] = array["chunk_grid"]["configuration"]["chunk_shape"]
    return outer


def _codec_names(codecs: Sequence[Mapping[str, Any]]) -> list[str]:
    names = []
    for codec in codecs:
        names.append(codec["name"])
        names += _codec_names(codec.get("configuration", {}).get("codecs", []))
    return names
