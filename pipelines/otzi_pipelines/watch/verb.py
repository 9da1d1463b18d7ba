"""Verb watch: scheduled ingestion."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from otzi.arguments import CollectionArgument, ExecutorOption
from otzi.cli import verb
from otzi.console import Console
from otzi.errors import NotFoundError, UsageError
from otzi.events import one_at_a_time
from otzi.memory import parse_bytes
from otzi.settings import load_settings
from otzi.stopping import stopping
from otzi.store.location import as_location
from otzi_pipelines.ingest.target import collection_to_fill
from otzi_pipelines.watch.loop import Watch, watching
from otzi_pipelines.watch.notify import Notifier, checked_target
from otzi_pipelines.watch.options import parse_seconds
from otzi_pipelines.watch.pipeline import FollowUp
from otzi_pipelines.watch.poll import Poll
from otzi_pipelines.watch.rules import WatchRules
from otzi_pipelines.watch.wake import check_can_wake

__all__ = ["command"]


@verb
def command(
    console: Console,
    collection: CollectionArgument,
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Where the files arrive; never written to.")
    ],
    *,
    once: Annotated[
        bool, typer.Option("--once", help="One look, for timers; what settles waits for the next.")
    ] = False,
    every: Annotated[
        str | None, typer.Option(metavar="30s", help="Look again and again, until stopped.")
    ] = None,
    settle: Annotated[
        str | None,
        typer.Option(metavar="30s", help="So long must a complete file have been quiet."),
    ] = None,
    stall: Annotated[
        str | None,
        typer.Option(metavar="10m", help="So long may a transfer pause before it is given up."),
    ] = None,
    rules: Annotated[
        Path | None, typer.Option(metavar="FILE.toml", help="Settings, and rules by folder.")
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(metavar="PIPELINE.toml", help="What `otzi run` is to do with what is new."),
    ] = None,
    executor: ExecutorOption = "local",
    notify: Annotated[
        str | None,
        typer.Option(
            metavar="URL|COMMAND",
            help="Told by JSON of what was quarantined, stalled or completed, or is unavailable.",
        ),
    ] = None,
    may_be_empty: Annotated[
        bool, typer.Option("--may-be-empty", help="The folder is emptied now and then.")
    ] = False,
    wake: Annotated[
        bool, typer.Option("--wake", help="With --every: look at once where the system tells.")
    ] = False,
    workers: Annotated[int, typer.Option(min=1, help="Tomograms at a time.")] = 1,
    memory: Annotated[
        str | None, typer.Option(metavar="SIZE", help="What may be used at most, as in 2GB.")
    ] = None,
    classes: Annotated[
        str | None, typer.Option(metavar="NAME,NAME…", help="Of a new collection.")
    ] = None,
) -> int:
    """Take the MRC files that arrive in a folder, each once it is complete, and go on from there.

    A file that was replaced becomes a new revision; a bad one is quarantined until it changes.
    """
    if once == (every is not None):
        raise UsageError("say either --once or --every 30s")
    if folder.is_file():
        raise UsageError(f"{folder} is a file: name its folder, or `otzi ingest` it")
    if wake:
        check_can_wake()
    settings = WatchRules() if rules is None else load_settings(WatchRules, rules)
    given: dict[str, Any] = {
        "settle_seconds": None if settle is None else parse_seconds(settle, "--settle"),
        "stall_seconds": None if stall is None else parse_seconds(stall, "--stall"),
        "notify": notify,
        "may_be_empty": may_be_empty or None,
    }
    settings = replace(settings, **{key: v for key, v in given.items() if v is not None})
    every_seconds = 0.0 if every is None else parse_seconds(every, "--every")
    if run is not None and not run.is_file():
        raise NotFoundError(f"pipeline {run} is not there")
    target = None if settings.notify is None else checked_target(settings.notify)
    col = collection_to_fill(as_location(collection), classes and classes.split(","))
    memory_bytes = None if memory is None else parse_bytes(memory)
    folder = folder.resolve()
    watch = Watch(
        Poll(col, folder, settings, workers, memory_bytes),
        Notifier(target, collection, str(folder)),
        None if run is None else FollowUp(col, folder, run, executor),
    )
    with watching(col.workspace), stopping() as stop:
        listen = one_at_a_time(console)
        if once:
            report = watch.once(stop, listen)
            console.result(report.to_json(), "\n".join(report.lines()))
            if report.was_stopped:
                return stop.exit_code(work_remains=True)
            return report.exit_code
        work_remains = True
        for report in watch.forever(every_seconds, stop, listen, wake=wake):
            work_remains = bool(report.waiting) or report.was_stopped
            if report.did_something:
                console.line(report.to_json(), "\n".join(report.lines()))
        return stop.exit_code(work_remains=work_remains)
