"""Dense pseudo-labels of a tomogram, from its strokes: forest, then block by block."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from otzi.box import tile
from otzi.events import Listener, Noted, ignore, step
from otzi.memory import give_back_freed_memory, usable_cores
from otzi.pseudo.bank import FeatureBank
from otzi.pseudo.forest import EarlyExit, StrokeForest, checked_early_exit
from otzi.pseudo.forest_file import save_forest
from otzi.pseudo.lazy import block_labeller
from otzi.tiles.blend import quantise
from otzi_pipelines.label.plan import CHUNK_VOXELS, plan_labels
from otzi_pipelines.label.report import forest_facts
from otzi_pipelines.label.samples import save_samples, stroke_samples
from otzi_pipelines.label.stroke_import import stroke_voxels

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from otzi.box import Box
    from otzi.networks.weights import Device
    from otzi.pseudo.lazy import LabelBlock
    from otzi.store.product import ProductWriter
    from otzi.tomogram import Tomogram
    from otzi_pipelines.label.plan import LabelPlan

__all__ = ["Classes", "pseudolabel", "stored_labels"]

Classes = Literal["all", "2"]

_WHOLE = 255


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
    device: Device = "cpu",
    memory_bytes: int | None = None,
    listen: Listener = ignore,
) -> bool:
    """Publish ``labels/NAME`` from the strokes of a tomogram; tell whether there was work to do.

    On one kind of device the bytes are the same for any number of workers and any memory. The
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
        Blocks at the same time, at most: fewer where the memory allows no more; one for each core
        if None.
    device
        Where blocks are labelled; the strokes' features and the forest are the processor's.
    memory_bytes
        What the process may take in all; not bounded if None.
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
    """
    bank = bank or FeatureBank()
    workers = workers or usable_cores()
    checked_early_exit(early_exit)
    label, arithmetic = block_labeller(device)
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
    )
    density = tomo.raw.data

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
            _write_blocks(
                writer,
                read,
                forest,
                plan,
                label=label,
                early_exit=early_exit,
                stored=partial(stored_labels, soft=soft, classes=classes),
                listen=listen,
            )
            save_forest(forest, writer.path / "forest")
            save_samples(writer.path, voxels, samples)
            writer.attributes["classes"] = list(table.names)
            writer.attributes["forest"] = forest_facts(forest)
    return True


def stored_labels(
    probabilities: NDArray[np.float32], *, soft: bool, classes: Classes
) -> NDArray[np.uint8]:
    """Give the labels as they are stored.

    Parameters
    ----------
    probabilities
        ``(c, z, y, x)`` float32 as `otzi.pseudo_labels` gives them; voxels of no class, those that
        see a NaN, become background.
    soft, classes
        As in `pseudolabel`.
    """
    probabilities = probabilities.copy()
    probabilities[0, ~probabilities.any(axis=0)] = 1
    if classes == "2":
        probabilities = np.stack([probabilities[0], probabilities[1:].sum(axis=0)])
    if soft:
        return quantise(probabilities, _WHOLE).astype(np.uint8)
    return np.asarray(probabilities.argmax(axis=0), np.uint8)


def _write_blocks(
    writer: ProductWriter,
    read: Callable[[Box], NDArray[Any]],
    forest: StrokeForest,
    plan: LabelPlan,
    *,
    label: LabelBlock,
    early_exit: EarlyExit | None,
    stored: Callable[[NDArray[np.float32]], NDArray[np.uint8]],
    listen: Listener,
) -> None:
    """Write all labels that an interrupted run has not written."""
    *channels, z, y, x = writer.shape
    shape = (z, y, x)

    def region(box: Box) -> tuple[slice, ...]:
        return (*map(slice, channels), *box.slices)

    def one(inner: Box) -> int:
        held = inner.grow(forest.bank.halo_voxels).clip(shape)
        probabilities, n = label(read(held), held, inner, forest, early_exit)
        writer[region(inner)] = stored(probabilities)
        return n

    boxes = [box for box in tile(shape, plan.block) if not writer.is_done(region(box))]
    n_voxels = sum(box.n_voxels for box in boxes)
    n_continued = 0
    with (
        step(listen, "labels", n_voxels, "voxels") as work,
        ThreadPoolExecutor(plan.workers) as pool,
    ):
        for box, n in zip(boxes, pool.map(one, boxes), strict=True):
            n_continued += n
            work.advance(box.n_voxels)
    if early_exit is not None:
        share = n_continued / max(1, n_voxels)
        listen(Noted(f"{share:.1%} of the voxels saw more than {early_exit[0]} trees"))
