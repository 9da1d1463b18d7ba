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
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from otzi.errors import (
    DeviceUnavailable,
    Locked,
    OtziError,
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
    from typing import TextIO

    from otzi.store.location import Place, PlaceT

__all__ = [
    "MANIFEST",
    "Staging",
    "current_generation",
    "exact_group",
    "file_record",
    "generations",
    "group_text",
    "in_staging",
    "lock_file",
    "locked",
    "manifest_digest",
    "manifest_text",
    "parse_manifest",
    "pointer_attributes",
    "read_group",
    "read_manifest",
    "replace_file",
    "seal",
    "staged",
    "staging_folder",
    "sync_folder",
    "write_group",
]

MANIFEST = "manifest.json"
_READ_BYTES = 1 << 24
_LOCK_ATTEMPTS = 5
_LOCK_PAUSE_SECONDS = 0.02
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


def group_text(attributes: Mapping[str, Any]) -> str:
    """Give a Zarr v3 group's ``zarr.json``, as it is written, to the byte."""
    document = {"zarr_format": 3, "node_type": "group", "attributes": dict(attributes)}
    return json.dumps(document, indent=2)


def pointer_attributes(generation: str) -> dict[str, Any]:
    """Give the attributes of a product's own group, which point at a generation."""
    return {"otzi": {"kind": "product", "current": generation}}


def write_group(folder: Path, attributes: Mapping[str, Any]) -> None:
    """Write a Zarr v3 group's metadata by one atomic rename, synced."""
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / "zarr.json.partial"
    with partial.open("w") as file:
        file.write(group_text(attributes))
        file.flush()
        os.fsync(file.fileno())
    partial.replace(folder / "zarr.json")
    sync_folder(folder)


def read_group(folder: Place) -> dict[str, Any] | None:
    """Give the attributes of a Zarr v3 group, or None where there is none."""
    try:
        text = (folder / "zarr.json").read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        document = json.loads(text)
    except ValueError as error:
        raise VerificationError(f"{folder / 'zarr.json'} is damaged: {error}") from error
    return dict(document.get("attributes", {}))


def exact_group(folder: Path) -> dict[str, Any] | None:
    """Give the attributes of a group that is, to the byte, as `write_group` wrote it, or None."""
    try:
        text = (folder / "zarr.json").read_bytes()
        attributes = dict(json.loads(text)["attributes"])
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
        return None
    return attributes if text == group_text(attributes).encode() else None


def current_generation(product: PlaceT) -> PlaceT | None:
    """Give the folder of the published generation of a product, or None."""
    attributes = read_group(product)
    current = (attributes or {}).get("otzi", {}).get("current")
    if current is not None and not str(current).isdecimal():
        raise VerificationError(
            f"{product / 'zarr.json'} points at {current!r}, which is no generation: "
            "`otzi verify --repair` mends it"
        )
    return None if current is None else product / str(current)


def generations(product: Path) -> list[Path]:
    """Give the folders of all generations of a product, pointed at or not, oldest first."""
    folders = product.iterdir() if product.is_dir() else ()
    return sorted((p for p in folders if p.name.isdecimal()), key=lambda p: int(p.name))


def read_manifest(generation: Place) -> dict[str, tuple[int, int]]:
    """Give size and CRC-32C of every file of a generation, by path within it."""
    try:
        return parse_manifest((generation / MANIFEST).read_bytes())
    except OtziError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise VerificationError(f"the manifest of {generation} is lost: {error}") from error


def replace_file(path: Path, source: Path) -> None:
    """Have a copy of `source` at a path, by one atomic rename, synced."""
    partial = path.with_name(f"{path.name}.partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, partial)
    _synced_record(partial)
    partial.replace(path)
    sync_folder(path.parent)


def parse_manifest(text: bytes) -> dict[str, tuple[int, int]]:
    """Give what `manifest_text` was made from."""
    files = json.loads(text)["files"]
    return {name: (int(n_bytes), int(crc, 16)) for name, (n_bytes, crc) in files.items()}


def manifest_digest(generation: Place) -> str:
    """Give the SHA-256 that identifies the content of a generation."""
    return hashlib.sha256((generation / MANIFEST).read_bytes()).hexdigest()


def staging_folder(collection: Path, product: Path) -> Path:
    """Give the folder in which a product is made."""
    return collection / ".staging" / ".".join(product.relative_to(collection).parts)


def lock_file(staging: Path) -> Path:
    """Give the file that whoever writes into a staging folder holds locked."""
    return staging.with_name(f"{staging.name}.lock")


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


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of a staging folder.

    Raises
    ------
    Locked
        If somebody else holds it for longer than a look at it takes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _acquired(path):
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _acquired(path: Path) -> TextIO:
    for _ in range(_LOCK_ATTEMPTS):
        file = path.open("w")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever held it removed it: a file that is no longer there locks nothing.
            if _is_same(path, file):
                return file
        except BlockingIOError:
            pass
        file.close()
        time.sleep(_LOCK_PAUSE_SECONDS)
    raise Locked(f"{path.stem} is being written by somebody else: wait and retry")


def _is_same(path: Path, file: TextIO) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def seal(staging: Staging) -> None:
    """Complete what is staged: what it says of itself, and the manifest; all of it synced."""
    ome = {} if staging.ome is None else {"ome": staging.ome}
    write_group(staging.path, ome | {"otzi": staging.attributes})
    reach("metadata-written")
    _write_manifest(staging)
    reach("manifest-written")


def _publish(staging: Staging, collection: Path, product: Path) -> None:
    for folder in reversed(product.relative_to(collection).parents):
        if not (collection / folder / "zarr.json").exists():
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
    manifest = staging.path / MANIFEST
    with manifest.open("w") as file:
        file.write(manifest_text(files))
        file.flush()
        os.fsync(file.fileno())
    for folder in [staging.path, *(p for p in staging.path.rglob("*") if p.is_dir())]:
        sync_folder(folder)


def manifest_text(files: Mapping[str, tuple[int, int]]) -> str:
    """Give the manifest of files of these sizes and CRC-32Cs, as it is written, to the byte."""
    lines = (
        f'  {json.dumps(name)}: [{n_bytes}, "{crc:08x}"]' for name, (n_bytes, crc) in files.items()
    )
    body = '{"files": {\n' + ",\n".join(lines) + "\n},\n"
    return f'{body}"crc32c": "{crc32c(body.encode()):08x}"}}\n'


def file_record(path: Path) -> tuple[int, int]:
    """Give size and CRC-32C of a file, which is read piece by piece."""
    n_bytes = checksum = 0
    with path.open("rb") as file:
        while data := file.read(_READ_BYTES):
            checksum = crc32c(data, checksum)
            n_bytes += len(data)
    return n_bytes, checksum


def _synced_record(path: Path) -> tuple[int, int]:
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return file_record(path)


def sync_folder(folder: Path) -> None:
    """Have the entries of a folder on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
