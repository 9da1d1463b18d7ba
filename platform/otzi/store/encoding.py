"""How a chunk becomes bytes: compression and checksum, for our writer and in Zarr's own words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numcodecs import Blosc, Zstd

from otzi.errors import VerificationError
from otzi.store.checksum import checked, with_checksum

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = ["Encoding", "encoding_for", "encoding_of"]


@dataclass(frozen=True, slots=True)
class Encoding:
    """A chain of codecs; each ends in a checksum, so that a flipped bit cannot pass unseen."""

    name: str
    """``lz4`` (fast, lossless), ``zstd-LEVEL`` (smooth data, labels) or ``plain``."""

    def zarr_codecs(self, itemsize: int) -> list[Any]:
        """Give the chain as Zarr writes it into the metadata."""
        from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec

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
            blosc = Blosc(cname="lz4", clevel=5, shuffle=Blosc.BITSHUFFLE)
            return with_checksum(bytes(blosc.encode(chunk)))
        if self.name == "plain":
            return with_checksum(chunk.tobytes())
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
            return np.frombuffer(checked(data), buffer.dtype).reshape(buffer.shape)
        if self.name == "lz4":
            Blosc().decode(checked(data), buffer)
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
