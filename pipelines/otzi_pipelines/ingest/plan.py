"""What is to be done in an ingest: which sources are new, which are there, which are refused."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from otzi.errors import SourceError, TemporaryFailure
from otzi_pipelines.ingest.source_files import sha256_of
from otzi_pipelines.ingest.sources import Source, read_sources

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from otzi.collection import Collection
    from otzi.errors import OtziError
    from otzi.tomogram import Tomogram
    from otzi_pipelines.ingest.request import Request

__all__ = ["IngestItem", "IngestPlan", "Task", "make_plan"]


@dataclass(frozen=True, slots=True)
class IngestItem:
    """What became of one source."""

    source: Path
    id: str
    state: Literal["published", "done", "quarantined", "postponed"]
    """``done``: the same bytes were published before, by the same settings. ``postponed``: a sealed
    file has changed, or cannot be taken for a reason that may pass."""
    reason: str = ""
    """Why it is not taken."""
    exit_code: int = 0
    warnings: tuple[str, ...] = ()

    @classmethod
    def left(cls, request: Request, id: str, error: OtziError) -> IngestItem:  # noqa: A002
        """Give the item of a source that is left alone because of an error."""
        if request.may_be_postponed(error):
            code = TemporaryFailure.exit_code
            return cls(request.path, id, "postponed", str(error), code)
        may_pass = isinstance(error.__cause__, TemporaryFailure)  # the disk failed, not the file
        code = TemporaryFailure.exit_code if may_pass else error.exit_code
        return cls(request.path, id, "quarantined", str(error), code)

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

    request: Request
    source: Source
    id: str
    is_update: bool = False
    """Whether it replaces a revision that is published."""

    @property
    def recipe(self) -> dict[str, Any]:
        """All that decides what is stored, beside the bytes of the file."""
        return self.request.recipe


Step = Task | IngestItem


@dataclass(slots=True)
class IngestPlan:
    """For each request in its order: tasks, one for each volume, or what is settled already."""

    steps: list[tuple[Request, list[Step]]] = field(default_factory=list)

    @property
    def tasks(self) -> list[Task]:
        """The sources to be converted."""
        return [step for _, steps in self.steps for step in steps if isinstance(step, Task)]

    @property
    def items(self) -> list[tuple[Request, IngestItem]]:
        """What is settled already."""
        return [
            (request, step)
            for request, steps in self.steps
            for step in steps
            if isinstance(step, IngestItem)
        ]


@dataclass(slots=True)
class _Content:
    """The bytes that a tomogram is made from, compared as cheaply as can be."""

    id: str
    recipe: dict[str, Any]
    name: str
    n_bytes: int
    header: bytes
    volume: int | None
    path: Path | None = None
    """None for what is published."""
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
            volume=source.get("volume", {}).get("number"),
            sha256=source.get("sha256", ""),
        )

    @classmethod
    def of(cls, task: Task) -> _Content:
        source = task.source
        return cls(
            id=task.id,
            recipe=task.recipe,
            name=source.path.name,
            n_bytes=source.n_bytes,
            header=source.header.raw,
            volume=source.volume,
            path=source.path,
            sha256=source.sha256,
        )

    def is_same(self, other: _Content) -> bool:
        """Tell whether both are the same bytes, which are read only if all else agrees."""
        mine = self.n_bytes, self.header, self.volume
        if mine != (other.n_bytes, other.header, other.volume):
            return False
        return self._digest() == other._digest()

    def _digest(self) -> str:
        if self.sha256 is None:
            self.sha256 = "" if self.path is None else sha256_of(self.path)
        return self.sha256


def make_plan(collection: Collection, requests: Sequence[Request]) -> IngestPlan:
    """Give what is to be done; headers are read, data only to tell twins apart."""
    known = [_Content.published(tomo) for tomo in collection]
    return IngestPlan([(one, _steps(one, known, collection)) for one in requests])


def _steps(request: Request, known: list[_Content], collection: Collection) -> list[Step]:
    try:
        sources = read_sources(request.path, request.reading)
        if (seal := request.seal) is not None:
            sources[0].check_state(seal.n_bytes, seal.mtime_ns)
            sources = tuple(replace(one, expected_sha256=seal.sha256) for one in sources)
    except SourceError as error:
        return [IngestItem.left(request, request.id, error)]
    steps: list[Step] = []
    for source in sources:
        task = Task(request, source, _volume_id(request.id, source))
        try:
            steps.append(_settle(task, known, collection))
        except SourceError as error:
            steps.append(IngestItem.left(request, task.id, error))
    return steps


def _volume_id(name: str, source: Source) -> str:
    if source.volume is None:
        return name
    n_digits = max(2, len(str(source.n_volumes)))
    number = f"_v{source.volume:0{n_digits}}"
    return name[: 128 - len(number)] + number


def _settle(task: Task, known: list[_Content], collection: Collection) -> Step:
    """Give the task, known from now on, or the item of a twin that is there already.

    Raises
    ------
    SourceError
        If the id is taken by something else.
    """
    content = _Content.of(task)
    is_update = False
    for other in known:
        is_same_id = other.id == content.id
        if not is_same_id and (task.request.is_named or other.recipe != content.recipe):
            continue
        is_same = other.is_same(content)
        if is_same and other.recipe == content.recipe:
            return IngestItem(task.source.path, other.id, "done")
        if is_same_id and task.request.update and other.path is None:
            is_update = True
        elif is_same_id:
            what = f"by other settings {other.recipe}" if is_same else f"of {other.name}"
            folder = collection.path / "tomograms" / other.id
            remedy = f"--update to replace it, or remove {folder} first"
            if other.path is not None:
                what, remedy = f"of {other.path} in this run", "or rename it"
            raise SourceError(
                f"{content.path}: there is a tomogram {other.id!r} already, {what}: pass --id for "
                f"a new one, {remedy}"
            )
    known.append(content)
    return replace(task, is_update=is_update)
