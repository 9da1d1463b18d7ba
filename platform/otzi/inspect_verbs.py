"""Verbs that look and do not touch: ls, info, path."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from otzi.arguments import CollectionArgument, TomogramArgument
from otzi.cli import verb
from otzi.collection import open_collection
from otzi.console import Console
from otzi.memory import format_bytes
from otzi.split import read_split

if TYPE_CHECKING:
    from otzi.split import Split
    from otzi.tomogram import Tomogram

__all__ = ["info", "ls", "path"]


@verb
def ls(console: Console, collection: CollectionArgument) -> None:
    """List the tomograms of a collection and the products of each."""
    col = open_collection(collection)
    split = read_split(col)
    rows = [_summary(tomo, split) for tomo in col]
    document = {"classes": list(col.classes.names), "tomograms": rows}
    text = "\n".join(
        f"{row['id']}  {_extent(row['shape'])}  {row['spacing_angstrom'][2]:g} Å  "
        f"{row['part'] + '  ' if row['part'] else ''}{', '.join(row['products'])}"
        for row in rows
    )
    console.result(document, text)


@verb
def info(console: Console, collection: CollectionArgument, tomogram: TomogramArgument) -> None:
    """Show one tomogram: its size, statistics and products."""
    col = open_collection(collection)
    tomo = col[tomogram]
    document = _summary(tomo, read_split(col))
    document["statistics"] = tomo.attributes("raw").get("statistics", {})
    document["products"] = {name: _product(tomo, name) for name in tomo.products}
    lines = [
        f"{tomo.id}: {_extent(tomo.shape)} voxels (z, y, x) of "
        f"{_extent([f'{v:g}' for v in tomo.spacing_angstrom])} Å"
    ]
    if document["part"]:
        lines.append(f"  part of the split: {document['part']}")
    for key, value in document["statistics"].items():
        lines.append(f"  {key}: {value}")
    for name, entry in document["products"].items():
        lines.append(f"  {name}: {format_bytes(entry['n_bytes'])}, recipe {entry['recipe']}")
    console.result(document, "\n".join(lines))


@verb
def path(
    console: Console,
    collection: CollectionArgument,
    tomogram: TomogramArgument,
    product: Annotated[str, typer.Argument(help="raw, view, labels/NAME, probs/NAME …")],
) -> None:
    """Print the folder of a published product, an OME-Zarr 0.5 group."""
    folder = open_collection(collection)[tomogram].path(product)
    console.result({"path": str(folder)}, str(folder))


def _summary(tomo: Tomogram, split: Split | None) -> dict[str, Any]:
    return {
        "id": tomo.id,
        "shape": list(tomo.shape),
        "spacing_angstrom": list(tomo.spacing_angstrom),
        "products": list(tomo.products),
        "part": split.parts.get(tomo.id) if split else None,
    }


def _product(tomo: Tomogram, name: str) -> dict[str, Any]:
    attributes = tomo.attributes(name)
    return {
        "path": str(tomo.path(name)),
        "n_bytes": sum(n_bytes for n_bytes, _ in tomo.manifest(name).values()),
        "digest": tomo.digest(name),
        "recipe": attributes["recipe"],
        "parents": attributes["parents"],
    }


def _extent(values: list[Any] | tuple[Any, ...]) -> str:
    return " × ".join(str(value) for value in values)
