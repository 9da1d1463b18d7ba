"""The sweep: what nobody holds and nothing points at is removed."""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from otzi.errors import Locked, VerificationError, disk_errors
from otzi.ledger.sqlite import read_catalog
from otzi.ledger.staging import folder_bytes, staged_work
from otzi.store.derived import outdated
from otzi.store.folders import product_folders, tomogram_folders
from otzi.store.groups import current_generation, generations
from otzi.store.journal import half_journals
from otzi.store.locks import is_held, lock_file, locked
from otzi.store.publish import staging_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Litter", "Sweep", "sweep", "sweep_staging"]

_OLD_SECONDS = 3600.0

Known = set[Path] | None
"""The folders of what the catalog knows to be published; None where it is not to be trusted."""


@dataclass(frozen=True, slots=True)
class Litter:
    """Something that is in no use."""

    path: Path
    what: str
    """``interrupted work``, ``orphaned generation``, ``unused lock``, ``half a file``, or what was
    derived of content that is gone: ``outdated``."""
    n_bytes: int

    @classmethod
    def of(cls, path: Path, what: str) -> Litter:
        """Give the litter of a path, with its size."""
        return cls(path, what, folder_bytes(path))


@dataclass(frozen=True, slots=True)
class Sweep:
    """What was swept, and what was left because somebody works on it."""

    litter: tuple[Litter, ...]
    held: tuple[str, ...]

    @property
    def n_bytes(self) -> int:
        """What it took on the disk."""
        return sum(item.n_bytes for item in self.litter)


def sweep(collection: Path, *, dry_run: bool = False) -> Sweep:
    """Give what is in no use, and remove it: interrupted work, orphaned generations, half files.

    A generation that nothing points at goes only where it is known that nothing should: if the
    pointer is damaged, or lost and the catalog knows better or is lost too, it stays.

    Parameters
    ----------
    collection
        Its folder.
    dry_run
        Whether to look only.

    Raises
    ------
    AccessDenied, TemporaryFailure
        If something cannot be removed.
    """
    litter: list[Litter] = []
    held: list[str] = []
    known = _known(collection)
    for staging, product in _places(collection, known).items():
        lock = lock_file(staging)
        if is_held(lock):
            held.append(staging.name)
        elif dry_run:
            litter += _litter(staging, product, known)
        else:
            try:
                litter += _swept(staging, product, known)
            except Locked:
                held.append(staging.name)
    loose = [Litter.of(path, "half a file") for path in _half_files(collection)]
    loose += [Litter.of(path, "outdated") for path in _outdated_files(collection)]
    for item in loose:
        litter.append(item)
        if not dry_run:
            with disk_errors(item.path, "removing"):
                item.path.unlink(missing_ok=True)
    return Sweep(tuple(litter), tuple(held))


def sweep_staging(collection: Path, tomogram: str, product: str) -> None:
    """Remove what an interrupted run has left of a product that is published meanwhile.

    Raises
    ------
    Locked
        If somebody is making it anew.
    """
    staging = staging_folder(collection, collection / "tomograms" / tomogram / product)
    if any(item.what == "interrupted work" for item in _litter(staging, None, None)):
        _swept(staging, None, None)


def _swept(staging: Path, product: Path | None, known: Known) -> list[Litter]:
    """Remove what is in no use, looked at once more with the lock in hand."""
    had_lock = lock_file(staging).exists()
    with disk_errors(staging, "removing"), locked(lock_file(staging)):
        found = _litter(staging, product, known)
        for item in found:
            if item.path.is_dir():
                shutil.rmtree(item.path)
            else:
                item.path.unlink(missing_ok=True)
    return [item for item in found if had_lock or item.path != lock_file(staging)]


def _places(collection: Path, known: Known) -> dict[Path, Path | None]:
    """Give every staging folder with something to sweep, and its product where that is known."""
    places: dict[Path, Path | None] = {work.folder: None for work in staged_work(collection)}
    for tomogram in tomogram_folders(collection):
        for folder in product_folders(tomogram).values():
            staging = staging_folder(collection, folder)
            if staging in places or _orphans(folder, known):
                places[staging] = folder
    return places


def _known(collection: Path) -> Known:
    try:
        with read_catalog(collection) as catalog:
            if catalog is None or catalog.problems():
                return None
            places = catalog.digests()
    except VerificationError:
        return None
    return {collection / "tomograms" / tomogram / product for tomogram, product in places}


def _litter(staging: Path, product: Path | None, known: Known) -> list[Litter]:
    journal = staging.with_name(f"{staging.name}.journal")
    candidates = [(staging, "interrupted work"), (journal, "interrupted work")]
    candidates += [(path, "interrupted work") for path in half_journals(journal)]
    candidates += [(path, "orphaned generation") for path in _orphans(product, known)]
    candidates += [(lock_file(staging), "unused lock")]
    return [Litter.of(path, what) for path, what in candidates if path.exists()]


def _orphans(product: Path | None, known: Known) -> list[Path]:
    """Give the generations that nothing points at, if it is sure that nothing should."""
    if product is None:
        return []
    try:
        current = current_generation(product)
    except VerificationError:
        return []
    if current is None:
        is_lost = known is None or product in known
        return [] if is_lost else generations(product)
    return [path for path in generations(product) if path != current] if current.is_dir() else []


def _half_files(collection: Path) -> Iterator[Path]:
    """Yield files that a kill left half written; whoever writes one now renames it at once."""
    newest = time.time() - _OLD_SECONDS
    for folder, folders, names in os.walk(collection):
        folders[:] = [name for name in folders if name != ".staging"]
        for name in names:
            path = Path(folder, name)
            if name.endswith(".partial") and _changed(path) < newest:
                yield path


def _outdated_files(collection: Path) -> Iterator[Path]:
    """Yield what was derived of content that is published no more."""
    for tomogram in tomogram_folders(collection):
        for product in product_folders(tomogram).values():
            yield from outdated(product)


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:  # renamed meanwhile
        return time.time()
