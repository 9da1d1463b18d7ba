"""Verb quarantine: what was left out and why, and another try."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from otzi.arguments import CollectionArgument
from otzi.cli import verb
from otzi.collection import Collection, open_collection
from otzi.console import Console
from otzi.errors import NotFoundError, UsageError
from otzi.ledger.postgres import read_stage_rows, stage_ledger
from otzi.ledger.quarantine import read_reports
from otzi.ledger.sources import Sources
from otzi.ledger.sqlite import open_catalog
from otzi_pipelines.ingest.quarantine import remove_reports

__all__ = ["command"]

_SOME_LEFT = 5


@verb
def command(
    console: Console,
    action: Annotated[
        Literal["list", "retry"], typer.Argument(help="Show it, or let it be tried again.")
    ],
    collection: CollectionArgument,
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME", help="Tomograms or files to try again."),
    ] = None,
    *,
    everything: Annotated[bool, typer.Option("--all", help="Try everything again.")] = False,
    ledger: Annotated[
        str | None,
        typer.Option(
            metavar="postgresql://…",
            envvar="OTZI_STAGES",
            help="Where the stages are, if not in the collection's catalog.",
        ),
    ] = None,
) -> int:
    """Show what was left out and why; after that is mended, let it be tried again.

    Files come back with the next look of `otzi watch`, stages with the next `otzi run`.
    """
    col = open_collection(collection, mode="r" if action == "list" else "r+")
    there = _entries(col, ledger)
    if action == "list":
        lines = [f"{_name(entry):<28} {entry['reason']}" for entry in there]
        console.result({"quarantined": there}, "\n".join(lines))
        return 0
    if everything == bool(names):
        raise UsageError("say which to try again, by tomogram or file, or --all")
    named = {entry["id"] for entry in there if _is_named(entry, names or [])}
    chosen = [entry for entry in there if everything or entry["id"] in named]
    for name in names or []:
        if not any(_is_named(entry, [name]) for entry in chosen):
            raise NotFoundError(f"{name!r} is not quarantined: `otzi quarantine list` says what is")
    retried = [entry for entry in chosen if _retry(col, ledger, entry)]
    by_run = {entry["id"] for entry in retried if entry.get("stage") == "ingest"}
    left = [entry for entry in chosen if entry not in retried and entry["id"] not in by_run]
    for entry in left:
        source = entry.get("source", "FILE")
        console.warn(f"{source} is of no watched folder: otzi ingest {collection} {source}")
    lines = [f"{_name(entry):<28} will be tried again" for entry in retried]
    console.result({"retried": retried}, "\n".join(lines))
    return _SOME_LEFT if left else 0


def _entries(col: Collection, ledger: str | None) -> list[dict[str, Any]]:
    """Give what is quarantined: sources by their reports, stages by the ledger."""
    stages = [
        {"id": row.tomogram, "stage": row.stage, "reason": row.error}
        for row in read_stage_rows(col, ledger)
        if row.state == "quarantined"
    ]
    return read_reports(col.workspace) + stages


def _name(entry: dict[str, Any]) -> str:
    return f"{entry['id']} {entry['stage']}" if "stage" in entry else str(entry["id"])


def _is_named(entry: dict[str, Any], names: list[str]) -> bool:
    source = entry.get("source", "")
    return not {entry["id"], source, Path(source).name}.isdisjoint(names)


def _retry(col: Collection, ledger: str | None, entry: dict[str, Any]) -> bool:
    """Take an entry out of quarantine; tell whether somebody will come to it."""
    with open_catalog(col.workspace) as catalog, catalog.transaction():
        sources = Sources(catalog)
        for row in sources.rows():
            if "stage" in entry and row.tomogram == entry["id"] and row.state == "sealed":
                sources.put(replace(row, pipeline=None))
            elif row.state == "quarantined" and str(row.path.resolve()) == entry.get("source"):
                sources.put(replace(row, state="seen", reason=None, attempts=0), "retried")
                remove_reports(col.workspace, row.path)
                return True
    if "stage" in entry:
        stage_ledger(col, ledger).retry(entry["id"])
    return "stage" in entry
