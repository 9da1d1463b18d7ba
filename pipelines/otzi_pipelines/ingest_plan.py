"""What is to be done in an ingest: which sources are new, which are there, which are refused."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from otzi.errors import SourceError
from otzi_pipelines.sources import Source, Spacing, read_source, sha256_of, tomogram_id

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from otzi.collection import Collection
    from otzi.errors import OtziError
    from otzi.tomogram import Tomogram

__all__ = ["IngestItem", "IngestPlan", "Task", "make_plan"]


@dataclass(frozen=True, slots=True)
class IngestItem:
    """What became of one source."""

    source: Path
    id: str
    state: Literal["published", "done", "quarantined"]
    """``done``: the same bytes were published before, by the same settings."""
    reason: str = ""
    """Why it is quarantined."""
    exit_code: int = 0
    warnings: tuple[str, ...] = ()

    @classmethod
    def quarantined(cls, source: Path, id: str, error: OtziError) -> IngestItem:  # noqa: A002
        """Give the item of a source that is left alone because of an error."""
        return cls(source, id, "quarantined", str(error), error.exit_code)

    def to_json(self) -> dict[str, Any]:
        """Give the item as plain JSON."""
        return {
            "source": str(self.source),
            "id": self.id,
            "state": self.state,
            "reason": self.reason,
            "warnings": list(self.warnings),
        }


@dataclass(frozen=True, slots=True)
class Task:
    """A source to be converted into the tomogram of an id."""

    source: Source
    id: str
    recipe: dict[str, Any]


@dataclass(slots=True)
class IngestPlan:
    """For each source in its order: a task, or what is settled already."""

    steps: list[Task | IngestItem] = field(default_factory=list)

    @property
    def tasks(self) -> list[Task]:
        """The sources to be converted."""
        return [step for step in self.steps if isinstance(step, Task)]


@dataclass(slots=True)
class _Content:
    """The bytes that a tomogram is made from, compared as cheaply as can be."""

    id: str
    recipe: dict[str, Any]
    name: str
    n_bytes: int
    header: bytes
    path: Path | None = None
    sha256: str | None = None

    @classmethod
    def published(cls, tomo: Tomogram) -> _Content:
        attributes = tomo.attributes("raw")
        source = attributes.get("source", {})
        return cls(
            id=tomo.id,
            recipe=attributes["recipe"],
            name=source.get("name", "made otherwise"),
            n_bytes=source.get("n_bytes", -1),
            header=base64.b64decode(source.get("header_base64", "")),
            sha256=source.get("sha256", ""),
        )

    @classmethod
    def of(cls, task: Task) -> _Content:
        header, path = task.source.header.raw, task.source.path
        return cls(task.id, task.recipe, path.name, task.source.n_bytes, header, path)

    def is_same(self, other: _Content) -> bool:
        """Tell whether both are the same bytes, which are read only if all else agrees."""
        if (self.n_bytes, self.header) != (other.n_bytes, other.header):
            return False
        return self._digest() == other._digest()

    def _digest(self) -> str:
        if self.sha256 is None:
            self.sha256 = "" if self.path is None else sha256_of(self.path)
        return self.sha256


def make_plan(
    collection: Collection,
    paths: Sequence[Path],
    *,
    preset: str,
    voxel_size: Spacing | None,
    tomogram: str | None,
    as_volume: bool,
) -> IngestPlan:
    """Give what is to be done; headers are read, data only to tell twins apart."""
    recipe = {"preset": preset, "voxel_size_angstrom": voxel_size and list(voxel_size)}
    known = [_Content.published(tomo) for tomo in collection]
    plan = IngestPlan()
    for path in paths:
        name = tomogram or tomogram_id(path)
        try:
            task = Task(read_source(path, voxel_size, as_volume=as_volume), name, recipe)
            content = _Content.of(task)
            twin = _twin(content, known, collection, is_named=tomogram is not None)
        except SourceError as error:
            plan.steps.append(IngestItem.quarantined(path, name, error))
            continue
        if twin is None:
            known.append(content)
            plan.steps.append(task)
        else:
            plan.steps.append(IngestItem(path, twin, "done"))
    return plan


def _twin(
    content: _Content, known: Sequence[_Content], collection: Collection, *, is_named: bool
) -> str | None:
    """Give the id under which the same is there already, or None.

    Raises
    ------
    SourceError
        If the id is taken by something else.
    """
    for other in known:
        is_same_id = other.id == content.id
        if not is_same_id and (is_named or other.recipe != content.recipe):
            continue
        is_same = other.is_same(content)
        if is_same and other.recipe == content.recipe:
            return other.id
        if is_same_id:
            what = f"by other settings {other.recipe}" if is_same else f"of {other.name}"
            folder = collection.path / "tomograms" / other.id
            raise SourceError(
                f"{content.path}: there is a tomogram {other.id!r} already, {what}: pass --id for "
                f"a new one, or remove {folder} first"
            )
    return None
