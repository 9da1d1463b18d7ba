"""The four files of a phantom: all of them there, whole, or none."""

from __future__ import annotations

import filecmp
import hashlib
import json
import os
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from otzi.errors import CannotCreate, disk_errors
from otzi.files import sync_folder
from otzi_pipelines.ingest.source_files import sha256_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

__all__ = ["PhantomFiles", "digest_of"]

_KINDS = ("tomogram", "labels", "strokes", "card")


@dataclass(frozen=True, slots=True)
class PhantomFiles:
    """Where the files of one phantom lie; kinds are in folders of their own."""

    folder: Path
    id: str

    @property
    def tomogram(self) -> Path:
        """Grey values, MRC."""
        return self.folder / "tomograms" / f"{self.id}.mrc"

    @property
    def labels(self) -> Path:
        """The truth, MRC: class index + 1."""
        return self.folder / "labels" / f"{self.id}.mrc"

    @property
    def strokes(self) -> Path:
        """Strokes, JSON."""
        return self.folder / "strokes" / f"{self.id}.json"

    @property
    def card(self) -> Path:
        """All that decided the others, and their SHA-256, JSON; it appears last."""
        return self.folder / "cards" / f"{self.id}.json"

    def to_json(self) -> dict[str, str]:
        """Give id and paths as plain JSON."""
        return {"id": self.id, **{kind: str(getattr(self, kind)) for kind in _KINDS}}

    def is_made(self, recipe: Mapping[str, Any]) -> bool:
        """Tell whether all files are there as this recipe made them.

        Raises
        ------
        CannotCreate
            If they were made otherwise.
        """
        if not self.card.exists():
            return False
        try:
            with disk_errors(self.card, "reading"):
                card = json.loads(self.card.read_text())
            found, digests = card["recipe"], card["sha256"]
        except (ValueError, KeyError, TypeError) as error:
            raise CannotCreate(f"{self.card} is no card of a phantom: remove it") from error
        if digest_of(found) != digest_of(recipe):
            raise CannotCreate(
                f"{self.card} was made with {_difference(found, recipe)}: choose another folder "
                "or name, or remove the phantoms there"
            )
        files = {kind: getattr(self, kind) for kind in _KINDS[:-1]}
        return all(
            file.is_file() and sha256_of(file) == digests.get(kind) for kind, file in files.items()
        )

    @contextmanager
    def staged(self) -> Iterator[PhantomFiles]:
        """Give files to write; on leaving without an exception they are here.

        What is here already stays, if it is the same to the byte.

        Raises
        ------
        CannotCreate
            If something else is here.
        OutOfSpace, AccessDenied, TemporaryFailure
            If the file system fails.
        """
        partial = PhantomFiles(self.folder / f".{self.id}.partial", self.id)
        with disk_errors(self.folder, "writing"):
            shutil.rmtree(partial.folder, ignore_errors=True)
            try:
                for kind in _KINDS:
                    getattr(partial, kind).parent.mkdir(parents=True)
                yield partial
                for kind in _KINDS:
                    _check_same(getattr(partial, kind), getattr(self, kind))
                for kind in _KINDS:
                    _move(getattr(partial, kind), getattr(self, kind))
            finally:
                shutil.rmtree(partial.folder, ignore_errors=True)

    def sha256(self) -> dict[str, str]:
        """Give the digests of all files but the card."""
        return {kind: sha256_of(getattr(self, kind)) for kind in _KINDS[:-1]}


def digest_of(recipe: Mapping[str, Any]) -> str:
    """Give the SHA-256 of a recipe."""
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()


def _check_same(new: Path, there: Path) -> None:
    if there.exists() and not (there.is_file() and filecmp.cmp(new, there, shallow=False)):
        raise CannotCreate(f"{there} is there already and holds something else: move it away")


def _move(new: Path, there: Path) -> None:
    with new.open("rb") as file:
        os.fsync(file.fileno())
    there.parent.mkdir(exist_ok=True)
    new.replace(there)
    sync_folder(there.parent)


def _difference(found: Any, wanted: Any, name: str = "") -> str:
    """Name the first value in which two recipes differ."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        for key in dict.fromkeys([*wanted, *found]):
            if found.get(key) != wanted.get(key):
                inner = f"{name}.{key}" if name else key
                return _difference(found.get(key), wanted.get(key), inner)
    return f"{name} = {found!r}, not {wanted!r}"
