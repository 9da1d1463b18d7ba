"""Verb segment: class probabilities of whole tomograms, tile by tile, in bounded memory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from otzi.arguments import CollectionArgument, TomogramsArgument, chosen_tomograms
from otzi.cli import verb
from otzi.collection import open_collection
from otzi.console import Console
from otzi.errors import MemoryBudgetError, ModelError, VerificationError
from otzi.events import Listener, Noted, Warned, ignore
from otzi.memory import (
    format_bytes,
    give_back_freed_memory,
    parse_bytes,
    resident_memory_bytes,
    usable_cores,
)
from otzi.networks.weights import Device, load_model
from otzi.tiles.blend import ProbabilityType
from otzi.tiles.density import NormalisedDensity, slab_bytes
from otzi.tiles.graph import store_tiles, window
from otzi.tiles.plan import TilePlan

if TYPE_CHECKING:
    from otzi.box import Box, Zyx
    from otzi.classes import ClassTable
    from otzi.tiles.infer import TorchModel
    from otzi.tomogram import Tomogram

__all__ = ["command", "segment"]

_SOME_LEFT_OUT = 5
_MOST_GPU_WORKERS = 4
# Measured: libraries and kernels that come with the first tile, and chunks that wait for a shard.
_ONCE_BYTES = 100 * 10**6
_BYTES_PER_STEP = np.dtype(np.uint16).itemsize
_MOST_CACHE_BYTES = 512 * 10**6


def segment(
    tomo: Tomogram,
    model: TorchModel,
    *,
    name: str,
    tile: int = 128,
    overlap: int = 32,
    dtype: ProbabilityType = "uint8",
    workers: int = 1,
    memory_bytes: int | None = None,
    listen: Listener = ignore,
) -> bool:
    """Publish ``probs/NAME`` of a tomogram, and tell whether there was anything to do.

    What is published by the same model, tiles and density already is left as it is, and a run that
    was interrupted goes on: cells whose shard is written are not made again.

    Parameters
    ----------
    tomo
        Of a collection open for writing.
    model
        From `otzi.load_model`.
    name
        Of the probabilities.
    tile, overlap
        In voxels.
    dtype
        As stored: ``"uint8"`` is 255 times the probability.
    workers
        Tiles at the same time, at most: fewer where the memory allows no more.
    memory_bytes
        What the process may take in all; not bounded if None.
    listen
        Told of the progress.

    Raises
    ------
    ModelError
        If the model's classes are not the collection's, nor its background and the foreground.
    MemoryBudgetError
        If one tile at a time does not fit into the memory.
    UsageError
        If tile, overlap and model do not fit together.
    """
    classes = _classes(tomo, model)
    recipe = {
        "verb": "segment",
        "model": model.card.sha256,
        "tile": tile,
        "overlap": overlap,
        "dtype": dtype,
    }
    product = f"probs/{name}"
    if tomo.is_made(product, recipe, ["raw"]):
        listen(Noted(f"{tomo.id} has this {product} already"))
        return False
    _warn_of_other_spacing(tomo, model, listen)
    plan = TilePlan(tomo.shape, tile, overlap)
    cache_bytes = min(_MOST_CACHE_BYTES, slab_bytes(tomo.array("raw"), plan))
    if memory_bytes is not None:
        give_back_freed_memory()
        workers = _workers_that_fit(plan, model, workers, memory_bytes)
        # Without it chunks are decoded more often, no more.
        left_bytes = memory_bytes - _needed_bytes(plan, model, workers)
        cache_bytes = max(0, min(cache_bytes, left_bytes))
    with tomo.write(
        product,
        dtype=dtype,
        channels=classes.names,
        colors=[c.color for c in classes],
        window=None if dtype == "uint8" else (0.0, 0.0, 1.0, 1.0),
        chunk_voxels=tile - overlap,
        downsample="mean",
        recipe=recipe,
        parents=["raw"],
        inputs={"arithmetic": model.arithmetic},
    ) as writer:

        def is_done(cell: Box) -> bool:
            return writer.is_done((slice(None), *cell.slices))

        store_tiles(
            NormalisedDensity(tomo, cache_bytes, model.normalisation),
            tomo.shape,
            model,
            writer,
            tile=tile,
            overlap=overlap,
            dtype=dtype,
            workers=workers,
            is_done=is_done,
            listen=listen,
        )
        writer.attributes["model"] = {
            "sha256": model.card.sha256,
            "training": model.card.training,
            "normalisation": model.card.normalisation,
        }
    return True


def _classes(tomo: Tomogram, model: TorchModel) -> ClassTable:
    """Give the collection's class table, or its two-class one, whichever the model has."""
    table = tomo.classes.having(model.classes)
    if table and table.names == model.classes:
        return table
    raise ModelError(
        f"the model knows {', '.join(model.classes)}, the collection has "
        f"{', '.join(tomo.classes.names)}: train one on labels of this collection"
    )


def _warn_of_other_spacing(tomo: Tomogram, model: TorchModel, listen: Listener) -> None:
    trained = model.card.spacing_angstrom
    if trained and not np.allclose(tomo.spacing_angstrom, trained, rtol=0.1):
        listen(
            Warned(
                f"voxels of {tomo.id} are {tomo.spacing_angstrom} Å, the model was trained at "
                f"{trained} Å: a network knows one scale"
            )
        )


def _workers_that_fit(plan: TilePlan, model: TorchModel, most: int, memory_bytes: int) -> int:
    for workers in range(most, 0, -1):
        if _needed_bytes(plan, model, workers) <= memory_bytes:
            return workers
    per_tile = model.memory_bytes(_tile_shape(plan))
    raise MemoryBudgetError(
        f"one tile of {plan.tile} voxels at a time needs "
        f"{format_bytes(_needed_bytes(plan, model, 1))} ({format_bytes(per_tile)} for the network, "
        f"the rest for unfinished cells and the process), --memory is "
        f"{format_bytes(memory_bytes)}: allow more, or a smaller --tile"
    )


def _needed_bytes(plan: TilePlan, model: TorchModel, workers: int) -> int:
    n_classes = len(model.classes)
    waiting = plan.frontier_voxels(window(workers)) * n_classes * _BYTES_PER_STEP
    inferring = workers * model.memory_bytes(_tile_shape(plan))
    return resident_memory_bytes() + _ONCE_BYTES + waiting + inferring


def _tile_shape(plan: TilePlan) -> Zyx:
    return plan.read((0, 0, 0)).shape


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
