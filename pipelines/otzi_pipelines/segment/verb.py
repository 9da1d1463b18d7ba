"""Verb segment: class probabilities of tomograms."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from otzi.arguments import CollectionArgument, TomogramsArgument, chosen_tomograms
from otzi.cli import verb
from otzi.collection import open_collection
from otzi.console import Console
from otzi.errors import VerificationError
from otzi.memory import parse_bytes, usable_cores
from otzi.networks.weights import Device, load_model
from otzi.tiles.blend import ProbabilityType
from otzi_pipelines.segment.segmentation import segment

__all__ = ["command"]

_SOME_LEFT_OUT = 5
_MOST_GPU_WORKERS = 4


@verb
def command(
    console: Console,
    collection: CollectionArgument,
    tomograms: TomogramsArgument = None,
    *,
    model: Annotated[
        Path, typer.Option(help="A model folder, or a Nano-Ötzi .ckpt.", metavar="DIR|FILE")
    ],
    name: Annotated[str, typer.Option(help="Of the probabilities.")],
    tile: Annotated[int, typer.Option(help="Side of a tile in voxels.", min=1)] = 128,
    overlap: Annotated[int, typer.Option(help="Of neighbouring tiles, in voxels.", min=0)] = 32,
    memory: Annotated[str | None, typer.Option(help="Not to be exceeded: 4GB, 512MiB.")] = None,
    device: Annotated[Device, typer.Option(help="Where the network runs.")] = "auto",
    workers: Annotated[int | None, typer.Option(help="Tiles at the same time.", min=1)] = None,
    dtype: Annotated[ProbabilityType, typer.Option(help="As stored.")] = "uint8",
) -> int:
    """Segment tomograms with a network; a damaged one is left out, the others go on."""
    memory_bytes = None if memory is None else parse_bytes(memory)
    cores = usable_cores()
    network = load_model(model, device=device, threads=max(1, cores // (workers or cores)))
    if workers is None:
        # On a processor a tile for each core; a GPU takes one at a time, the others are read.
        workers = cores if network.device.type == "cpu" else min(cores, _MOST_GPU_WORKERS)
    results: dict[str, dict[str, Any]] = {}
    for tomo in chosen_tomograms(open_collection(collection, mode="r+"), tomograms):
        try:
            made = segment(
                tomo,
                network,
                name=name,
                tile=tile,
                overlap=overlap,
                dtype=dtype,
                workers=workers,
                memory_bytes=memory_bytes,
                listen=console,
            )
        except VerificationError as error:
            console.warn(f"{tomo.id} is left out: {error}")
            results[tomo.id] = {"made": False, "error": str(error)}
        else:
            results[tomo.id] = {"made": made, "path": str(tomo.path(f"probs/{name}"))}
    lines = [f"{id_}: {result.get('path', 'left out')}" for id_, result in results.items()]
    console.result(results, "\n".join(lines))
    return _SOME_LEFT_OUT if any("error" in result for result in results.values()) else 0
