"""Verb status: what is published, what is being made, what was interrupted or left out."""

from __future__ import annotations

import json
from typing import Any

from otzi.arguments import CollectionArgument
from otzi.cli import verb
from otzi.collection import Collection, open_collection
from otzi.console import Console
from otzi.ledger.staging import StagedWork, staged_work
from otzi.memory import format_bytes

__all__ = ["status"]


@verb
def status(console: Console, collection: CollectionArgument) -> None:
    """Show what is published, running, interrupted and quarantined."""
    col = open_collection(collection)
    published = {tomo.id: list(tomo.products) for tomo in col}
    work = [
        _work(staged) for staged in staged_work(col.workspace) if staged.is_held or staged.is_begun
    ]
    quarantined = _quarantined(col)
    document = {"tomograms": published, "work": work, "quarantined": quarantined}
    lines = [f"published    {name}: {', '.join(products)}" for name, products in published.items()]
    lines += [_line(entry) for entry in work]
    lines += [f"quarantined  {report['id']}: {report['reason']}" for report in quarantined]
    n_running = sum(entry["state"] == "running" for entry in work)
    lines.append(
        f"{len(published)} published, {n_running} running, {len(work) - n_running} interrupted, "
        f"{len(quarantined)} quarantined"
    )
    console.result(document, "\n".join(lines))


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


def _quarantined(collection: Collection) -> list[dict[str, Any]]:
    """Give the reports of sources that were left out, in the order of their ids."""
    reports = []
    for path in sorted((collection.workspace / "quarantine").glob("*.json")):
        try:
            report = json.loads(path.read_text("utf-8"))
            known = {key: report[key] for key in ("id", "source", "n_bytes", "reason", "time")}
        except (ValueError, KeyError, TypeError):
            known = {"id": path.stem, "reason": f"the report {path} cannot be read: remove it"}
        reports.append(known)
    return reports
