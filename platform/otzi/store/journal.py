"""The journal of a product in the making: which shards are whole, kept through kills.

It lies beside the staging folder, one JSON document a line: first the digest of the plan, then a
row for every shard file that was synced and renamed. Whoever makes the same product by the same
plan goes on from there; rows of another plan are never mixed with its own.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import shutil
from dataclasses import asdict, dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any

from otzi.files import writing_whole

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

__all__ = ["Journal", "ShardRecord", "half_journals", "plan_digest"]


@dataclass(frozen=True, slots=True)
class ShardRecord:
    """What was written to one shard file."""

    key: str
    """The file, relative to the product: ``0/c/0/1/2``."""
    n_bytes: int
    crc32c: int


def plan_digest(plan: Mapping[str, Any]) -> str:
    """Give the SHA-256 of plain JSON, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()


def half_journals(journal: Path) -> list[Path]:
    """Give what kills have left of a journal that was being written anew."""
    return sorted(journal.parent.glob(f"{glob.escape(journal.name)}.*.partial"))


class Journal:
    """The shards of a staging folder that are whole.

    On opening, the folder holds the shards that a run of the same plan recorded, if they are there
    in the size recorded, and nothing else.
    """

    def __init__(self, folder: Path, plan: Mapping[str, Any]) -> None:
        self.folder = folder
        self.path = folder.with_name(f"{folder.name}.journal")
        self.records: dict[str, ShardRecord] = {}
        self._lock = Lock()
        digest = plan_digest(plan)
        for record in _rows(self.path, digest):
            file = folder / record.key
            if file.is_file() and file.stat().st_size == record.n_bytes:
                self.records[record.key] = record
        _keep_only(folder, self.records)
        # Written anew: a torn last line would swallow the next row.
        lines = [json.dumps({"plan": digest}) + "\n", *map(_line, self.records.values())]
        with writing_whole(self.path) as whole:
            whole.write("".join(lines).encode())
        for half in half_journals(self.path):
            half.unlink()

    def add(self, record: ShardRecord) -> None:
        """Keep the record of a shard that is whole, synced."""
        with self._lock, self.path.open("a") as file:
            file.write(_line(record))
            file.flush()
            os.fsync(file.fileno())
            self.records[record.key] = record

    def remove(self) -> None:
        """Remove the journal and what it is about."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.path.unlink(missing_ok=True)


def _line(record: ShardRecord) -> str:
    return json.dumps(asdict(record)) + "\n"


def _rows(path: Path, plan: str) -> Iterator[ShardRecord]:
    """Yield the rows of a journal of this plan, up to the first that a kill tore."""
    try:
        first, *rows = path.read_text().splitlines()
        if json.loads(first) != {"plan": plan}:
            return
    except (OSError, ValueError):
        return
    for row in rows:
        try:
            yield ShardRecord(**json.loads(row))
        except (ValueError, TypeError):
            return


def _keep_only(folder: Path, keys: Mapping[str, ShardRecord]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()
        elif not path.is_dir() and path.relative_to(folder).as_posix() not in keys:
            path.unlink()
