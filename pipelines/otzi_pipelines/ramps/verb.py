"""Verb ramps: the left limit of every class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
import zarr

from otzi.arguments import CollectionArgument, chosen_tomograms
from otzi.cli import verb
from otzi.collection import open_collection
from otzi.console import Console
from otzi.errors import NotFoundError
from otzi.store.location import zarr_store
from otzi_pipelines.ramps.estimate import estimate_ramps

if TYPE_CHECKING:
    from otzi.tomogram import Tomogram

__all__ = ["command"]


def _report(tomo: Tomogram, name: str) -> dict[str, Any]:
    product = f"ramps/{name}"
    curves = np.asarray(zarr.open_array(zarr_store(tomo.path(product) / "thresholds"), mode="r")[:])
    report: dict[str, Any] = {}
    for (channel, entry), curve in zip(
        tomo.attributes(product)["ramps"].items(), curves, strict=True
    ):
        values = [None if np.isnan(value) else round(float(value), 4) for value in curve]
        report[channel] = {**entry, "curve": values}
    return report


def _table(report: dict[str, dict[str, Any]]) -> str:
    lines = []
    for tomogram, classes in report.items():
        lows = "  ".join(f"{name} {entry['low']:.3f}" for name, entry in classes.items())
        lines += [f"{tomogram}  left limits: {lows}", "z  " + "  ".join(classes)]
        for z, row in enumerate(zip(*(entry["curve"] for entry in classes.values()), strict=True)):
            cells = ("-".center(6) if value is None else f"{value:.4f}" for value in row)
            lines.append(f"{z}  " + "  ".join(cells))
    return "\n".join(lines)


@verb
def command(
    console: Console,
    collection: CollectionArgument,
    tomograms: Annotated[
        list[str] | None, typer.Argument(metavar="TOMO", help="Tomograms; all that have it.")
    ] = None,
    *,
    probs: Annotated[str, typer.Option(help="Name of the probabilities.")],
) -> None:
    """Estimate the left limit of every class: mean over slices of the isodata threshold."""
    col = open_collection(collection, mode="r+")
    chosen = chosen_tomograms(col, tomograms)
    if not tomograms:
        chosen = [tomo for tomo in chosen if tomo.has(f"probs/{probs}")]
        if not chosen:
            raise NotFoundError(
                f"no tomogram of {col.path} has probs/{probs}: make it with `otzi segment "
                f"{col.path} --model DIR --name {probs}`"
            )
    for tomo in chosen:
        if not estimate_ramps(tomo, probs, console):
            console.say(f"{tomo.id}: ramps/{probs} is done already")
    report = {tomo.id: _report(tomo, probs) for tomo in chosen}
    console.result(report, _table(report))
