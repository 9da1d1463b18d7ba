"""Verb train: a network from labelled tomograms."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from otzi.arguments import CollectionArgument, TomogramsArgument
from otzi.cli import verb
from otzi.collection import open_collection
from otzi.console import Console
from otzi.networks.weights import Device
from otzi.settings import load_settings
from otzi_pipelines.train.processes import is_first
from otzi_pipelines.train.settings import TrainSettings
from otzi_pipelines.train.training import train

__all__ = ["command"]


@verb
def command(
    console: Console,
    collection: CollectionArgument,
    labels: Annotated[str, typer.Option(help="Name of the labels to learn.", metavar="NAME")],
    model: Annotated[Path, typer.Option(help="The model folder to make.", metavar="DIR")],
    tomograms: TomogramsArgument = None,
    config: Annotated[
        Path | None, typer.Option(help="Settings of the training.", metavar="FILE.toml")
    ] = None,
    start: Annotated[
        Path | None, typer.Option("--from", help="A model to start from.", metavar="MODEL")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Batches to learn from.", min=1)] = None,
    seed: Annotated[int | None, typer.Option(help="Of all that is random.", min=0)] = None,
    device: Annotated[Device, typer.Option(help="Where the network runs.")] = "auto",
    threads: Annotated[int | None, typer.Option(help="Processor threads.", min=1)] = None,
) -> None:
    """Train a network on labelled tomograms, or go on with one that was interrupted.

    Without TOMO on all that have such labels; what `otzi split` keeps is never learnt from.

    In several processes, one for each GPU: torchrun --nproc-per-node 4 -m otzi train …
    """
    settings = TrainSettings() if config is None else load_settings(TrainSettings, config)
    settings = replace(
        settings,
        steps=settings.steps if steps is None else steps,
        seed=settings.seed if seed is None else seed,
    )
    card = train(
        open_collection(collection),
        labels=labels,
        model=model,
        tomograms=tomograms,
        settings=settings,
        start=start,
        device=device,
        threads=threads,
        listen=console,
    )
    if not is_first():
        return
    console.result(
        {"model": str(model), "classes": list(card.classes), "metrics": card.metrics},
        f"{model}: held-out macro Dice {_rounded(card.metrics['macro_dice'])}, cross-entropy "
        f"{_rounded(card.metrics['cross_entropy'])}",
    )


def _rounded(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3f}"
