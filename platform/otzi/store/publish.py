"""Published means whole: staging, manifest, sync, one rename, one pointer.

A product lives in generations, ``<product>/1``, ``<product>/2`` …; each is immutable. The pointer
is the attribute ``otzi.current`` of the product's own Zarr group, replaced by one atomic rename of
its ``zarr.json``. What is not pointed at does not exist: a killed run left it, and the next one
takes it back and goes on.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from otzi.errors import (
    DeviceUnavailable,
    Locked,
    OutOfSpace,
    TemporaryFailure,
    VerificationError,
    disk_errors,
)
from otzi.store.crashpoints import reach
from otzi.store.encoding import crc32c
from otzi.store.journal import Journal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

__all__ = [
    "MANIFEST",
    "Staging",
    "current_generation",
    "manifest_digest",
    "read_group",
    "read_manifest",
    "staged",
    "write_group",
]

MANIFEST = "manifest.json"
_READ_BYTES = 1 << 24
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

    def shards_of(self, level: int) -> set[tuple[int, ...]]:
        """Give the indices of the shards of a level that are whole."""
        keys = (key.split("/c/") for key in self.journal.records)
        return {
            tuple(int(i) for i in index.split("/")) for name, index in keys if name == str(level)
        }


def write_group(folder: Path, attributes: Mapping[str, Any]) -> None:
    """Write a Zarr v3 group's metadata by one atomic rename, synced."""
    document = {"zarr_format": 3, "node_type": "group", "attributes": dict(attributes)}
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / "zarr.json.partial"
    with partial.open("w") as file:
        json.dump(document, file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(folder / "zarr.json")
    _sync_folder(folder)


def read_group(folder: Path) -> dict[str, Any] | None:
    """Give the attributes of a Zarr v3 group, or None where there is none."""
    try:
        document = json.loads((folder / "zarr.json").read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except json.JSONDecodeError as error:
        raise VerificationError(f"{folder / 'zarr.json'} is damaged: {error}") from error
    return dict(document.get("attributes", {}))


def current_generation(product: Path) -> Path | None:
    """Give the folder of the published generation of a product, or None."""
    attributes = read_group(product)
    current = (attributes or {}).get("otzi", {}).get("current")
    return None if current is None else product / str(current)


def read_manifest(generation: Path) -> dict[str, tuple[int, int]]:
    """Give size and CRC-32C of every file of a generation, by path within it."""
    try:
        files = json.loads((generation / MANIFEST).read_text())["files"]
    except (OSError, ValueError, KeyError) as error:
        raise VerificationError(f"the manifest of {generation} is lost: {error}") from error
    return {name: (int(n_bytes), int(crc, 16)) for name, (n_bytes, crc) in files.items()}


def manifest_digest(generation: Path) -> str:
    """Give the SHA-256 that identifies the content of a generation."""
    return hashlib.sha256((generation / MANIFEST).read_bytes()).hexdigest()


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
    name = ".".join(product.relative_to(collection).parts)
    folder = collection / ".staging" / name
    with disk_errors(product, "writing"), _locked(folder.with_suffix(folder.suffix + ".lock")):
        _take_back(product, folder)
        staging = Staging(folder, Journal(folder, plan))
        reach("staged")
        try:
            yield staging
            _publish(staging, collection, product)
        except BaseException as error:
            if not isinstance(error, _RESUMABLE) or isinstance(error, OutOfSpace):
                staging.journal.remove()
            raise
        staging.journal.remove()


def _take_back(product: Path, staging: Path) -> None:
    """Take a generation back into staging that was moved to its place, but never pointed at."""
    current = current_generation(product)
    published = 0 if current is None else int(current.name)
    for orphan in _generations(product):
        if int(orphan.name) > published:
            shutil.rmtree(staging, ignore_errors=True)
            orphan.rename(staging)


def _generations(product: Path) -> list[Path]:
    folders = product.iterdir() if product.is_dir() else ()
    return sorted((p for p in folders if p.name.isdigit()), key=lambda p: int(p.name))


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Locked(
                f"{path.stem} is being written by somebody else: wait and retry"
            ) from error
        yield


def _publish(staging: Staging, collection: Path, product: Path) -> None:
    ome = {} if staging.ome is None else {"ome": staging.ome}
    write_group(staging.path, ome | {"otzi": staging.attributes})
    reach("metadata-written")
    _write_manifest(staging)
    reach("manifest-written")
    for folder in reversed(product.relative_to(collection).parents):
        if not (collection / folder / "zarr.json").exists():
            write_group(collection / folder, {})
    product.mkdir(exist_ok=True)
    older = _generations(product)
    generation = product / str(1 + max((int(p.name) for p in older), default=0))
    staging.path.rename(generation)
    _sync_folder(product)
    reach("generation-renamed")
    write_group(product, {"otzi": {"kind": "product", "current": generation.name}})
    reach("pointer-written")
    for folder in older:
        shutil.rmtree(folder, ignore_errors=True)


def _write_manifest(staging: Staging) -> None:
    files = {}
    for path in sorted(p for p in staging.path.rglob("*") if p.is_file()):
        name = path.relative_to(staging.path).as_posix()
        shard = staging.journal.records.get(name)
        n_bytes, crc = (shard.n_bytes, shard.crc32c) if shard else _file_record(path)
        if path.stat().st_size != n_bytes:
            raise VerificationError(
                f"{path} has {path.stat().st_size} bytes, {n_bytes} were written"
            )
        files[name] = (n_bytes, f"{crc:08x}")
    lost = staging.journal.records.keys() - files.keys()
    if lost:
        raise VerificationError(f"{min(lost)} of {staging.path} was written and is gone")
    manifest = staging.path / MANIFEST
    with manifest.open("w") as file:
        file.write(_manifest_text(files))
        file.flush()
        os.fsync(file.fileno())
    for folder in [staging.path, *(p for p in staging.path.rglob("*") if p.is_dir())]:
        _sync_folder(folder)


def _manifest_text(files: Mapping[str, tuple[int, str]]) -> str:
    lines = (f"  {json.dumps(name)}: {json.dumps(record)}" for name, record in files.items())
    return '{"files": {\n' + ",\n".join(lines) + "\n}}\n"


def _file_record(path: Path) -> tuple[int, int]:
    n_bytes = checksum = 0
    with path.open("rb") as file:
        while data := file.read(_READ_BYTES):
            checksum = crc32c(data, checksum)
            n_bytes += len(data)
        os.fsync(file.fileno())
    return n_bytes, checksum


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
