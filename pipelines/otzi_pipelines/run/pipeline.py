"""``PIPELINE.toml``: the stages that a collection goes through, and how they are run.

::

    [run]                      # all of it may be left out; see `RunSettings`
    volumes = 2

    [[stage]]
    stage = "segment"          # one of ingest, pseudolabel, segment, ramps, view, objects, …
    model = "models/unet"      # the rest is that stage's; paths are relative to this file
    name = "unet"
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from otzi.errors import ConfigurationError, NotFoundError, disk_errors
from otzi.memory import parse_bytes
from otzi.settings import STRICT, read_settings
from otzi_pipelines.run.ingest_stage import IngestStage
from otzi_pipelines.run.objects_stage import ObjectsStage
from otzi_pipelines.run.product_stages import (
    PseudolabelStage,
    RampsStage,
    SegmentStage,
    ViewStage,
)
from otzi_pipelines.run.verb_stages import RenderStage, VerbStage

if TYPE_CHECKING:
    from otzi_pipelines.run.stages import Stage
    from otzi_pipelines.run.volume import Volume

__all__ = ["KINDS", "Pipeline", "RunSettings", "load_pipeline", "read_pipeline"]

KINDS: dict[str, type[Any]] = {
    "ingest": IngestStage,
    "pseudolabel": PseudolabelStage,
    "segment": SegmentStage,
    "ramps": RampsStage,
    "view": ViewStage,
    "objects": ObjectsStage,
    "render": RenderStage,
    "verb": VerbStage,
}


@dataclass(frozen=True, slots=True)
class RunSettings:
    """How a pipeline is run; nothing here changes what comes of it.

    Raises
    ------
    ConfigurationError
        If a number is out of range.
    """

    __pydantic_config__ = STRICT

    volumes: int = 2
    """Tomograms at the same time."""
    workers: int | None = None
    """Threads, shared by these; one for each core if left out."""
    memory: str | None = None
    """Shared by these, as ``8GB``; not bounded if left out."""
    attempts: int = 5
    """For a stage that fails for a reason that may pass."""
    backoff_seconds: float = 10.0
    """Before the second attempt; twice as long before each further one, and half as long or half
    as long again by chance."""
    lease_seconds: float = 120.0
    """After so long without a sign of life a coordinator is taken for dead."""
    stall_seconds: float = 300.0
    """After so long without any progress, or 20 times the usual, the run is taken for stalled."""
    finish_seconds: float = 15.0
    """When asked to stop, stages that end within this time may; the others are abandoned."""

    def __post_init__(self) -> None:
        for name in ("volumes", "attempts", "lease_seconds", "stall_seconds"):
            if (value := getattr(self, name)) < 1:
                raise ConfigurationError(f"{name} = {value}: at least 1")
        for name in ("backoff_seconds", "finish_seconds"):
            if (value := getattr(self, name)) < 0:
                raise ConfigurationError(f"{name} = {value}: not below 0")
        if self.memory is not None:
            parse_bytes(self.memory)


@dataclass(frozen=True, slots=True)
class Pipeline:
    """What tomograms go through.

    Raises
    ------
    ConfigurationError
        If there is no stage, two have one name or one product, one comes before what it needs is
        made, or ingest is not the first.
    """

    stages: tuple[Stage, ...]
    settings: RunSettings = RunSettings()

    def __post_init__(self) -> None:
        if not self.stages:
            raise ConfigurationError("no [[stage]]: name one at least")
        if any(isinstance(stage, IngestStage) for stage in self.stages[1:]):
            raise ConfigurationError("ingest comes first, and once: the others need what it makes")
        for what in ("key", "makes"):
            names = [getattr(stage, what) for stage in self.stages]
            for name in names:
                if name is not None and names.count(name) > 1:
                    raise ConfigurationError(f"{name} is made by two stages: give one another name")
        for n, stage in enumerate(self.stages):
            for later in self.stages[n:]:
                if later.makes in (*stage.needs, *stage.may_use):
                    raise ConfigurationError(
                        f"{stage.key} needs {later.makes}, which is made after it: move "
                        f"{later.key} before it"
                    )

    @property
    def ingest(self) -> IngestStage | None:
        """The stage that makes tomograms, if there is one."""
        first = self.stages[0]
        return first if isinstance(first, IngestStage) else None

    def stages_of(self, volume: Volume) -> tuple[Stage, ...]:
        """Give the stages that a tomogram goes through: ingest only with a source."""
        needs_no_ingest = self.ingest is not None and volume.source is None
        return self.stages[1:] if needs_no_ingest else self.stages


def load_pipeline(path: Path) -> Pipeline:
    """Give the pipeline of a file.

    Raises
    ------
    NotFoundError
        If there is no such file.
    ConfigurationError
        If it is no TOML, or says what cannot be meant.
    """
    if not path.is_file():
        raise NotFoundError(f"pipeline {path} is not there")
    try:
        with disk_errors(path, "reading"):
            document = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} is not TOML: {error}") from error
    return read_pipeline(document, path)


def read_pipeline(document: dict[str, Any], path: Path) -> Pipeline:
    """Give the pipeline of a parsed file at `path`, to whose folder paths in it are relative.

    Raises
    ------
    ConfigurationError
        If it says what cannot be meant.
    """
    tables = document.get("stage")
    if unknown := document.keys() - {"run", "stage"}:
        raise ConfigurationError(
            f"{path}: unknown key {min(unknown)!r}; there are [run] and [[stage]]"
        )
    if not isinstance(tables, list):
        raise ConfigurationError(f"{path}: no [[stage]]: name one at least")
    settings = read_settings(RunSettings, document.get("run", {}), f"{path}, [run]")
    stages = tuple(
        _stage(table, f"{path}, stage {n}", path.parent) for n, table in enumerate(tables, 1)
    )
    try:
        return Pipeline(stages, settings)
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error}") from error


def _stage(table: dict[str, Any], where: str, folder: Path) -> Stage:
    kind = table.get("stage")
    if kind not in KINDS:
        raise ConfigurationError(f"{where}: stage = {kind!r}: choose from {', '.join(KINDS)}")
    rest = {key: value for key, value in table.items() if key != "stage"}
    stage: Stage = read_settings(KINDS[kind], rest, f"{where} ({kind})")
    return _resolved(stage, folder)


def _resolved(stage: Stage, folder: Path) -> Stage:
    """Give a stage whose paths do not depend on where it is run from."""
    assert is_dataclass(stage)
    changed: dict[str, Any] = {}
    for field in fields(stage):
        value = getattr(stage, field.name)
        if isinstance(value, Path):
            changed[field.name] = folder / value
        elif isinstance(value, tuple) and value and all(isinstance(part, Path) for part in value):
            changed[field.name] = tuple(folder / part for part in value)
    resolved: Stage = replace(stage, **changed)
    return resolved
