"""A batch of MRC files into tomograms; a bad file never stops the others."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from math import ceil, prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from otzi.collection import Collection
from otzi.errors import Locked, MemoryBudgetError, SourceError, UsageError, checked_name
from otzi.events import Listener, Warned, ignore, one_at_a_time
from otzi.files import check_space
from otzi.memory import usable_cores
from otzi.store.location import as_location
from otzi.store.presets import checked_preset, stored_dtype
from otzi_pipelines.ingest.convert import convert
from otzi_pipelines.ingest.find import find_sources, tomogram_id
from otzi_pipelines.ingest.plan import IngestItem, Task, make_plan
from otzi_pipelines.ingest.quarantine import keep_report, remove_reports
from otzi_pipelines.ingest.request import Request
from otzi_pipelines.ingest.sources import Reading
from otzi_pipelines.ingest.strips import slab_planes
from otzi_pipelines.ingest.target import collection_to_fill

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from otzi.store.location import Location
    from otzi_pipelines.ingest.options import Fill
    from otzi_pipelines.ingest.sources import Spacing

__all__ = ["IngestReport", "ingest", "ingest_requests"]

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
    collection: Collection | str | Location,
    sources: Sequence[str | Path],
    *,
    voxel_size: Spacing | None = None,
    preset: str = "exact",
    workers: int = 1,
    memory_bytes: int | None = None,
    tomogram: str | None = None,
    as_volume: bool = False,
    split_volumes: bool = False,
    salvage: bool = False,
    nonfinite: Fill = None,
    update: bool = False,
    classes: Sequence[str] | None = None,
    listen: Listener = ignore,
) -> IngestReport:
    """Give the report of a batch: each source is published, done already, or quarantined.

    Why a source is quarantined stands in the collection's folder ``quarantine`` too, until it is
    taken.

    Parameters
    ----------
    collection
        It is made, if its folder does not exist.
    sources
        MRC files, and folders to search for them; they may be compressed by gzip or bzip2.
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
    split_volumes
        Take each volume of a stack of volumes as a tomogram, ``ID_v01``, ``ID_v02`` …
    salvage
        Take the whole sections of files that are cut short, and mark what is made of them.
    nonfinite
        ``mean`` or a value, which ``train`` and ``compact`` store for voxels that are not finite.
    classes
        Names of a new collection's classes, the background first; the published four if None.
    update
        Replace a tomogram whose source or settings changed, once the new revision is whole.
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
    if preset == "exact" and nonfinite is not None:
        raise UsageError("--nonfinite fill changes voxels, --preset exact never does: drop one")
    if workers < 1:
        raise UsageError(f"{workers} workers: give at least 1")
    paths = find_sources([Path(source) for source in sources])
    if tomogram is not None and len(paths) != 1:
        raise UsageError(
            f"--id {checked_name(tomogram, 'tomogram')} is for 1 source, not {len(paths)}"
        )
    col = (
        collection
        if isinstance(collection, Collection)
        else collection_to_fill(as_location(collection), classes)
    )
    requests = [
        Request(
            path,
            tomogram or tomogram_id(path),
            is_named=tomogram is not None,
            preset=preset,
            reading=Reading(voxel_size, as_volume, split_volumes, salvage),
            nonfinite=nonfinite,
            update=update,
        )
        for path in paths
    ]
    outcomes = ingest_requests(
        col, requests, workers=workers, memory_bytes=memory_bytes, listen=listen
    )
    return IngestReport(tuple(item for _, items in outcomes for item in items))


def ingest_requests(
    col: Collection,
    requests: Sequence[Request],
    *,
    workers: int = 1,
    memory_bytes: int | None = None,
    listen: Listener = ignore,
) -> Iterator[tuple[Request, list[IngestItem]]]:
    """Yield each request with what became of it, in their order, as soon as it is known.

    What is quarantined is reported, but for sealed files: whoever sealed them decides.

    Raises
    ------
    OutOfSpace
        If they cannot all fit; nothing is begun then.
    MemoryBudgetError
        Likewise; a sealed file for which the memory does not suffice stops no other, though.
    """
    plan = make_plan(col, requests)
    threads = max(1, min(_MOST_THREADS, usable_cores() // workers))
    share = memory_bytes and memory_bytes // workers
    for task in plan.tasks:
        if task.request.seal is None:
            slab_planes(task.source, share, threads)
    _check_space(col.workspace, plan.tasks, workers)
    listen = one_at_a_time(listen)
    refused = [item for request, item in plan.items if request.seal is None]
    _report_quarantined(col.workspace, refused)
    for item in refused:
        if item.state == "quarantined":
            listen(Warned(f"quarantined: {item.reason}"))

    def run(task: Task) -> IngestItem:
        path, tomo = task.source.path, col.add(task.id)
        try:
            warnings = convert(
                task.source,
                tomo,
                task.recipe,
                depth=slab_planes(task.source, share, threads),
                threads=threads,
                listen=listen,
            )
        except (SourceError, Locked, MemoryBudgetError) as error:
            if task.request.seal is None:
                listen(Warned(f"quarantined: {error}"))
            return IngestItem.left(task.request, task.id, error)
        if task.is_update and (derived := tomo.products[1:]):
            warnings += (f"{', '.join(derived)} of {task.id} are of the revision before",)
        for warning in warnings:
            listen(Warned(f"{path.name}: {warning}"))
        return IngestItem(path, task.id, "published", warnings=warnings)

    with ThreadPoolExecutor(workers) as pool:
        futures = {task.id: pool.submit(run, task) for task in plan.tasks}
        ran: dict[str, IngestItem] = {}
        try:
            for request, steps in plan.steps:
                tasks = [step for step in steps if isinstance(step, Task)]
                ran |= {task.id: futures[task.id].result() for task in tasks}
                items = [_outcome(step, ran) for step in steps]
                if request.seal is None:
                    _report_quarantined(col.workspace, items)
                yield request, items
        finally:
            for future in futures.values():
                future.cancel()


def _report_quarantined(folder: Path, items: Sequence[IngestItem]) -> None:
    for path in {item.source for item in items}:
        remove_reports(folder, path)
    for item in items:
        if item.state == "quarantined":
            keep_report(folder, item)


def _outcome(step: Task | IngestItem, ran: dict[str, IngestItem]) -> IngestItem:
    if isinstance(step, Task):
        return ran[step.id]
    twin = ran.get(step.id)
    if step.state == "done" and twin is not None and twin.state != "published":
        return replace(twin, source=step.source)
    return step


def _check_space(folder: Path, tasks: Sequence[Task], workers: int) -> None:
    needed = float(sum(sorted(task.source.unpacked_bytes for task in tasks)[-workers:]))
    for task in tasks:
        header, preset = task.source.header, task.recipe["preset"]
        itemsize = stored_dtype(preset, header.dtype).itemsize
        needed += prod(header.shape) * itemsize * _WITH_LEVELS * _SAFETY
    wish = "1 tomogram needs" if len(tasks) == 1 else f"{len(tasks)} tomograms need"
    check_space(folder, ceil(needed), wish, "use --preset train or compact")
