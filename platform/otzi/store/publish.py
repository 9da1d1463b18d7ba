"""Published means whole: staging, manifest, sync, one rename, one pointer.

A product lives in generations, ``<product>/1``, ``<product>/2`` …; each is immutable. The pointer
is the attribute ``otzi.current`` of the product's own Zarr group, replaced by one atomic rename of
its ``zarr.json``. What is not pointed at does not exist: a killed run left it, and the next one
takes it back and goes on.
"""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from otzi.errors import (
    DeviceUnavailable,
    OutOfSpace,
    TemporaryFailure,
    VerificationError,
    disk_errors,
)
from otzi.files import sync_folder, writing_whole
from otzi.store.crashpoints import reach
from otzi.store.groups import (
    GROUP,
    current_generation,
    generations,
    pointer_attributes,
    write_group,
)
from otzi.store.journal import Journal
from otzi.store.locks import lock_file, locked
from otzi.store.manifest import MANIFEST, file_record, manifest_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

__all__ = ["Staging", "in_staging", "seal", "staged", "staging_folder"]

_RESUMABLE = (KeyboardInterrupt, SystemExit, MemoryError, TemporaryFailure, DeviceUnavailable)


@dataclass(slots=True)
class Staging:
    """A product in the making, seen by nobody."""

    path: Path
    """The folder to write into; it becomes the published generation."""
    journal: Journal
    """Its shards that are whole; what an interrupted run of the same plan wrote is there."""
    attributes: dict[str, Any] = field(default_factory=dict)
    """What the product says of itself, ``attributes.otzi`` of the published group."""
    ome: dict[str, Any] | None = None
    """OME-Zarr metadata, for a product that is an image."""
    is_kept: bool = False
    """Whether it stays on the disk whatever fails: it is complete, and lacks publishing only."""

    def shards_of(self, level: int) -> set[tuple[int, ...]]:
        """Give the indices of the shards of a level that are whole."""
        keys = (key.split("/c/") for key in self.journal.records)
        return {
            tuple(int(i) for i in index.split("/")) for name, index in keys if name == str(level)
        }


def staging_folder(collection: Path, product: Path) -> Path:
    """Give the folder in which a product is made."""
    return collection / ".staging" / ".".join(product.relative_to(collection).parts)


@contextmanager
def staged(collection: Path, product: Path, plan: Mapping[str, Any]) -> Iterator[Staging]:
    """Stage a product; it is published on leaving without an exception.

    What was interrupted is kept, and a run of the same plan goes on from there; what failed for a
    reason that stays is removed.

    Parameters
    ----------
    collection, product
        Their folders.
    plan
        All that decides the content, as plain JSON.

    Raises
    ------
    Locked
        If somebody else is making the same product.
    OutOfSpace, AccessDenied, TemporaryFailure
        If the file system fails; what was published before stays.
    """
    folder = staging_folder(collection, product)
    with disk_errors(product, "writing"), locked(lock_file(folder)):
        _take_back(product, folder)
        with in_staging(folder, plan) as staging:
            yield staging
            seal(staging)
            _publish(staging, collection, product)


@contextmanager
def in_staging(folder: Path, plan: Mapping[str, Any]) -> Iterator[Staging]:
    """Give a staging of a plan; it is removed on leaving, unless the work can be resumed."""
    staging = Staging(folder, Journal(folder, plan))
    reach("staged")
    try:
        yield staging
    except BaseException as error:
        is_over = not isinstance(error, _RESUMABLE) or isinstance(error, OutOfSpace)
        if is_over and not staging.is_kept:
            staging.journal.remove()
        raise
    staging.journal.remove()


def _take_back(product: Path, staging: Path) -> None:
    """Take a generation back into staging that was moved to its place, but never pointed at."""
    current = current_generation(product)
    published = 0 if current is None else int(current.name)
    for orphan in generations(product):
        if int(orphan.name) > published:
            shutil.rmtree(staging, ignore_errors=True)
            orphan.rename(staging)


def seal(staging: Staging) -> None:
    """Complete what is staged: what it says of itself, and the manifest; all of it synced."""
    ome = {} if staging.ome is None else {"ome": staging.ome}
    write_group(staging.path, ome | {"otzi": staging.attributes})
    reach("metadata-written")
    _write_manifest(staging)
    reach("manifest-written")


def _publish(staging: Staging, collection: Path, product: Path) -> None:
    for folder in reversed(product.relative_to(collection).parents):
        if not (collection / folder / GROUP).exists():
            write_group(collection / folder, {})
    product.mkdir(exist_ok=True)
    older = generations(product)
    generation = product / str(1 + max((int(p.name) for p in older), default=0))
    staging.path.rename(generation)
    sync_folder(product)
    reach("generation-renamed")
    write_group(product, pointer_attributes(generation.name))
    reach("pointer-written")
    for folder in older:
        shutil.rmtree(folder, ignore_errors=True)


def _write_manifest(staging: Staging) -> None:
    files = {}
    for path in sorted(p for p in staging.path.rglob("*") if p.is_file()):
        name = path.relative_to(staging.path).as_posix()
        shard = staging.journal.records.get(name)
        n_bytes, crc = (shard.n_bytes, shard.crc32c) if shard else _synced_record(path)
        if path.stat().st_size != n_bytes:
            raise VerificationError(
                f"{path} has {path.stat().st_size} bytes, {n_bytes} were written"
            )
        files[name] = (n_bytes, crc)
    lost = staging.journal.records.keys() - files.keys()
    if lost:
        raise VerificationError(f"{min(lost)} of {staging.path} was written and is gone")
    with writing_whole(staging.path / MANIFEST) as file:
        file.write(manifest_text(files).encode())
    for folder in [staging.path, *(p for p in staging.path.rglob("*") if p.is_dir())]:
        sync_folder(folder)


def _synced_record(path: Path) -> tuple[int, int]:
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return file_record(path)
