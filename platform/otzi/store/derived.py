"""What was computed of a published product, kept beside it for whoever wants it next.

It lies in ``.derived`` of the product's folder, named by the digest of the content that it was
computed of. It is no part of what is published: whoever finds it gone, damaged, or of another
content computes it again, and `otzi gc` removes what the current content has no use for.
"""

from __future__ import annotations

import zipfile
import zlib
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from otzi.errors import OtziError
from otzi.files import writing_whole
from otzi.store.groups import current_generation
from otzi.store.manifest import manifest_digest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from otzi.store.location import Location

__all__ = ["DERIVED", "derived", "outdated"]

DERIVED = ".derived"
_DIGITS = 32
_DAMAGES = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)


def derived(
    product: Location, digest: str, name: str, make: Callable[[], Mapping[str, NDArray[Any]]]
) -> dict[str, NDArray[Any]]:
    """Give arrays that follow from a product: those that were kept, otherwise made and kept.

    In an object store, and where nothing can be written, nothing is kept.

    Parameters
    ----------
    product
        Its folder.
    digest
        Of the content that they follow from, see `otzi.tomogram.Tomogram.digest`.
    name
        What tells them from others that follow from the same content.
    make
        Makes them.
    """
    if not isinstance(product, Path):
        return dict(make())
    path = product / DERIVED / f"{digest[:_DIGITS]}-{name}.npz"
    with suppress(*_DAMAGES), path.open("rb") as file, np.load(file, allow_pickle=False) as kept:
        return {key: kept[key] for key in kept.files}
    made: dict[str, Any] = dict(make())
    with suppress(OSError):
        path.parent.mkdir(exist_ok=True)
        with writing_whole(path) as whole:
            np.savez(whole, **made)
    return made


def outdated(product: Path) -> list[Path]:
    """Give the files of a product that do not follow from its current content, sorted."""
    files = sorted((product / DERIVED).glob("*.npz"))
    if not files:
        return []
    try:
        current = current_generation(product)
        digest = manifest_digest(current)[:_DIGITS] if current else None
    except (OtziError, OSError):
        return []  # not known what is current: `otzi verify` says why
    return [path for path in files if path.name.partition("-")[0] != digest]
