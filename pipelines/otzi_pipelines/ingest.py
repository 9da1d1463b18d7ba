"""Verb ingest: MRC files into tomograms; a bad file never stops the others."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Annotated, Any

import typer

from otzi.cli import verb
from otzi.collection import Collection, create_collection, open_collection
from otzi.console import Console
from otzi.errors import Locked, OutOfSpace, SourceError, UsageError, checked_name
from otzi.events import Event, Listener, Warned, ignore
from otzi.memory import format_bytes, parse_bytes, usable_cores
from otzi.store.presets import PRESETS, checked_preset, stored_dtype
from otzi.store.publish import read_group
from otzi_pipelines.convert import convert, slab_planes
from otzi_pipelines.ingest_plan import IngestItem, Task, make_plan
from otzi_pipelines.sources import Spacing, find_sources, parse_voxel_size

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["IngestReport", "command", "ingest"]

_MOST_THREADS = 4
_WITH_LEVELS = 8 / 7
_SAFETY = 1.2


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What became of all sources, in their order."""

    items: tuple[IngestItem, ...]

    def ids(self, state: str) -> tuple[str, ...]:
        """Give the tomograms that are ``published``, ``done`` or ``quarantined``."""
        return tuple(item.id for item in self.items if item.state == state)

    @property
    def exit_code(self) -> int:
        """0 for all done, 5 for something quarantined, 75 for something to try again."""
        return max((item.exit_code for item in self.items), default=0)

    def to_json(self) -> dict[str, Any]:
        """Give the report as plain JSON."""
        return {"items": [item.to_json() for item in self.items]}


def ingest(
    collection: Collection | str | Path,
    sources: Sequence[str | Path],
    *,
    voxel_size: Spacing | None = None,
    preset: str = "exact",
    workers: int = 1,
    memory_bytes: int | None = None,
    tomogram: str | None = None,
    as_volume: bool = False,
    listen: Listener = ignore,
) -> IngestReport:
    """Give the report of a batch: each source is published, done already, or quarantined.

    Parameters
    ----------
    collection
        It is made, if its folder does not exist.
    sources
        MRC files, and folders to search for them.
    voxel_size
        Spacing z, y, x in ångström, in place of what the headers say.
    preset
        ``exact`` keeps the type, ``train`` is float16, ``compact`` int8 with a stated error.
    workers
        Tomograms at a time; they share the memory and the cores.
    memory_bytes
        Decides how many planes are read at a time: 64 where it is left out.
    tomogram
        Id for a single source, in place of its stem.
    as_volume
        Take stacks of images as volumes.
    listen
        Told of the progress and of every warning.

    Raises
    ------
    NotFoundError
        If a source is not there.
    CannotCreate
        If there is a folder that is no collection.
    MemoryBudgetError, OutOfSpace
        If it cannot fit; nothing is begun then.
    """
    checked_preset(preset)
    if workers < 1:
        raise UsageError(f"{workers} workers: give at least 1")
    paths = find_sources([Path(source) for source in sources])
    if tomogram is not None and len(paths) != 1:
        raise UsageError(
            f"--id {checked_name(tomogram, 'tomogram')} is for 1 source, not {len(paths)}"
        )
    col = collection if isinstance(collection, Collection) else _opened(Path(collection))
    plan = make_plan(
        col, paths, preset=preset, voxel_size=voxel_size, tomogram=tomogram, as_volume=as_volume
    )
    threads = max(1, min(_MOST_THREADS, usable_cores() // workers))
    share = memory_bytes and memory_bytes // workers
    depths = {task.id: slab_planes(task.source, share, threads) for task in plan.tasks}
    _check_space(col.path, plan.tasks)
    listen = _one_at_a_time(listen)
    for item in plan.steps:
        if isinstance(item, IngestItem) and item.reason:
            listen(Warned(f"quarantined: {item.reason}"))

    def run(task: Task) -> IngestItem:
        path, warnings = task.source.path, task.source.warnings
        for warning in warnings:
            listen(Warned(f"{path.name}: {warning}"))
        try:
            convert(
                task.source,
                col.add(task.id),
                task.recipe,
                depth=depths[task.id],
                threads=threads,
                listen=listen,
            )
        except (SourceError, Locked) as error:
            listen(Warned(f"quarantined: {error}"))
            return IngestItem.quarantined(path, task.id, error)
        return IngestItem(path, task.id, "published", warnings=warnings)

    with ThreadPoolExecutor(workers) as pool:
        ran = {item.id: item for item in pool.map(run, plan.tasks)}
    return IngestReport(tuple(_outcome(step, ran) for step in plan.steps))


def _outcome(step: Task | IngestItem, ran: dict[str, IngestItem]) -> IngestItem:
    if isinstance(step, Task):
        return ran[step.id]
    twin = ran.get(step.id)
    if step.state == "done" and twin is not None and twin.state == "quarantined":
        return replace(twin, source=step.source)
    return step


def _opened(path: Path) -> Collection:
    is_collection = path.is_dir() and "otzi" in (read_group(path) or {})
    return open_collection(path, mode="r+") if is_collection else create_collection(path)


def _check_space(folder: Path, tasks: Sequence[Task]) -> None:
    needed = 0.0
    for task in tasks:
        header, preset = task.source.header, task.recipe["preset"]
        itemsize = stored_dtype(preset, header.dtype).itemsize
        needed += prod(header.shape) * itemsize * _WITH_LEVELS * _SAFETY
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OutOfSpace(
            f"{folder} has {free} bytes free ({format_bytes(free)}), {len(tasks)} tomograms need "
            f"{needed:.0f} ({format_bytes(needed)}): free some, or use --preset train or compact"
        )


def _one_at_a_time(listen: Listener) -> Listener:
    lock = Lock()

    def tell(event: Event) -> None:
        with lock:
            listen(event)

    return tell


@verb
def command(
    console: Console,
    collection: Annotated[Path, typer.Argument(help="The collection; made if it is not there.")],
    sources: Annotated[
        list[Path], typer.Argument(metavar="SOURCE...", help="MRC files, or folders of them.")
    ],
    *,
    voxel_size: Annotated[
        str | None,
        typer.Option(metavar="Å", help="In place of the header's: one number, or z,y,x."),
    ] = None,
    preset: Annotated[
        str, typer.Option(help=f"How raw is stored: {', '.join(PRESETS)}.")
    ] = "exact",
    workers: Annotated[int, typer.Option(help="Tomograms at a time.")] = 1,
    memory: Annotated[
        str | None, typer.Option(metavar="SIZE", help="What may be used at most, as in 2GB.")
    ] = None,
    tomogram: Annotated[
        str | None, typer.Option("--id", help="Id of a single source, in place of its stem.")
    ] = None,
    as_volume: Annotated[
        bool, typer.Option("--as-volume", help="Take stacks of images as volumes.")
    ] = False,
) -> int:
    """Turn MRC files into tomograms with pyramids; a bad one is left out, the others go on."""
    report = ingest(
        collection,
        sources,
        voxel_size=None if voxel_size is None else parse_voxel_size(voxel_size),
        preset=preset,
        workers=workers,
        memory_bytes=None if memory is None else parse_bytes(memory),
        tomogram=tomogram,
        as_volume=as_volume,
        listen=console,
    )
    lines = [f"{item.state:<12} {item.id:<24} {item.source}" for item in report.items]
    console.result(report.to_json(), "\n".join(lines))
    return report.exit_code
