"""Files of ``torch.save``, zipped or of the older form: what is in them, tensors on request.

Nothing is executed, and the file is opened for reading only. Source of both forms: torch 1.7,
``torch/serialization.py``.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import zipfile
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, Self

import torch

from otzi.errors import ModelError, disk_errors
from otzi.networks.unpickle import unpickle

if TYPE_CHECKING:
    from pathlib import Path

    from otzi.networks.unpickle import Storage, StoredTensor

__all__ = ["TorchFile"]

# Measured: 91 tensors with their optimiser are described in less than 0.1 MB.
_MOST_PICKLE_BYTES = 4 * 2**20
_MAGIC = 0x1950A86A20F9469CFC6C
_COUNT_BYTES = 8

_DTYPES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


class TorchFile:
    """A file of ``torch.save``: its document at once, its tensors one by one; a context manager.

    Raises
    ------
    NotFoundError
        If there is no such file.
    ModelError
        If it is no file of ``torch.save``, is damaged, or tries to execute something.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with disk_errors(path, "reading"):
            self._file = path.open("rb")
            try:
                self.sha256 = hashlib.file_digest(self._file, "sha256").hexdigest()
                form = _Zipped if zipfile.is_zipfile(self._file) else _Older
                self._form: _Form = form(self._file, str(path))
            except BaseException:
                self._file.close()
                raise
        self.document = self._form.document

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def tensor(self, view: StoredTensor) -> torch.Tensor:
        """Read a tensor; contiguous, in memory of its own.

        Raises
        ------
        ModelError
            If the file is damaged there.
        """
        storage, dtype = view.storage, _dtype(view.storage, str(self.path))
        n_bytes = storage.n_elements * dtype.itemsize
        if not n_bytes:
            return torch.empty(view.shape, dtype=dtype)
        with disk_errors(self.path, "reading"):
            content = bytearray(self._form.content(storage, n_bytes))
        whole = torch.frombuffer(content, dtype=dtype)
        return whole.as_strided(view.shape, view.strides, view.offset).clone(
            memory_format=torch.contiguous_format
        )


class _Form(Protocol):
    document: Any

    def content(self, storage: Storage, n_bytes: int) -> bytes: ...


class _Zipped:
    """A ZIP archive, not compressed: ``data.pkl``, and a file for each storage in ``data``."""

    def __init__(self, file: BinaryIO, source: str) -> None:
        self._source = source
        try:
            self._archive = zipfile.ZipFile(file)
        except zipfile.BadZipFile as error:
            raise _damaged(source, str(error)) from error
        places = [n for n in self._archive.namelist() if n.rpartition("/")[2] == "data.pkl"]
        if len(places) != 1:
            raise ModelError(f"{source} is a ZIP file, but none of torch.save: give a checkpoint")
        self._folder = places[0].removesuffix("data.pkl")
        if f"{self._folder}byteorder" in self._archive.namelist():
            _refuse_big_endian(self._read("byteorder") == b"little", source)
        pickled = self._read("data.pkl")
        self.document, _ = unpickle(io.BytesIO(pickled), source)

    def content(self, storage: Storage, n_bytes: int) -> bytes:
        return self._read(f"data/{storage.key}", n_bytes)

    def _read(self, name: str, n_bytes: int | None = None) -> bytes:
        """Give a file of the archive, which checks its CRC."""
        try:
            info = self._archive.getinfo(self._folder + name)
            if info.compress_type != zipfile.ZIP_STORED:
                raise _damaged(self._source, f"{name!r} is compressed, as torch.save never does")
            if n_bytes is None and info.file_size > _MOST_PICKLE_BYTES:
                raise _damaged(
                    self._source, f"{name!r} has {info.file_size} bytes, none is so large"
                )
            if n_bytes is not None and info.file_size != n_bytes:
                raise _damaged(
                    self._source, f"{name!r} has {info.file_size} bytes, it needs {n_bytes}"
                )
            return self._archive.read(info)
        except KeyError as error:
            raise _damaged(self._source, f"it has no {name!r}") from error
        except (zipfile.BadZipFile, EOFError, RuntimeError) as error:
            raise _damaged(self._source, str(error)) from error


class _Older:
    """Five pickles one after the other, then each storage: its length and its numbers."""

    def __init__(self, file: BinaryIO, source: str) -> None:
        self._file, self._source = file, source
        file.seek(0)
        pickles = io.BytesIO(file.read(_MOST_PICKLE_BYTES))
        if pickles.read(1) != pickle.PROTO:
            raise ModelError(f"{source} is no file of torch.save: give a checkpoint")
        pickles.seek(0)
        magic, _ = unpickle(pickles, source)
        if magic != _MAGIC:
            raise ModelError(f"{source} is no file of torch.save: give a checkpoint")
        _version, _ = unpickle(pickles, source)
        system, _ = unpickle(pickles, source)
        _refuse_big_endian(isinstance(system, dict) and system.get("little_endian") is True, source)
        self.document, storages = unpickle(pickles, source)
        keys, _ = unpickle(pickles, source)
        self._places: dict[str, int] = {}
        place = pickles.tell()
        for key in keys if isinstance(keys, list) else ():
            if not isinstance(key, str) or key not in storages:
                raise _damaged(source, "it lists a storage that no tensor lies in")
            self._places[key] = place
            storage = storages[key]
            place += _COUNT_BYTES + storage.n_elements * _dtype(storage, source).itemsize

    def content(self, storage: Storage, n_bytes: int) -> bytes:
        if storage.key not in self._places:
            raise _damaged(self._source, f"it has no storage {storage.key!r}")
        self._file.seek(0, io.SEEK_END)
        place = self._places[storage.key]
        if place + _COUNT_BYTES + n_bytes > self._file.tell():
            raise _damaged(self._source, f"it ends within storage {storage.key!r}")
        self._file.seek(place)
        count = int.from_bytes(self._file.read(_COUNT_BYTES), "little")
        if count != storage.n_elements:
            raise _damaged(
                self._source,
                f"storage {storage.key!r} has {count} elements, it needs {storage.n_elements}",
            )
        return self._file.read(n_bytes)


def _dtype(storage: Storage, source: str) -> torch.dtype:
    if storage.kind not in _DTYPES:
        raise ModelError(f"{source} has numbers of kind {storage.kind!r}: save them as float32")
    return _DTYPES[storage.kind]


def _refuse_big_endian(is_little: bool, source: str) -> None:
    if not is_little:
        raise ModelError(f"{source} is big-endian: load and save it on a little-endian machine")


def _damaged(source: str, what: str) -> ModelError:
    return ModelError(f"{source} is damaged, {what}: copy it again")
