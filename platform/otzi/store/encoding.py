"""How a chunk becomes bytes: compression and checksum, for our writer and in Zarr's own words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numcodecs.blosc
import numpy as np
from numcodecs import Blosc, Zstd

from otzi.errors import VerificationError
from otzi.store.checksum import checked, with_checksum

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = ["Encoding", "encoding_for", "encoding_of"]

_Shuffle = Literal["noshuffle", "bitshuffle"]

_BLOSC: dict[str, tuple[Literal["lz4", "lz4hc", "zstd"], int, _Shuffle, int]] = {
    "lz4": ("lz4", 5, "bitshuffle", 0),
    "lz4hc": ("lz4hc", 5, "noshuffle", 0),
    "bitplanes": ("zstd", 1, "bitshuffle", 64**3),
}
"""Compressor, level, shuffle and block size in bytes, 0 being Blosc's choice. A block of bit planes
is a channel of a chunk of 64³ uint8."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """A chain of codecs; each ends in a checksum, so that a flipped bit cannot pass unseen."""

    name: str
    """``lz4`` (fast, lossless), ``lz4hc`` (soft labels, read much more often than written),
    ``zstd-LEVEL`` (smooth data, hard labels), ``bitplanes`` (grey levels of which the upper bits
    are smooth and the lower ones noise) or ``plain``."""

    def zarr_codecs(self, itemsize: int) -> list[Any]:
        """Give the chain as Zarr writes it into the metadata."""
        from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec

        if self.name in _BLOSC:
            cname, clevel, shuffle, blocksize = _BLOSC[self.name]
            blosc = BloscCodec(
                cname=cname,
                clevel=clevel,
                shuffle=shuffle,
                typesize=itemsize,
                blocksize=blocksize,
            )
            return [blosc, Crc32cCodec()]
        if self.name == "plain":
            return [Crc32cCodec()]
        return [ZstdCodec(level=self._zstd_level, checksum=True)]

    def encode(self, chunk: NDArray[Any]) -> bytes:
        """Give the bytes of a C-contiguous little-endian chunk."""
        if self.name in _BLOSC:
            cname, clevel, shuffle, blocksize = _BLOSC[self.name]
            # Threads of Blosc lay blocks down in the order in which they are ready.
            numcodecs.blosc.use_threads = False
            order = Blosc.BITSHUFFLE if shuffle == "bitshuffle" else Blosc.NOSHUFFLE
            codec = Blosc(cname, clevel, order, blocksize)
            return with_checksum(bytes(codec.encode(chunk)))
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
        if self.name in _BLOSC:
            Blosc().decode(checked(data), buffer)
        else:
            Zstd().decode(data, buffer)
        return buffer

    @property
    def _zstd_level(self) -> int:
        return int(self.name.removeprefix("zstd-"))


def encoding_for(kind: str, dtype: np.dtype[Any], *, has_channels: bool = False) -> Encoding:
    """Give the encoding of a product: noise barely compresses, probabilities and labels do.

    Labels with channels are soft. Of the votes of a forest zstd-3 makes 140 to 180 kB of each 262,
    lz4hc 165 to 218 kB, but the latter are decoded three times as fast, for every crop of them.
    """
    if kind == "labels":
        return Encoding("lz4hc" if has_channels else "zstd-3")
    if kind == "view":
        return Encoding("bitplanes")
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
            compressor = codecs[1]["configuration"]["cname"]
            return Encoding("bitplanes" if compressor == "zstd" else compressor)
        case ["bytes", "crc32c"]:
            return Encoding("plain")
        case ["bytes", "zstd"]:
            return Encoding(f"zstd-{codecs[1]['configuration']['level']}")
        case names:
            raise VerificationError(f"chunks are encoded by {', '.join(names)}, not by otzi")
