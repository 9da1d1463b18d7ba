"""Verb run: a collection through a pipeline."""

from __future__ import annotations

import json
import os
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from otzi.arguments import CollectionArgument, ExecutorOption
from otzi.classes import DEFAULT_CLASSES
from otzi.cli import verb
from otzi.collection import is_collection, open_collection
from otzi.console import Console
from otzi.events import Event, Noted, Warned
from otzi.ledger.postgres import read_stage_rows
from otzi.stopping import Stop, stopping
from otzi.store.location import as_location
from otzi_pipelines.run.coordinator import run_collection
from otzi_pipelines.run.pipeline import Pipeline, load_pipeline
from otzi_pipelines.run.plan import RunPlan, plan_run
from otzi_pipelines.run.progress import Moved, RunEvent, Settled, Standing, event_json
from otzi_pipelines.run.table import LiveTable
from otzi_pipelines.run.volume import Shard, find_volumes, parse_shard

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

__all__ = ["command"]


@verb
def command(
    console: Console,
    collection: CollectionArgument,
    pipeline: Annotated[Path, typer.Argument(metavar="PIPELINE.toml", help="The stages.")],
    *,
    executor: ExecutorOption = "local",
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="GLOB", help="Tomograms by their ids, as 'ts_0*'; may be repeated."),
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(metavar="I/N", help="The I-th of N shares of the tomograms, each by itself."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done; change nothing.")
    ] = False,
    retry: Annotated[
        bool, typer.Option("--retry", help="Try again what is in quarantine.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Work although another run does, or seems to.")
    ] = False,
    ledger: Annotated[
        str | None,
        typer.Option(
            metavar="postgresql://…",
            envvar="OTZI_STAGES",
            help="Stages in a database that several coordinators share.",
        ),
    ] = None,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE.html", help="Dask's performance report.")
    ] = None,
) -> int:
    """Bring a collection through the stages of a pipeline; what is done is not done again."""
    stages = load_pipeline(pipeline)
    share = None if shard is None else parse_shard(shard)
    if dry_run:
        plan = _plan(collection, stages, only, share, ledger)
        console.result(plan.to_json(), str(plan))
        return 0
    standing = Standing(stages.settings.volumes)

    def tell(event: RunEvent) -> None:
        standing(event)
        is_detail = isinstance(event, Moved | Settled) and console.verbosity < 1
        if not (console.terminal or is_detail):
            console.say(json.dumps(event_json(event)))

    def listen(event: Event) -> None:
        if isinstance(event, Noted | Warned):
            console(event)

    with stopping() as stop, _table(console, standing, stop):
        outcome = run_collection(
            collection,
            stages,
            only=only,
            shard=share,
            executor=executor,
            ledger=ledger,
            force=force,
            retry=retry,
            report=report,
            stop=stop.asked,
            listen=listen,
            tell=tell,
        )
    code = outcome.exit_code
    if outcome.n_left:
        why = "it stalled" if outcome.has_stalled else "stopped"
        console.warn(f"{why}, {outcome.n_left} stages are left: the same command goes on")
    if stop.asked.is_set() and not outcome.has_stalled:
        code = stop.exit_code(work_remains=bool(outcome.n_left)) or code
    quarantined = [
        {"tomogram": tomogram, "stage": stage, "reason": reason}
        for tomogram, stage, reason in outcome.quarantined
    ]
    document = {"stages": standing.to_json(), "quarantined": quarantined, "left": outcome.n_left}
    lines = [
        f"{name:<24} {stage['done']} done, {stage['waiting']} waiting, "
        f"{stage['quarantined']} quarantined, {stage['left']} left"
        for name, stage in standing.to_json().items()
    ]
    console.result(document, "\n".join(lines))
    if outcome.n_hung:
        console.warn(f"{outcome.n_hung} tomograms did not let go: the process ends without them")
        os._exit(code)
    return code


def _table(
    console: Console, standing: Standing, stop: Stop
) -> AbstractContextManager[LiveTable | None]:
    terminal = console.terminal
    return LiveTable(standing, terminal, stop.asked.is_set) if terminal else nullcontext()


def _plan(
    path: str,
    pipeline: Pipeline,
    only: Sequence[str] | None,
    shard: Shard | None,
    ledger: str | None,
) -> RunPlan:
    location = as_location(path)
    sources = pipeline.ingest.files() if pipeline.ingest else {}
    if pipeline.ingest and not is_collection(location):
        volumes = find_volumes(None, sources, only=only, shard=shard)
        n_classes = len(pipeline.ingest.classes or DEFAULT_CLASSES)
        return plan_run(pipeline, volumes, (), n_classes)
    collection = open_collection(location)
    volumes = find_volumes(collection, sources, only=only, shard=shard)
    rows = read_stage_rows(collection, ledger)
    return plan_run(pipeline, volumes, rows, len(collection.classes))
