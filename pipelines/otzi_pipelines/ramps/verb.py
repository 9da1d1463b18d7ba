"""Verb ramps: the left limit of every class."""

from __future__ import annotations

from typing import Annotated

import typer

from otzi.arguments import CollectionArgument, chosen_tomograms
from otzi.cli import verb
from otzi.collection import open_collection
from otzi.console import Console
from otzi.errors import NotFoundError
from otzi_pipelines.ramps.picture import checked_pattern, save_ramps_picture
from otzi_pipelines.ramps.report import ramps_document, ramps_text
from otzi_pipelines.ramps.together import estimate_together

__all__ = ["command"]


@verb
def command(
    console: Console,
    collection: CollectionArgument,
    tomograms: Annotated[
        list[str] | None, typer.Argument(metavar="TOMO", help="Tomograms; all that have it.")
    ] = None,
    *,
    probs: Annotated[str, typer.Option(help="Name of the probabilities.")],
    quadratic: Annotated[
        bool, typer.Option("--quadratic", help="Show the limit that follows z, too.")
    ] = False,
    prior: Annotated[
        bool,
        typer.Option("--prior", help="Store the collection's median where a tomogram stands out."),
    ] = False,
    picture: Annotated[
        str | None,
        typer.Option(help="PNG of threshold against z; {tomogram} is the id.", metavar="FILE"),
    ] = None,
) -> None:
    """Estimate the left limit of every class: mean over slices of the isodata threshold."""
    col = open_collection(collection, mode="r+")
    having = [tomo for tomo in chosen_tomograms(col, None) if tomo.has(f"probs/{probs}")]
    chosen = chosen_tomograms(col, tomograms) if tomograms else having
    if not chosen:
        raise NotFoundError(
            f"no tomogram of {col.path} has probs/{probs}: make it with `otzi segment "
            f"{col.path} --model DIR --name {probs}`"
        )
    files = checked_pattern(picture, [tomo.id for tomo in chosen]) if picture else {}
    ids = {tomo.id for tomo in chosen}
    others = [tomo for tomo in having if tomo.id not in ids]
    found = estimate_together(chosen, others, probs, use_prior=prior, listen=console)
    for tomo in chosen:
        if tomo.id in files:
            save_ramps_picture(tomo, found.ramps[tomo.id], files[tomo.id])
        for kind, reason in found.objections[tomo.id].items():
            done = "the median is stored" if prior else "--prior stores the median instead"
            console.warn(f"{tomo.id}: {kind} stands out, {reason}: {done}")
    spacing = {tomo.id: tomo.spacing_angstrom[0] for tomo in chosen}
    console.result(
        ramps_document(found, spacing), ramps_text(found, spacing, with_quadratic=quadratic)
    )
