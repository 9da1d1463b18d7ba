"""The catalog follows the tree: a row after each publish, and all rows again when they are lost.

A run that is killed between the pointer and its row leaves a product that the catalog does not
know; the next one that opens the collection to write adopts it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from otzi.errors import VerificationError
from otzi.ledger.published import read_published
from otzi.ledger.sqlite import Catalog, ledger_path, open_catalog, read_catalog
from otzi.store.folders import product_folders, tomogram_folders
from otzi.store.groups import current_generation, read_group
from otzi.store.manifest import manifest_digest

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["rebuild", "reconcile", "record"]


def record(collection: Path, tomogram: str, product: str) -> None:
    """Keep the row of a product that was just published."""
    folder = collection / "tomograms" / tomogram / product
    with open_catalog(collection) as catalog, catalog.transaction():
        if catalog.attributes is None:
            _follow(catalog, collection)
        elif published := read_published(folder, tomogram, product):
            catalog.put(published)


def reconcile(collection: Path) -> list[VerificationError]:
    """Bring the catalog up to the tree; give what could not be read, whose rows stay as they are.

    Raises
    ------
    VerificationError
        If the catalog is damaged.
    """
    with open_catalog(collection) as catalog, catalog.transaction():
        return _follow(catalog, collection)


def rebuild(collection: Path) -> list[VerificationError]:
    """Make all rows again from the tree; give what could not be read, whose rows stay."""
    if _is_damaged(collection):
        path = ledger_path(collection)
        for name in (path.name, f"{path.name}-wal", f"{path.name}-shm"):
            path.with_name(name).unlink(missing_ok=True)
    with open_catalog(collection) as catalog, catalog.transaction():
        return _follow(catalog, collection, is_anew=True)


def _is_damaged(collection: Path) -> bool:
    try:
        with read_catalog(collection) as catalog:
            return catalog is not None and bool(catalog.problems())
    except VerificationError:
        return True


def _follow(
    catalog: Catalog, collection: Path, *, is_anew: bool = False
) -> list[VerificationError]:
    """Read the tree while no other row is written: one that comes later is later in the tree."""
    said = (read_group(collection) or {}).get("otzi")
    if said and (is_anew or catalog.attributes is None):
        catalog.put_attributes(said)
    known, unreadable = catalog.digests(), []
    for tomogram in tomogram_folders(collection):
        for product, folder in product_folders(tomogram).items():
            digest = known.pop((tomogram.name, product), None)
            try:
                if not is_anew and digest is not None and _digest(folder) == digest:
                    continue
                published = read_published(folder, tomogram.name, product)
            except VerificationError as error:
                unreadable.append(error)
                continue
            if published is not None:
                catalog.put(published)
            elif digest is not None:
                catalog.remove(tomogram.name, product)
    for key in known:
        catalog.remove(*key)
    return unreadable


def _digest(product: Path) -> str | None:
    generation = current_generation(product)
    try:
        return None if generation is None else manifest_digest(generation)
    except FileNotFoundError:
        return None
