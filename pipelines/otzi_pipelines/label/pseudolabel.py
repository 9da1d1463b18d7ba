"""Dense pseudo-labels of a tomogram, from its strokes: forest, then block by block."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from otzi.box import tile
from otzi.events import Listener, Noted, ignore, step
from otzi.execute import executor as execute_on
from otzi.memory import give_back_freed_memory, usable_cores
from otzi.pseudo.bank import FeatureBank
from otzi.pseudo.forest import EarlyExit, StrokeForest, checked_early_exit
from otzi.pseudo.forest_file import save_forest
from otzi.pseudo.lazy import block_labeller
from otzi_pipelines.label.block import Classes, LabelTask, label_box
from otzi_pipelines.label.plan import CHUNK_VOXELS, plan_labels
from otzi_pipelines.label.report import forest_facts
from otzi_pipelines.label.samples import save_samples, stroke_samples
from otzi_pipelines.label.stroke_import import stroke_voxels

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from otzi.box import Box
    from otzi.execute import Executor
    from otzi.networks.weights import Device
    from otzi.store.product import ProductWriter
    from otzi.tomogram import Tomogram
    from otzi_pipelines.label.plan import LabelPlan

__all__ = ["pseudolabel"]


def pseudolabel(
    tomo: Tomogram,
    name: str,
    *,
    bank: FeatureBank | None = None,
    soft: bool = True,
    classes: Classes = "all",
    n_trees: int = 100,
    seed: int = 0,
    early_exit: EarlyExit | None = None,
    workers: int | None = None,
    executor: Executor | None = None,
    device: Device = "cpu",
    memory_bytes: int | None = None,
    listen: Listener = ignore,
) -> bool:
    """Publish ``labels/NAME`` from the strokes of a tomogram; tell whether there was work to do.

    On one kind of device the bytes are the same for any executor, workers and memory. The
    forest lies in the product's folder ``forest``, and the attribute ``forest`` says how it was
    trained. The channels of the stroke voxels are kept there, too: after more strokes, only those
    of new voxels are computed.

    Parameters
    ----------
    tomo
        Of a collection open for writing, with ``strokes``.
    name
        Of the labels.
    bank
        Features; all of ilastik's if None.
    soft
        ``(c, z, y, x)`` uint8, 255 times the probabilities, summing to exactly 255; otherwise
        ``(z, y, x)`` uint8, the index of the most probable class.
    classes
        ``"all"``, or ``"2"``: background, and all others together as foreground.
    n_trees, seed
        Of the forest.
    early_exit
        Trees and votes, such as ``(20, 0.95)``: no more trees once a class has such a mean share;
        faster and inexact. None for the exact forest.
    workers
        Threads of this process, at most: fewer where the memory allows no more; one for each core
        if None.
    executor
        What labels the blocks; these threads if None. Strokes' features and forest are theirs.
    device
        Where blocks are labelled; the strokes' features and the forest are the processor's.
    memory_bytes
        What this process, and those of the executor, may take in all; not bounded if None.
    listen
        Told of the progress.

    Raises
    ------
    NotFoundError
        If the tomogram has no strokes.
    StrokesError
        If there are strokes of one class only.
    UsageError
        If the tomogram is too thin for the bank's scales.
    MemoryBudgetError
        If one small block at a time does not fit into the memory.
    ExecutorUnavailable, WorkersKilled
        If the executor ends, or blocks end its workers; what is written stays.
    """
    bank = bank or FeatureBank()
    workers = workers or usable_cores()
    checked_early_exit(early_exit)
    _, arithmetic = block_labeller(device)
    product, parents = f"labels/{name}", ("raw", "strokes")
    recipe = {
        "verb": "pseudolabel",
        "bank": bank.to_json(),
        "soft": soft,
        "classes": classes,
        "n_trees": n_trees,
        "seed": seed,
        "early_exit": early_exit and list(early_exit),
    }
    if tomo.has("strokes") and tomo.is_made(product, recipe, parents):
        listen(Noted(f"{tomo.id} has this {product} already"))
        return False
    if memory_bytes is not None:
        give_back_freed_memory()
    voxels = stroke_voxels(tomo)
    bank.check(tomo.shape)
    plan = plan_labels(
        bank,
        tomo.shape,
        len(tomo.classes),
        len(voxels),
        workers=workers,
        memory_bytes=memory_bytes,
        processes=0 if executor is None or executor.is_local else executor.n_workers,
    )
    density = tomo.raw.data
    place = tomo.collection.path
    if isinstance(place, Path):
        place = place.resolve()

    def read(box: Box) -> NDArray[Any]:
        return np.asarray(density[box.slices].compute(scheduler="synchronous"))

    with step(listen, f"pseudo-labels {tomo.id}"):
        samples = stroke_samples(
            tomo, product, bank, read, voxels, workers=plan.workers, listen=listen
        )
        with step(listen, "forest", n_trees, "trees"):
            forest = StrokeForest.fit(
                samples,
                voxels.classes,
                bank=bank,
                classes=tomo.classes.names,
                n_trees=n_trees,
                seed=seed,
                workers=plan.workers,
            )
        table = tomo.classes if classes == "all" else tomo.classes.merged
        with tomo.write(
            product,
            dtype=np.uint8,
            channels=table.names if soft else None,
            colors=[c.color for c in table],
            chunk_voxels=CHUNK_VOXELS,
            downsample="mean" if soft else "mode",
            recipe=recipe,
            parents=parents,
            inputs={"forest": forest.sha256, "arithmetic": arithmetic},
        ) as writer:
            save_forest(forest, writer.path / "forest")
            with _workers(executor, plan.workers) as running:
                by_file = not running.is_local and isinstance(place, Path)
                task = LabelTask(
                    collection=str(place),
                    tomogram=tomo.id,
                    raw_sha256=tomo.digest("raw"),
                    forest=writer.path.resolve() / "forest" if by_file else forest,
                    forest_sha256=forest.sha256,
                    early_exit=early_exit,
                    soft=soft,
                    classes=classes,
                    device=device,
                    arithmetic=arithmetic,
                )
                _write_blocks(writer, task, plan, running, listen)
            save_samples(writer.path, voxels, samples)
            writer.attributes["classes"] = list(table.names)
            writer.attributes["forest"] = forest_facts(forest)
    return True


def _write_blocks(
    writer: ProductWriter,
    task: LabelTask,
    plan: LabelPlan,
    executor: Executor,
    listen: Listener,
) -> None:
    """Write all labels that an interrupted run has not written."""
    *channels, z, y, x = writer.shape

    def region(box: Box) -> tuple[slice, ...]:
        return (*map(slice, channels), *box.slices)

    boxes = [box for box in tile((z, y, x), plan.block) if not writer.is_done(region(box))]
    n_voxels = sum(box.n_voxels for box in boxes)
    n_continued = 0
    with step(listen, "labels", n_voxels, "voxels") as work:
        for box, (labels, n) in executor.each(partial(label_box, task), boxes):
            writer[region(box)] = labels
            n_continued += n
            work.advance(box.n_voxels)
    if task.early_exit is not None:
        share = n_continued / max(1, n_voxels)
        listen(Noted(f"{share:.1%} of the voxels saw more than {task.early_exit[0]} trees"))


@contextmanager
def _workers(given: Executor | None, n_threads: int) -> Iterator[Executor]:
    """Give the executor; threads of its own where there is none, or memory allows but a few."""
    if given is not None and (not given.is_local or given.n_workers <= n_threads):
        yield given
    else:
        with execute_on("local", n_threads) as threads:
            yield threads
