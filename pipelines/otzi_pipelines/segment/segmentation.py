"""Class probabilities of a whole tomogram, tile by tile, in bounded memory."""

from __future__ import annotations

from contextlib import closing, nullcontext
from typing import TYPE_CHECKING

import numpy as np

from otzi.errors import ModelError
from otzi.events import Listener, Noted, Warned, ignore
from otzi.execute import Threads
from otzi.tiles.capability import capability
from otzi.tiles.density import NormalisedDensity, slab_bytes
from otzi.tiles.tasks import plan_for
from otzi_pipelines.segment.budget import Budget, left_bytes, workers_that_fit
from otzi_pipelines.segment.companions import publish_companions
from otzi_pipelines.segment.legacy import check_legacy
from otzi_pipelines.segment.probabilities import Recipe, write_probabilities
from otzi_pipelines.segment.report import RunMeter, RunSettings

if TYPE_CHECKING:
    from otzi.box import Zyx
    from otzi.classes import ClassTable
    from otzi.execute import Executor
    from otzi.tiles.blend import ProbabilityType
    from otzi.tiles.ensemble import Ensemble
    from otzi.tiles.infer import TorchModel
    from otzi.tomogram import Tomogram

__all__ = ["segment"]

_MOST_CACHE_BYTES = 128 * 10**6


def segment(
    tomo: Tomogram,
    model: TorchModel | Ensemble,
    *,
    name: str,
    tile: int = 128,
    overlap: int = 32,
    dtype: ProbabilityType = "uint8",
    tiles_per_block: Zyx | None = None,
    workers: int = 1,
    executor: Executor | None = None,
    memory_bytes: int | None = None,
    with_view: bool = False,
    with_legacy: bool = False,
    priority: int = 0,
    listen: Listener = ignore,
) -> bool:
    """Publish ``probs/NAME`` of a tomogram, and tell whether there was anything to do.

    What is published by the same model, tiles and density already is left as it is, and a run that
    was interrupted goes on: cells whose shard is written are not made again. ``ramps/NAME`` and
    ``reports/NAME`` are published with it; and of an ensemble ``spread/NAME``: ``(1, z, y, x)``,
    as stored the standard deviation of the probability of the class that wins in the mean.

    Parameters
    ----------
    tomo
        Of a collection open for writing.
    model
        From `otzi.load_model`, or `otzi.tiles.ensemble.ensemble_of` several.
    name
        Of the probabilities.
    tile, overlap
        In voxels.
    dtype
        As stored: ``"uint8"`` is 255 times the probability.
    tiles_per_block
        What is inferred as one piece of work, z, y, x; chosen for the device if None.
    workers
        Tiles at the same time, at most: fewer where the memory allows no more. Of an executor that
        is still growing, as many as there will be.
    executor
        Where tiles are inferred, unless it is local or None: then on threads of this process.
    memory_bytes
        What this process and worker processes may take in all; not bounded if None.
    with_view
        Whether to publish what the viewer reads, too.
    with_legacy
        Whether the report compares with the published way to use the model.
    priority
        Of several tomograms on one cluster, that of the largest goes first.
    listen
        Told of the progress.

    Raises
    ------
    ModelError
        If the model's classes are not the collection's, nor its background and the foreground; or
        if what it gives is no probability: then nothing is published.
    MemoryBudgetError
        If one tile at a time does not fit into the memory.
    UsageError
        If tile, overlap and model do not fit together.
    VerificationError
        If the density is damaged, or a voxel was not written once, or does not sum to 1.
    """
    meter = RunMeter(listen)
    classes = _classes(tomo, model)
    plan = plan_for(model, tomo.shape, tile, overlap)
    if with_legacy:
        check_legacy(tomo.shape, len(classes), tile=tile, memory_bytes=memory_bytes)
    recipe = Recipe(name, model.identity, tile, overlap, dtype)
    observer, n_inferred = None, 0
    is_made = recipe.is_made(tomo, with_spread=model.n_measures > 0)
    if is_made:
        listen(Noted(f"{tomo.id} has this {recipe.product} already"))
    else:
        _warn_of_other_spacing(tomo, model, listen)
        # Threads of our own are as many as the memory allows.
        cluster = None if executor is None or executor.is_local else executor
        able = capability(cluster, model, plan, tiles_per_block)
        cache_bytes = min(_MOST_CACHE_BYTES, slab_bytes(tomo.array("raw"), plan))
        if memory_bytes is not None:
            budget = Budget(able.blocks, model, in_processes=cluster is not None, dtype=dtype)
            fewest = workers if cluster else 1
            workers = workers_that_fit(budget, workers, memory_bytes, fewest=fewest)
            # Without it chunks are decoded more often, no more.
            cache_bytes = min(cache_bytes, left_bytes(budget, workers, memory_bytes))
        density = NormalisedDensity(tomo, cache_bytes, model.normalisation)
        with nullcontext(cluster) if cluster else closing(Threads(workers)) as running:
            observer, n_inferred = write_probabilities(
                tomo,
                model,
                recipe,
                density,
                running,
                classes=classes,
                able=able,
                workers=workers,
                priority=priority,
                listen=meter,
            )
    settings = RunSettings(
        model=model.identity,
        tile=tile,
        overlap=overlap,
        dtype=dtype,
        workers=workers,
        device=model.device.type,
        memory_bytes=memory_bytes,
    )
    publish_companions(
        tomo,
        name,
        settings,
        meter,
        observer,
        n_inferred=n_inferred,
        with_view=with_view,
        legacy_model=model if with_legacy else None,
    )
    return not is_made


def _classes(tomo: Tomogram, model: TorchModel | Ensemble) -> ClassTable:
    """Give the collection's class table, or its two-class one, whichever the model has."""
    table = tomo.classes.having(model.classes)
    if table and table.names == model.classes:
        return table
    raise ModelError(
        f"the model knows {', '.join(model.classes)}, the collection has "
        f"{', '.join(tomo.classes.names)}: train one on labels of this collection"
    )


def _warn_of_other_spacing(tomo: Tomogram, model: TorchModel | Ensemble, listen: Listener) -> None:
    for member in model.members:
        trained = member.card.spacing_angstrom
        if trained and not np.allclose(tomo.spacing_angstrom, trained, rtol=0.1):
            listen(
                Warned(
                    f"voxels of {tomo.id} are {tomo.spacing_angstrom} Å, the model was trained at "
                    f"{trained} Å: a network knows one scale"
                )
            )
