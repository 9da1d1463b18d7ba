"""What a product says of the file it was made from, and the extended header that it keeps."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from otzi.mrc_fields import HEADER_BYTES
from otzi_pipelines.ingest.source_files import reading_source

if TYPE_CHECKING:
    from pathlib import Path

    from otzi_pipelines.ingest.sources import Source

__all__ = ["EXTENDED_HEADER", "keep_extended_header", "provenance"]

EXTENDED_HEADER = "extended_header.bin"

_MOST_KEPT_BYTES = 64 * 2**20


def provenance(source: Source, sha256: str) -> dict[str, Any]:
    """Give what a product says of its source: name, digest, header, and how it was taken."""
    header = source.header
    said: dict[str, Any] = {
        "name": source.path.name,
        "n_bytes": source.n_bytes,
        "sha256": sha256,
        "header_base64": base64.b64encode(header.raw).decode("ascii"),
        "header": header.to_json(),
        "warnings": list(source.warnings),
    }
    if source.packing is not None:
        said["compression"] = source.packing
    if source.volume is not None:
        said["volume"] = {"number": source.volume, "of": source.n_volumes}
    return said


def keep_extended_header(source: Source, folder: Path) -> dict[str, Any] | None:
    """Put the extended header of a source into a folder as it is, and give what it is.

    Returns
    -------
    dict or None
        ``type``, ``n_bytes`` and the name of the ``file``, which is None for one of more than
        64 MiB: no program writes so much. None where there is no extended header.

    Raises
    ------
    SourceError
        If the source cannot be read.
    """
    header = source.header
    if not header.nsymbt:
        return None
    is_kept = header.nsymbt <= _MOST_KEPT_BYTES
    if is_kept:
        with reading_source(source.path), source.data_path.open("rb") as file:
            file.seek(HEADER_BYTES)
            data = file.read(header.nsymbt)
        (folder / EXTENDED_HEADER).write_bytes(data)
    return {
        "type": header.exttyp,
        "n_bytes": header.nsymbt,
        "file": EXTENDED_HEADER if is_kept else None,
    }
