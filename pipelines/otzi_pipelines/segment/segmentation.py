"""Class probabilities of a whole tomogram, tile by tile, in bounded memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from otzi.errors import MemoryBudgetError, ModelError
from otzi.events import Listener, Noted, Warned, ignore
from otzi.memory import (
    format_bytes,
    give_back_freed_memory,
    resident_memory_bytes,
)
from otzi.tiles.density import NormalisedDensity, slab_bytes
from otzi.tiles.graph import store_tiles, window
from otzi.tiles.plan import TilePlan

if TYPE_CHECKING:
    from otzi.box import Box, Zyx
    from otzi.classes import ClassTable
    from otzi.tiles.blend import ProbabilityType
    from otzi.tiles.infer import TorchModel
    from otzi.tomogram import Tomogram

__all__ = ["segment"]

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
