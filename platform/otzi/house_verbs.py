"""Verbs that keep house: verify, gc, ledger."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from otzi.arguments import CollectionArgument, TomogramsArgument
from otzi.cli import verb
from otzi.collection import open_collection
from otzi.console import Console
from otzi.errors import NotFoundError
from otzi.ledger.audit import Finding, audit
from otzi.ledger.rebuild import rebuild
from otzi.ledger.reingest import reingest
from otzi.ledger.repair import repair
from otzi.ledger.sqlite import ledger_path, read_catalog
from otzi.ledger.sweep import sweep
from otzi.memory import format_bytes
from otzi.store.folders import tomogram_folders
from otzi.store.location import as_location, local_folder

__all__ = ["gc", "ledger", "verify"]

_FAILED = 4
_MOST_ROUNDS = 4
_MADE_BY = {
    "view": "view",
    "strokes": "strokes",
    "labels": "pseudolabel",
    "probs": "segment",
    "ramps": "ramps",
    "objects": "objects",
    "reports": "segment",
}


@verb
def verify(
    console: Console,
    collection: CollectionArgument,
    tomograms: TomogramsArgument = None,
    *,
    fast: Annotated[
        bool, typer.Option("--fast", help="Sizes, shard indexes and metadata; not the voxels.")
    ] = False,
    mend: Annotated[
        bool, typer.Option("--repair", help="Put back what can be derived again.")
    ] = False,
    sources: Annotated[
        list[Path] | None,
        typer.Option("--source", help="With --repair: MRC file or folder to mend raw from."),
    ] = None,
) -> int:
    """Read again what is published, compare it with what was written, name all that differs."""
    folder = local_folder(as_location(collection))
    if not (folder / "tomograms").is_dir():
        open_collection(folder)  # says what it is instead
    result = audit(folder, tomograms or (), is_fast=fast, listen=console)
    found, left = list(result.findings), result.findings
    rounds = _MOST_ROUNDS if mend else 0
    while left and rounds:
        repair(
            folder,
            left,
            reingest=partial(reingest, console, sources or ()),
            listen=console,
        )
        there = {path.name for path in tomogram_folders(folder)}
        damaged = sorted({finding.tomogram for finding in left} & there)
        again = audit(
            folder, damaged or tomograms or (), is_fast=fast or not damaged, listen=console
        )
        rounds = rounds - 1 if again.findings != left else 0
        left = again.findings
        found += [finding for finding in left if finding not in found]
    report = result.to_json() | {
        "findings": [finding.to_json() for finding in found],
        "left": [finding.to_json() for finding in left],
    }
    lines = [
        f"{'damaged' if finding in left else 'mended':<9}{finding.path} {finding.problem}"
        for finding in found
    ]
    lines += [
        f"{result.n_products} products, {result.n_files} files, {format_bytes(result.n_bytes)}: "
        f"{len(found)} damaged, {len(found) - len(left)} mended"
    ]
    console.result(report, "\n".join(lines))
    for line in dict.fromkeys(_remedy(folder, finding, tried=mend) for finding in left):
        console.say(line)
    return _FAILED if left else 0


def _remedy(collection: Path, finding: Finding, *, tried: bool) -> str:
    if not tried:
        return f"mend it: otzi verify {collection} --repair"
    if finding.path == "zarr.json":
        return f"if zarr.json was changed on purpose: otzi ledger rebuild {collection}"
    if finding.product == "raw":
        return f"mend raw from its MRC file: otzi verify {collection} --repair --source FOLDER"
    folder = collection / "tomograms" / finding.tomogram / finding.product
    verb_name = _MADE_BY.get(finding.product.partition("/")[0], "ingest")
    return f"make it again: remove {folder}, then otzi {verb_name} {collection} …"


@verb
def gc(
    console: Console,
    collection: CollectionArgument,
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would go, remove nothing.")
    ] = False,
) -> None:
    """Remove interrupted work that nobody holds, and what else is in no use."""
    folder = local_folder(open_collection(collection).path)
    swept = sweep(folder, dry_run=dry_run)
    litter = [
        {"path": str(item.path.relative_to(folder)), "what": item.what, "bytes": item.n_bytes}
        for item in swept.litter
    ]
    report = {"removed": not dry_run, "bytes": swept.n_bytes, "litter": litter}
    lines = [
        f"{item.what:<20}{format_bytes(item.n_bytes):>9}  {item.path.relative_to(folder)}"
        for item in swept.litter
    ]
    lines += [f"{'held, left alone':<29}  .staging/{name}" for name in swept.held]
    lines += [f"{format_bytes(swept.n_bytes)} {'would be freed' if dry_run else 'freed'}"]
    console.result(report | {"held": list(swept.held)}, "\n".join(lines))


@verb
def ledger(
    console: Console,
    action: Annotated[
        Literal["rebuild", "export"],
        typer.Argument(help="Make the catalog again from the tree, or print its rows."),
    ],
    collection: CollectionArgument,
) -> int:
    """Make the catalog again from what is published, or print it as JSON lines."""
    folder = local_folder(open_collection(collection).path)
    path = ledger_path(folder)
    if action == "rebuild":
        unreadable = [str(error) for error in rebuild(folder)]
        for message in unreadable:
            console.warn(message)
        console.result({"catalog": str(path), "unreadable": unreadable}, str(path))
        return _FAILED if unreadable else 0
    with read_catalog(folder) as catalog:
        if catalog is None:
            raise NotFoundError(f"no catalog at {path}: otzi ledger rebuild {collection} makes it")
        rows = list(catalog.dump())
    console.result({"rows": rows}, "\n".join(map(json.dumps, rows)))
    return 0
