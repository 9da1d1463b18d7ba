"""Verb status: what is published, what is being made, what was interrupted or left out."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from otzi.arguments import CollectionArgument
from otzi.cli import verb
from otzi.collection import Collection, open_collection
from otzi.console import Console
from otzi.durations import format_seconds
from otzi.errors import disk_errors
from otzi.files import writing_whole
from otzi.ledger.postgres import read_stage_rows
from otzi.ledger.quarantine import read_reports
from otzi.ledger.sources import SourceRow, read_source_rows
from otzi.ledger.stage_report import (
    StageCounts,
    prometheus_text,
    stage_counts,
    whole_seconds_left,
)
from otzi.ledger.staging import StagedWork, staged_work
from otzi.memory import format_bytes

__all__ = ["status"]


@verb
def status(
    console: Console,
    collection: CollectionArgument,
    *,
    ledger: Annotated[
        str | None,
        typer.Option(
            metavar="postgresql://…",
            envvar="OTZI_STAGES",
            help="Where the stages are, if not in the collection's catalog.",
        ),
    ] = None,
    prometheus: Annotated[
        Path | None,
        typer.Option(metavar="FILE.prom", help="Write metrics for Prometheus' textfile collector."),
    ] = None,
) -> None:
    """Show what is published, running, interrupted and quarantined, and how far pipelines are."""
    col = open_collection(collection)
    rows = read_stage_rows(col, ledger)
    stages = stage_counts(rows)
    if prometheus is not None:
        _write_metrics(prometheus, col, stages)
    published = {tomo.id: list(tomo.products) for tomo in col}
    work = [
        _work(staged) for staged in staged_work(col.workspace) if staged.is_held or staged.is_begun
    ]
    quarantined = read_reports(col.workspace)
    sources = read_source_rows(col.workspace)
    document = {
        "tomograms": published,
        "work": work,
        "quarantined": quarantined,
        "sources": _sources(sources),
        "stages": {one.stage: one.to_json() for one in stages},
        "seconds_left": whole_seconds_left(stages),
    }
    lines = [f"published    {name}: {', '.join(products)}" for name, products in published.items()]
    lines += [_line(entry) for entry in work]
    lines += [f"quarantined  {report['id']}: {report['reason']}" for report in quarantined]
    lines += [f"{row.state:<12} {row.account}" for row in sources if row.is_open]
    lines += [
        f"{row.state:<12} {row.tomogram} {row.stage}: {row.error}"
        for row in rows
        if row.state in ("failed", "quarantined")
    ]
    lines += [_stage_line(one) for one in stages]
    if any(one.n_left for one in stages):
        left = whole_seconds_left(stages)
        lines.append("time left    " + ("not known yet" if left is None else format_seconds(left)))
    left_out = {report["id"] for report in quarantined}
    left_out |= {row.tomogram for row in rows if row.state == "quarantined"}
    n_running = sum(entry["state"] == "running" for entry in work)
    lines.append(
        f"{len(published)} published, {n_running} running, {len(work) - n_running} interrupted, "
        f"{len(left_out)} quarantined"
    )
    console.result(document, "\n".join(lines))


def _stage_line(one: StageCounts) -> str:
    words = {"committed": "done", "leased": "running", "ready": "to do"}
    counts = [f"{n} {words.get(state, state)}" for state, n in one.states.items() if n]
    return f"stage        {one.stage}: {', '.join(counts)}"


def _write_metrics(file: Path, collection: Collection, stages: list[StageCounts]) -> None:
    sizes: Counter[str] = Counter()
    for tomo in collection:
        for product in tomo.products:
            sizes[product] += sum(n_bytes for n_bytes, _ in tomo.manifest(product).values())
    text = prometheus_text(stages, dict(sizes), len(collection))
    with disk_errors(file, "writing"), writing_whole(file) as whole:
        whole.write(text.encode())


def _sources(rows: list[SourceRow]) -> dict[str, Any]:
    """Give how many files of watched folders are in which state, and those whose end is to come."""
    known = [row for row in rows if row.state != "temporary"]
    waiting = [
        {"source": str(row.path), "state": row.state, "reason": row.reason}
        for row in known
        if row.is_open
    ]
    return {"counts": dict(Counter(row.state for row in known)), "waiting": waiting}


def _work(staged: StagedWork) -> dict[str, Any]:
    tomogram, product = staged.target
    return {
        "tomogram": tomogram,
        "product": product,
        "state": "running" if staged.is_held else "interrupted",
        "shards_done": staged.n_shards_done,
        "shards": staged.n_shards,
        "bytes": staged.n_bytes,
    }


def _line(work: dict[str, Any]) -> str:
    of = "" if work["shards"] is None else f" of {work['shards']}"
    resumed = "" if work["state"] == "running" else "; the same command goes on from there"
    return (
        f"{work['state']:<12} {work['tomogram']} {work['product']}: {work['shards_done']}{of} "
        f"shards, {format_bytes(work['bytes'])}{resumed}"
    )
