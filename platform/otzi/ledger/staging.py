"""Work in the making: what lies in the staging folder, who holds it, how far it came."""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from math import prod
from pathlib import Path

from otzi.errors import VerificationError
from otzi.store.array_metadata import parse_array_metadata
from otzi.store.folders import NAMED_KINDS, SINGLE_KINDS
from otzi.store.locks import is_held, lock_file

__all__ = ["StagedWork", "folder_bytes", "staged_work"]

_KINDS = f"{'|'.join(SINGLE_KINDS)}|(?:{'|'.join(NAMED_KINDS)})\\..+"
_BESIDE = re.compile(r"\.(lock|journal(\.[0-9-]+\.partial)?)$")
_NAME = re.compile(rf"tomograms\.(.+?)\.({_KINDS})")


@dataclass(frozen=True, slots=True)
class StagedWork:
    """A product that is being made, or whose making was interrupted."""

    folder: Path
    """The staging folder; its journal and its lock lie beside it."""
    is_held: bool
    """Whether somebody works on it now."""

    @property
    def journal(self) -> Path:
        """The rows of its whole shards."""
        return self.folder.with_name(f"{self.folder.name}.journal")

    @property
    def target(self) -> tuple[str, str]:
        """Tomogram and product, as far as the name of the folder tells them."""
        match = _NAME.fullmatch(self.folder.name)
        return (match[1], match[2].replace(".", "/", 1)) if match else (self.folder.name, "")

    @property
    def is_begun(self) -> bool:
        """Whether there is more than a lock."""
        return self.folder.exists() or self.journal.exists()

    @property
    def n_bytes(self) -> int:
        """What it takes on the disk."""
        return folder_bytes(self.folder) + folder_bytes(self.journal)

    @property
    def n_shards_done(self) -> int:
        """How many shards are whole: a run of the same plan does not write them again."""
        try:
            return max(0, len(self.journal.read_bytes().splitlines()) - 1)
        except FileNotFoundError:
            return 0

    @property
    def n_shards(self) -> int | None:
        """How many shards it will have; None until that is known."""
        try:
            arrays = [path.parent for path in self.folder.glob("*/zarr.json")]
        except FileNotFoundError:  # published meanwhile
            return None
        return sum(map(_n_shards, arrays)) or None


def staged_work(collection: Path) -> list[StagedWork]:
    """Give all that lies in the staging folder, in the order of the names."""
    folder = collection / ".staging"
    entries = folder.iterdir() if folder.is_dir() else ()
    names = {_BESIDE.sub("", entry.name) for entry in entries}
    return [StagedWork(folder / name, is_held(lock_file(folder / name))) for name in sorted(names)]


def folder_bytes(path: Path) -> int:
    """Give the size of a file, or of all files of a folder; 0 for what is not there."""
    files = [Path(folder, name) for folder, _, names in os.walk(path) for name in names]
    return sum(map(_file_bytes, files or [path]))


def _file_bytes(path: Path) -> int:
    try:
        status = path.lstat()
    except FileNotFoundError:  # whoever writes there may be faster
        return 0
    return status.st_size if stat.S_ISREG(status.st_mode) else 0


def _n_shards(folder: Path) -> int:
    try:
        metadata = parse_array_metadata((folder / "zarr.json").read_bytes())
    except (FileNotFoundError, VerificationError):
        return 0
    return prod(metadata.grid.shards_per_axis)
