"""Verb ingest: MRC files into tomograms."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from otzi.arguments import CollectionArgument
from otzi.cli import verb
from otzi.console import Console
from otzi.memory import parse_bytes
from otzi.store.presets import PRESETS
from otzi_pipelines.ingest.batch import ingest
from otzi_pipelines.ingest.options import parse_nonfinite, parse_voxel_size

__all__ = ["command"]


@verb
def command(
    console: Console,
    collection: CollectionArgument,
    sources: Annotated[
        list[Path], typer.Argument(metavar="SOURCE...", help="MRC files, or folders of them.")
    ],
    *,
    voxel_size: Annotated[
        str | None,
        typer.Option(metavar="Å", help="In place of the header's: one number, or z,y,x."),
    ] = None,
    preset: Annotated[
        str, typer.Option(help=f"How raw is stored: {', '.join(PRESETS)}.")
    ] = "exact",
    workers: Annotated[int, typer.Option(help="Tomograms at a time.")] = 1,
    memory: Annotated[
        str | None, typer.Option(metavar="SIZE", help="What may be used at most, as in 2GB.")
    ] = None,
    tomogram: Annotated[
        str | None, typer.Option("--id", help="Id of a single source, in place of its stem.")
    ] = None,
    as_volume: Annotated[
        bool, typer.Option("--as-volume", help="Take stacks of images as volumes.")
    ] = False,
    split_volumes: Annotated[
        bool, typer.Option("--split-volumes", help="Take each volume of a stack of volumes.")
    ] = False,
    salvage: Annotated[
        bool, typer.Option("--salvage", help="Take what is whole of files that are cut short.")
    ] = False,
    nonfinite: Annotated[
        str,
        typer.Option(
            metavar="keep|fill|fill=VALUE",
            help="Voxels that are not finite: kept, or filled with the mean or a value.",
        ),
    ] = "keep",
    classes: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,NAME…",
            help="Of a new collection, the background first; the published four if left out.",
        ),
    ] = None,
    update: Annotated[
        bool, typer.Option("--update", help="Replace tomograms whose source or settings changed.")
    ] = False,
) -> int:
    """Turn MRC files into tomograms with pyramids; a bad one is left out, the others go on.

    The collection is made if it is not there.
    """
    report = ingest(
        collection,
        sources,
        voxel_size=None if voxel_size is None else parse_voxel_size(voxel_size),
        preset=preset,
        workers=workers,
        memory_bytes=None if memory is None else parse_bytes(memory),
        tomogram=tomogram,
        as_volume=as_volume,
        split_volumes=split_volumes,
        salvage=salvage,
        nonfinite=parse_nonfinite(nonfinite),
        update=update,
        classes=None if classes is None else classes.split(","),
        listen=console,
    )
    lines = [f"{item.state:<12} {item.id:<24} {item.source}" for item in report.items]
    console.result(report.to_json(), "\n".join(lines))
    return report.exit_code
