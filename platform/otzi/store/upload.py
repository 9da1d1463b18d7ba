"""Published means whole, in an object store: stage here, claim, upload, verify, switch the pointer.

An object store renames nothing and locks nothing, but it writes an object on a condition. A writer
claims a generation by creating its ``zarr.json``, which only one can, and uploads into it. The
pointer is replaced only in the state in which the writer found it when it began: of two writers the
second is refused. Numbers only grow, so that a pointer is never in the same state twice; hence what
was uploaded before a switch can never be published after it, and whoever switched may remove it.

An upload that was interrupted goes on in the generation it had claimed, if the pointer has not
changed since; what lies there in the state in which it was written is not sent again.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from otzi.errors import (
    AccessDenied,
    CannotCreate,
    ConfigurationError,
    Locked,
    OtziError,
    TemporaryFailure,
    disk_errors,
)
from otzi.store.crashpoints import reach
from otzi.store.groups import GROUP, current_generation, group_text, pointer_attributes
from otzi.store.locks import lock_file, locked
from otzi.store.manifest import MANIFEST, manifest_digest, read_manifest
from otzi.store.objects import Conflict, ObjectPath, StoredObject
from otzi.store.publish import Staging, in_staging, seal, staging_folder
from otzi.store.upload_log import UploadLog

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["create_groups", "scratch_folder", "uploaded"]

_FILES_AT_ONCE = 4
_NO_STATE = StoredObject(0, '"none"', "1")
"""A state in which no object is."""


def scratch_folder(collection: ObjectPath) -> Path:
    """Give the local folder in which products of a remote collection are made.

    It is in ``OTZI_SCRATCH``, or else where the system has its temporary files.
    """
    chosen = os.environ.get("OTZI_SCRATCH")
    scratch = Path(chosen) if chosen else Path(tempfile.gettempdir(), f"otzi-{os.getuid()}")
    with disk_errors(scratch, "making"):
        scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not chosen and scratch.stat().st_uid != os.getuid():
            raise AccessDenied(
                f"{scratch} is somebody else's: set OTZI_SCRATCH to a folder of yours"
            )
        folder = scratch / hashlib.sha256(str(collection).encode()).hexdigest()[:16]
        folder.mkdir(exist_ok=True)
    return folder


def create_groups(groups: Mapping[ObjectPath, Mapping[str, Any]]) -> None:
    """Write the metadata of Zarr v3 groups that are not there yet.

    Raises
    ------
    CannotCreate
        If one is there.
    """
    for folder, attributes in groups.items():
        try:
            (folder / GROUP).put(group_text(attributes).encode())
        except Conflict as error:
            raise CannotCreate(f"{folder} is a group already: choose another place") from error


@contextmanager
def uploaded(
    collection: ObjectPath, product: ObjectPath, plan: Mapping[str, Any]
) -> Iterator[Staging]:
    """Stage a product on the local disk; it is uploaded and published on leaving.

    As `otzi.store.publish.staged` is for a collection in a folder.

    Raises
    ------
    Locked
        If somebody else makes the same product on this machine, or published one meanwhile.
    ConfigurationError
        If the store writes whatever the condition.
    OutOfSpace, AccessDenied, TemporaryFailure
        If the disk or the store fails; what was published before stays.
    """
    scratch = scratch_folder(collection)
    folder = staging_folder(scratch, scratch / product.relative_to(collection))
    log = UploadLog(folder.with_name(f"{folder.name}.upload"))
    with disk_errors(folder, "writing"), locked(lock_file(folder)):
        pointer = (product / GROUP).state()
        try:
            with in_staging(folder, plan) as staging:
                yield staging
                seal(staging)
                staging.is_kept = True
                _publish(staging, collection, product, pointer, log)
        finally:
            if not folder.exists():
                log.path.unlink(missing_ok=True)


def _publish(
    staging: Staging,
    collection: ObjectPath,
    product: ObjectPath,
    pointer: StoredObject | None,
    log: UploadLog,
) -> None:
    upload = {
        "manifest": manifest_digest(staging.path),
        "pointer": None if pointer is None else asdict(pointer),
    }
    begun = log.read(upload)
    if begun is None:
        number, group = _claim(product, staging.path / GROUP)
        log.begin(upload, number)
        log.add(GROUP, group)
        begun = number, {GROUP: group}
    reach("generation-claimed")
    number, sent = begun
    generation = product / number
    _upload(staging.path, generation, sent, log)
    reach("upload-verified")
    _create_parents(collection, product)
    others = [folder for folder in _generations(product) if folder != generation]
    _switch(product, generation, pointer)
    reach("pointer-put")
    with suppress(OtziError):
        for folder in others:
            folder.remove(last=GROUP)


def _generations(product: ObjectPath) -> list[ObjectPath]:
    return [folder for folder in product.glob("*/") if folder.name.isdecimal()]


def _claim(product: ObjectPath, group: Path) -> tuple[str, StoredObject]:
    """Create the group of a generation that nobody has; give its number, and the object's state."""
    content = group.read_bytes()
    number = 1 + max((int(folder.name) for folder in _generations(product)), default=0)
    while True:
        place = product / str(number) / GROUP
        try:
            stored = place.put(content)
        except Conflict:
            number += 1
            continue
        _check_conditions(place, content)
        return place.parent.name, stored


def _check_conditions(place: ObjectPath, content: bytes) -> None:
    """Write what is there on conditions that do not hold."""
    for state in (None, _NO_STATE):
        try:
            place.put(content, replacing=state)
        except Conflict:
            continue
        raise ConfigurationError(
            f"{place.root} ignores the condition of a write, so that two writers could overwrite "
            "each other: use a store with conditional writes, such as Amazon S3 or MinIO"
        )


def _upload(
    folder: Path, generation: ObjectPath, sent: Mapping[str, StoredObject], log: UploadLog
) -> None:
    """Upload all files that are not there as they were sent, and verify what is there then."""
    n_bytes = {name: size for name, (size, _) in read_manifest(folder).items()}
    n_bytes[MANIFEST] = (folder / MANIFEST).stat().st_size
    there = generation.objects()
    todo = [name for name in n_bytes if name not in there or there[name] != sent.get(name)]

    def send(name: str) -> None:
        log.add(name, (generation / name).upload(folder / name))
        reach("object-uploaded")

    with ThreadPoolExecutor(_FILES_AT_ONCE) as pool:
        for _ in pool.map(send, todo):
            pass
    found = {name: stored.n_bytes for name, stored in generation.objects().items()}
    if found != n_bytes:
        wrong = min(name for name in found.keys() | n_bytes if found.get(name) != n_bytes.get(name))
        raise TemporaryFailure(
            f"{generation / wrong} has {found.get(wrong, 'no')} bytes after the upload, "
            f"{n_bytes.get(wrong, 'none')} were sent: run it again"
        )


def _create_parents(collection: ObjectPath, product: ObjectPath) -> None:
    for parts in list(product.relative_to(collection).parents)[:-1]:
        with suppress(CannotCreate):
            create_groups({collection / parts.as_posix(): {}})


def _switch(product: ObjectPath, generation: ObjectPath, pointer: StoredObject | None) -> None:
    content = group_text(pointer_attributes(generation.name)).encode()
    try:
        (product / GROUP).put(content, replacing=pointer)
    except Conflict as error:
        # A write that was repeated because its answer got lost meets itself.
        if current_generation(product) == generation:
            return
        generation.remove(last=GROUP)
        raise Locked(
            f"{product} was published by somebody else while this was made: look at it, and run "
            "it again to replace it"
        ) from error
