"""CRC-32C, with which every chunk, index and manifest ends."""

from __future__ import annotations

import google_crc32c

__all__ = ["checked", "crc32c", "with_checksum"]

_N_BYTES = 4
_RESIDUE = 0x48674BC7
"""CRC-32C of any data that is followed by its own CRC-32C, least byte first."""


def crc32c(data: bytes, start: int = 0) -> int:
    """Give the CRC-32C of the data, going on from `start`."""
    return int(google_crc32c.extend(start, data))


def with_checksum(data: bytes) -> bytes:
    """Give the data followed by their CRC-32C, least byte first."""
    return data + crc32c(data).to_bytes(_N_BYTES, "little")


def checked(data: bytes) -> memoryview:
    """Give what `with_checksum` was given, where it lies.

    Raises
    ------
    ValueError
        If the checksum does not match.
    """
    if crc32c(data) != _RESIDUE:
        raise ValueError("the checksum does not match")
    return memoryview(data)[:-_N_BYTES]
