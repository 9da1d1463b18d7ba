"""Files that are likely to have the same bytes: whoever takes one of them takes all."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

__all__ = ["first_twins"]

_SAMPLE_BYTES = 1 << 16


def first_twins(ids: Iterable[str], sources: Mapping[str, Path]) -> dict[str, str]:
    """Give for each id the first, in their order, whose file looks the same; itself without a file.

    Only the length and a sample of the bytes are compared: not to say that files are the same, but
    to have those that may be looked at by one and the same run.
    """
    firsts: dict[bytes, str] = {}
    found = {}
    for id_ in ids:
        sample = _sample(sources[id_]) if id_ in sources else None
        found[id_] = id_ if sample is None else firsts.setdefault(sample, id_)
    return found


def _sample(path: Path) -> bytes | None:
    """Give a digest of the length, the beginning, the middle and the end of a file.

    None where it cannot be read, which is said by whoever ingests it.
    """
    try:
        with path.open("rb") as file:
            n_bytes = file.seek(0, 2)
            digest = hashlib.sha256(str(n_bytes).encode())
            for place in (0, n_bytes // 2, max(0, n_bytes - _SAMPLE_BYTES)):
                file.seek(place)
                digest.update(file.read(_SAMPLE_BYTES))
    except OSError:
        return None
    return digest.digest()
