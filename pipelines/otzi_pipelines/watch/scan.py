"""One look at a watched folder: names and states of its files; nothing is opened or written."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from otzi.errors import OtziError, disk_errors
from otzi.events import Warned
from otzi.ledger.sources import FileState
from otzi_pipelines.ingest.find import is_source_name
from otzi_pipelines.watch.settle import is_temporary
from otzi_pipelines.watch.sidecars import is_sidecar_name

if TYPE_CHECKING:
    from collections.abc import Collection

    from otzi.events import Listener

__all__ = ["Seen", "scan"]


@dataclass(slots=True)
class Seen:
    """What is in a folder and below."""

    sources: dict[Path, FileState] = field(default_factory=dict)
    """MRC files, by their names."""
    temporary: dict[Path, FileState] = field(default_factory=dict)
    """Names that programs use while they copy."""
    sidecars: dict[Path, list[Path]] = field(default_factory=dict)
    """By the folder that they are in."""
    closed: set[Path] = field(default_factory=set)
    """Folders below that cannot be read."""

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing of interest."""
        return not (self.sources or self.temporary)


def scan(folder: Path, listen: Listener, skip: Collection[Path] = ()) -> Seen:
    """Give what is in a folder and below, without hidden folders and those to `skip`.

    Raises
    ------
    NotFoundError, AccessDenied, TemporaryFailure
        If the folder itself cannot be read.
    """
    seen, folders = Seen(), [folder]
    while folders:
        current = folders.pop()
        try:
            with disk_errors(current, "reading"), os.scandir(current) as entries:
                folders += [
                    path for entry in entries if (path := _place(entry, seen)) and path not in skip
                ]
        except OtziError as error:
            if current == folder:
                raise
            listen(Warned(str(error)))
            seen.closed.add(current)
    return seen


def _place(entry: os.DirEntry[str], seen: Seen) -> Path | None:
    """Put an entry where it belongs; give the path of a folder to go into."""
    name = entry.name
    if entry.is_dir(follow_symlinks=False):
        return None if name.startswith(".") else Path(entry.path)
    is_on_its_way, is_source = is_temporary(name), is_source_name(name)
    if is_sidecar_name(name) and not is_on_its_way:
        path = Path(entry.path)
        seen.sidecars.setdefault(path.parent, []).append(path)
    if not (is_source or is_on_its_way):
        return None
    try:
        status = entry.stat()
    except OSError:  # gone meanwhile, or a link to nowhere
        return None
    if stat.S_ISREG(status.st_mode):
        target = seen.temporary if is_on_its_way else seen.sources
        target[_legible(entry.path)] = FileState.of(status)
    return None


def _legible(path: str) -> Path:
    """Give a path as text: one that is no UTF-8 is no more the file's, which the reader says."""
    if path.isascii():
        return Path(path)
    return Path(path.encode("utf-8", "backslashreplace").decode())
