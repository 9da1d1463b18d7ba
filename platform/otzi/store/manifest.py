"""The manifest of a generation: size and CRC-32C of every file, by path within it."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from otzi.errors import OtziError, VerificationError
from otzi.store.checksum import crc32c

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from otzi.store.location import Place

__all__ = [
    "MANIFEST",
    "file_record",
    "manifest_digest",
    "manifest_text",
    "parse_manifest",
    "read_manifest",
]

MANIFEST = "manifest.json"
_READ_BYTES = 1 << 24


def manifest_text(files: Mapping[str, tuple[int, int]]) -> str:
    """Give the manifest of files of these sizes and CRC-32Cs, as it is written, to the byte."""
    lines = (
        f'  {json.dumps(name)}: [{n_bytes}, "{crc:08x}"]' for name, (n_bytes, crc) in files.items()
    )
    body = '{"files": {\n' + ",\n".join(lines) + "\n},\n"
    return f'{body}"crc32c": "{crc32c(body.encode()):08x}"}}\n'


def parse_manifest(text: bytes) -> dict[str, tuple[int, int]]:
    """Give what `manifest_text` was made from."""
    files = json.loads(text)["files"]
    return {name: (int(n_bytes), int(crc, 16)) for name, (n_bytes, crc) in files.items()}


def read_manifest(generation: Place) -> dict[str, tuple[int, int]]:
    """Give size and CRC-32C of every file of a generation, by path within it.

    Raises
    ------
    VerificationError
        If the manifest is missing or damaged.
    """
    try:
        return parse_manifest((generation / MANIFEST).read_bytes())
    except OtziError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise VerificationError(f"the manifest of {generation} is lost: {error}") from error


def manifest_digest(generation: Place) -> str:
    """Give the SHA-256 that identifies the content of a generation."""
    return hashlib.sha256((generation / MANIFEST).read_bytes()).hexdigest()


def file_record(path: Path) -> tuple[int, int]:
    """Give size and CRC-32C of a file, which is read piece by piece."""
    n_bytes = checksum = 0
    with path.open("rb") as file:
        while data := file.read(_READ_BYTES):
            checksum = crc32c(data, checksum)
            n_bytes += len(data)
    return n_bytes, checksum
