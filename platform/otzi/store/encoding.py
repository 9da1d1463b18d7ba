"""How a chunk becomes bytes: compression and checksum, for our writer and in Zarr's own words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import google_crc32c
import numpy as np
from numcodecs import Blosc, Zstd
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec

from otzi.errors import VerificationError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

_RESIDUE = 0x48674BC7
"""CRC-32C of any data that is followed by its own CRC-32C, least byte first."""

__all__ = ["Encoding", "crc32c", "encoding_for", "encoding_of"]


@dataclass(frozen=True, slots=True)
class Encoding:
    """A chain of codecs; each ends in a checksum, so that a flipped bit cannot pass unseen."""

    name: str
    """``lz4`` (fast, lossless), ``zstd-LEVEL`` (smooth data, labels) or ``plain``."""

    def zarr_codecs(self, itemsize: int) -> list[Any]:
        """Give the chain as Zarr writes it into the metadata."""
        if self.name == "lz4":
            blosc = BloscCodec(
                cname="lz4", clevel=5, shuffle="bitshuffle", typesize=itemsize, blocksize=0
            )
            return [blosc, Crc32cCodec()]
        if self.name == "plain":
            return [Crc32cCodec()]
        return [ZstdCodec(level=self._zstd_level, checksum=True)]

    def encode(self, chunk: NDArray[Any]) -> bytes:
        """Give the bytes of a C-contiguous little-endian chunk."""
        if self.name == "lz4":
            return _with_checksum(
                Blosc(cname="lz4", clevel=5, shuffle=Blosc.BITSHUFFLE).encode(chunk)
            )
        if self.name == "plain":
            return _with_checksum(chunk.tobytes())
        return bytes(Zstd(level=self._zstd_level, checksum=True).encode(chunk))

    def decode(self, data: bytes, buffer: NDArray[Any]) -> NDArray[Any]:
        """Give the voxels of a chunk's bytes, of the shape and type of the buffer.

        They are in the buffer, C-contiguous, or where they lie in the data if they are plain.

        Raises
        ------
        ValueError, RuntimeError
            If the checksum does not match, or there are too few or too many bytes.
        """
        if self.name == "plain":
            return np.frombuffer(_checked(data), buffer.dtype).reshape(buffer.shape)
        if self.name == "lz4":
            Blosc().decode(_checked(data), buffer)
        else:
            Zstd().decode(data, buffer)
        return buffer

    @property
    def _zstd_level(self) -> int:
        return int(self.name.removeprefix("zstd-"))


def encoding_for(kind: str, dtype: np.dtype[Any]) -> Encoding:
    """Give the encoding of a product: noise barely compresses, probabilities and labels do."""
    if kind == "labels":
        return Encoding("zstd-3")
    if kind != "raw" or dtype.itemsize == 1:
        return Encoding("zstd-1")
    return Encoding("plain" if dtype == np.float16 else "lz4")


def encoding_of(metadata: Mapping[str, Any]) -> Encoding:
    """Give the encoding of an array's Zarr v3 metadata.

    Raises
    ------
    VerificationError
        If it is none of ours.
    """
    codecs = metadata["codecs"]
    if codecs and codecs[0]["name"] == "sharding_indexed":
        codecs = codecs[0]["configuration"]["codecs"]
    match [codec["name"] for codec in codecs]:
        case ["bytes", "blosc", "crc32c"]:
            return Encoding("lz4")
        case ["bytes", "crc32c"]:
            return Encoding("plain")
        case ["bytes", "zstd"]:
            return Encoding(f"zstd-{codecs[1]['configuration']['level']}")
        case names:
            raise VerificationError(f"chunks are encoded by {', '.join(names)}, not by otzi")


def crc32c(data: bytes, start: int = 0) -> int:
    """Give the CRC-32C of the data, going on from `start`."""
    return int(google_crc32c.extend(start, data))


def _checked(data: bytes) -> memoryview:
    if crc32c(data) != _RESIDUE:
        raise ValueError("the checksum does not match")
    return memoryview(data)[:-4]


def _with_checksum(data: bytes) -> bytes:
    return bytes(data) + crc32c(bytes(data)).to_bytes(4, "little")
