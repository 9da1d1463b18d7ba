"""Paths into an object store, with what a collection needs of it: ranges, listings, conditions.

Credentials and endpoint are those of the environment: ``AWS_ACCESS_KEY_ID``,
``AWS_SECRET_ACCESS_KEY``, ``AWS_REGION``, ``AWS_ENDPOINT_URL_S3`` and their like. Needs obstore,
which starts threads of its own: a process that has used it must not fork.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from fnmatch import fnmatchcase
from functools import cache, lru_cache
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Self

import obstore
from obstore import exceptions
from obstore.store import MemoryStore, from_url

from otzi.errors import (
    AccessDenied,
    CorruptShard,
    NotFoundError,
    OtziError,
    TemporaryFailure,
    UsageError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from obstore import UpdateVersion
    from obstore.store import ObjectStore

__all__ = ["Conflict", "ObjectPath", "StoredObject"]

_SCHEMES = ("s3", "s3a", "gs", "az", "abfs", "abfss", "memory")
_COALESCE_BYTES = 256 << 10
"""A gap that is rather read than split into two requests: they run at the same time anyway."""
_PART_BYTES = 8 << 20
_PARTS_AT_ONCE = 2
_RETRIES = 5
_CONNECT_TIMEOUT = timedelta(seconds=5)
_RETRY_TIMEOUT = timedelta(minutes=1)
_REQUEST_TIMEOUT = timedelta(minutes=2)


class Conflict(Exception):
    """An object is not, or no longer, in the state that a write depended on."""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One state of an object."""

    n_bytes: int
    e_tag: str | None
    version: str | None = field(default=None, compare=False)

    @property
    def condition(self) -> UpdateVersion:
        """What a write that must replace this state says."""
        condition: UpdateVersion = {}
        if self.e_tag is not None:
            condition["e_tag"] = self.e_tag
        if self.version is not None:
            condition["version"] = self.version
        return condition


@dataclass(frozen=True, slots=True)
class ObjectPath:
    """A key of an object store, used as a path: ``path / "zarr.json"``."""

    root: str
    """The store: ``s3://bucket``."""
    key: str
    """Without slashes at its ends; empty for the root."""

    @classmethod
    def from_url(cls, url: str) -> Self:
        """Give the path of a URL.

        Raises
        ------
        UsageError
            If its scheme is not known, or it names no bucket.
        """
        scheme, _, rest = url.partition("://")
        bucket, _, key = rest.partition("/")
        if scheme not in _SCHEMES:
            raise UsageError(f"{url} is of no store known: there are {'://, '.join(_SCHEMES)}://")
        if not bucket and scheme != "memory":
            raise UsageError(f"{url} names no bucket: write {scheme}://BUCKET/NAME")
        key = key.removesuffix("/")
        if key and not {"", ".", ".."}.isdisjoint(key.split("/")):
            raise UsageError(f"{url} has a part that is empty, '.' or '..': leave it out")
        return cls(f"{scheme}://{bucket}", key)

    def __str__(self) -> str:
        return f"{self.root}/{self.key}"

    @property
    def name(self) -> str:
        """The last part of the key."""
        return self.key.rpartition("/")[2]

    @property
    def parent(self) -> Self:
        """What it lies in; the root lies in itself."""
        return type(self)(self.root, self.key.rpartition("/")[0])

    def __truediv__(self, key: str) -> Self:
        return type(self)(self.root, f"{self.key}/{key}" if self.key else key)

    def joinpath(self, *keys: str) -> Self:
        """Give what lies below by these parts."""
        return self / "/".join(keys)

    def relative_to(self, other: ObjectPath) -> PurePosixPath:
        """Give the path from another that this lies below."""
        return PurePosixPath(self.key).relative_to(other.key)

    # Reading

    def exists(self) -> bool:
        """Tell whether there is an object, or one below."""
        if self.state() is not None:
            return True
        with _named(self):
            found = obstore.list_with_delimiter(self._store, self.key or None)
        return bool(found["objects"] or found["common_prefixes"])

    def state(self) -> StoredObject | None:
        """Give the state of an object, or None where there is none."""
        try:
            with _named(self):
                return _state(obstore.head(self._store, self.key))
        except FileNotFoundError:
            return None

    def glob(self, pattern: str) -> Iterator[Self]:
        """Yield the folders right below whose names match ``PATTERN/``."""
        with _named(self):
            found = obstore.list_with_delimiter(self._store, self.key or None)
        for prefix in found["common_prefixes"]:
            folder = type(self)(self.root, prefix)
            if fnmatchcase(folder.name, pattern.removesuffix("/")):
                yield folder

    def objects(self) -> dict[str, StoredObject]:
        """Give the state of everything below, by path from here."""
        skip = len(self.key) + 1 if self.key else 0
        with _named(self):
            found = obstore.list(self._store, self.key or None).collect()
        return {entry["path"][skip:]: _state(entry) for entry in found}

    def read_bytes(self) -> bytes:
        """Give the content of an object."""
        with _named(self):
            return obstore.get(self._store, self.key).bytes().to_bytes()

    def read_text(self) -> str:
        """Give the content of an object of UTF-8."""
        return self.read_bytes().decode()

    def read_ranges(self, starts: Sequence[int], ends: Sequence[int]) -> list[bytes]:
        """Give ranges of an object, read at the same time; near ones by one request."""
        with _named(self):
            found = obstore.get_ranges(
                self._store, self.key, starts=starts, ends=ends, coalesce=_COALESCE_BYTES
            )
        return [data.to_bytes() for data in found]

    def zarr_store(self) -> Any:
        """Give what zarr-python opens to read below."""
        from zarr.storage import ObjectStore as ZarrStore
        from zarr.storage import StorePath

        return StorePath(ZarrStore(self._store, read_only=True), self.key)

    # Writing

    def put(self, content: bytes, replacing: StoredObject | None = None) -> StoredObject:
        """Write an object that is not there, or is in a state that was seen; give its new state.

        Raises
        ------
        Conflict
            If it is there, or not in that state any more.
        """
        mode = "create" if replacing is None else replacing.condition
        try:
            return self._put(content, mode=mode, use_multipart=False)
        except (exceptions.AlreadyExistsError, exceptions.PreconditionError) as error:
            raise Conflict(str(self)) from error

    def upload(self, file: Path) -> StoredObject:
        """Write a file over whatever is there, in parts; give its state.

        A kill leaves parts that nobody sees: a rule of the bucket should remove them some day.
        """
        return self._put(file, chunk_size=_PART_BYTES, max_concurrency=_PARTS_AT_ONCE)

    def _put(self, content: bytes | Path, **options: Any) -> StoredObject:
        n_bytes = len(content) if isinstance(content, bytes) else content.stat().st_size
        with _named(self):
            done = obstore.put(self._store, self.key, content, **options)
        return StoredObject(n_bytes, done["e_tag"], done["version"])

    def remove(self, last: str) -> None:
        """Remove everything below, and the object `last` when all else is gone."""
        names = self.objects()
        rest = [(self / name).key for name in names if name != last]
        with _named(self):
            if rest:
                obstore.delete(self._store, rest)
            if last in names:
                obstore.delete(self._store, (self / last).key)

    @property
    def _store(self) -> ObjectStore:
        if self.root.startswith("memory:"):
            return _memory_store(self.root)
        return _open_store(self.root, _environment())


def _state(entry: Any) -> StoredObject:
    return StoredObject(entry["size"], entry["e_tag"], entry["version"])


def _environment() -> tuple[tuple[str, str], ...]:
    """Give the settings of stores, so that one whose settings changed is opened anew."""
    prefixes = ("AWS_", "GOOGLE_", "AZURE_")
    return tuple(sorted(item for item in os.environ.items() if item[0].startswith(prefixes)))


@cache
def _memory_store(root: str) -> MemoryStore:
    """Give the objects of this process under a name."""
    return MemoryStore()


@lru_cache(maxsize=64)
def _open_store(root: str, environment: tuple[tuple[str, str], ...]) -> ObjectStore:
    # Whoever gives the address of an endpoint without TLS means it.
    endpoints = [value for name, value in environment if name.startswith("AWS_ENDPOINT")]
    return from_url(
        root,
        client_options={
            "allow_http": any(url.startswith("http://") for url in endpoints),
            "connect_timeout": _CONNECT_TIMEOUT,
            "timeout": _REQUEST_TIMEOUT,
        },
        retry_config={"max_retries": _RETRIES, "retry_timeout": _RETRY_TIMEOUT},
    )


@contextmanager
def _named(path: ObjectPath) -> Iterator[None]:
    """Turn an error of the store into one of ours, and a missing object into Python's own."""
    try:
        yield
    except (exceptions.AlreadyExistsError, exceptions.PreconditionError):
        raise
    except (exceptions.BaseError, FileNotFoundError) as error:
        raise _translated(error, path) from error


def _translated(error: Exception, path: ObjectPath) -> OtziError | FileNotFoundError:
    text = str(error)
    first = text.splitlines()[0] if text else type(error).__name__
    if "NoSuchBucket" in text:
        return NotFoundError(f"there is no bucket {path.root}: make it, or mend the name")
    if "/latest/api/token" in text or "/latest/meta-data" in text:
        return AccessDenied(
            f"no credentials for {path.root}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (for "
            "a profile, `aws configure export-credentials --format env` prints them), or "
            "AWS_SKIP_SIGNATURE=true for a public bucket"
        )
    if isinstance(error, exceptions.PermissionDeniedError | exceptions.UnauthenticatedError):
        return AccessDenied(f"{path} is not allowed: check the credentials and the policy: {first}")
    if isinstance(error, FileNotFoundError | exceptions.NotFoundError):
        return FileNotFoundError(f"{path} is not there")
    if "InvalidRange" in text:
        return CorruptShard(f"{path} is shorter than it was: make the product again")
    return TemporaryFailure(f"{path} cannot be reached: {first}: run it again")
