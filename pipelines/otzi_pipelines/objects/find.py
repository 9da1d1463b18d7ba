"""The product ``objects/NAME``: a table of objects, and the object of every voxel if wished."""

from __future__ import annotations

import json
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from otzi.box import tile
from otzi.errors import VerificationError
from otzi.events import Listener, Noted, ignore, step
from otzi.execute import executor as execute_on
from otzi.memory import give_back_freed_memory, usable_cores
from otzi_pipelines.objects.block import (
    Connectivity,
    ObjectTask,
    block_numbers,
    block_parts,
)
from otzi_pipelines.objects.join import Joiner
from otzi_pipelines.objects.plan import CHUNK_VOXELS, least_voxels, plan_objects
from otzi_pipelines.objects.selection import select
from otzi_pipelines.objects.table import class_counts, object_columns, table_csv, table_rows
from otzi_pipelines.ramps.histograms import code_count

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from otzi.box import Box
    from otzi.execute import Executor
    from otzi.store.product import ProductWriter
    from otzi.tomogram import Tomogram
    from otzi_pipelines.objects.join import Joined
    from otzi_pipelines.objects.plan import ObjectPlan
    from otzi_pipelines.objects.table import Columns

__all__ = ["CSV", "JSON", "find_objects"]

CSV, JSON = "objects.csv", "objects.json"


def find_objects(
    tomo: Tomogram,
    name: str,
    *,
    of: str,
    classes: Sequence[str],
    threshold: float | None = None,
    connectivity: Connectivity = 26,
    min_volume_nm3: float = 0.0,
    with_labels: bool = False,
    workers: int | None = None,
    executor: Executor | None = None,
    priority: int = 0,
    memory_bytes: int | None = None,
    listen: Listener = ignore,
) -> bool:
    """Publish ``objects/NAME`` of a tomogram; tell whether there was work to do.

    An object is a connected set of voxels of one class. They are numbered from 1 by their first
    voxels in the order z, y, x: the files are the same for any executor, workers and memory. The
    product holds ``objects.csv`` and ``objects.json`` with the columns of
    `otzi_pipelines.objects.table.object_columns`, and with labels an OME-Zarr image of labels,
    ``(z, y, x)`` uint32, 0 where there is no object. A run that was interrupted counts anew, and
    goes on with writing the labels.

    Parameters
    ----------
    tomo
        Of a collection open for writing.
    name
        Of the objects.
    of
        ``probs/NAME`` or ``labels/NAME``, of which they are.
    classes, threshold
        Which voxels: see `otzi_pipelines.objects.selection.select`.
    connectivity
        Voxels that share a face (6), a face or an edge (18), or a corner, too (26), are connected.
    min_volume_nm3
        Smaller objects are left out.
    with_labels
        Whether to publish the object of every voxel, too.
    workers
        Threads of this process, at most: fewer where the memory allows no more; one for each core
        if None.
    executor
        What labels the blocks; these threads if None.
    priority
        Of several tomograms that of the largest goes first, where the executor heeds it.
    memory_bytes
        What this process, and those of the executor, may take in all; not bounded if None.
    listen
        Told of the progress.

    Raises
    ------
    NotFoundError
        If the tomogram has no such product, or that has no such class.
    UsageError
        If what is asked for cannot be meant.
    VerificationError
        If the product of which they are is damaged, or replaced meanwhile.
    MemoryBudgetError
        If one small block at a time does not fit into the memory, or all objects do not.
    ExecutorUnavailable, WorkersKilled
        If the executor ends, or blocks end its workers.
    """
    selection = select(tomo, of, classes, threshold)
    array = tomo.array(of)
    z, y, x = shape = array.shape[-3:]
    spacing_angstrom = tomo.image(of).spacing_angstrom
    min_voxels = least_voxels(min_volume_nm3, spacing_angstrom)
    product = f"objects/{name}"
    recipe = {
        "verb": "objects",
        "of": of,
        "classes": list(classes),
        "thresholds": selection.thresholds and list(selection.thresholds),
        "connectivity": connectivity,
        "min_voxels": min_voxels,
        "labels": with_labels,
    }
    if tomo.is_made(product, recipe, (of,)):
        listen(Noted(f"{tomo.id} has these {product} already"))
        return False
    if memory_bytes is not None:
        give_back_freed_memory()
    plan = plan_objects(
        (z, y, x),
        array.dtype.itemsize,
        workers=workers or usable_cores(),
        memory_bytes=memory_bytes,
        processes=0 if executor is None or executor.is_local else executor.n_workers,
    )
    place = tomo.collection.path
    task = ObjectTask(
        collection=str(place.resolve() if isinstance(place, Path) else place),
        tomogram=tomo.id,
        selection=selection,
        sha256=tomo.digest(of),
        connectivity=connectivity,
        min_voxels=min_voxels,
    )
    whole_code = None if selection.thresholds is None else code_count(array.dtype) - 1
    with (
        step(listen, f"objects {tomo.id}"),
        _workers(executor, plan.workers) as running,
    ):
        joined = _joined(task, plan, (z, y, x), running, priority, listen)
        columns = object_columns(joined.objects, classes, (z, y, x), spacing_angstrom, whole_code)
        about = {
            "tomogram": tomo.id,
            **{key: value for key, value in recipe.items() if key not in ("verb", "labels")},
            "spacing_angstrom": list(spacing_angstrom),
            "shape": list(shape),
            "counts": class_counts(columns, classes),
        }
        if not with_labels:
            with tomo.stage(product, recipe=recipe, parents=(of,)) as staging:
                _check_parent(staging.attributes, task)
                _save_table(staging.path, staging.attributes, about, columns)
            return True
        with tomo.write(
            product,
            dtype=np.uint32,
            shape=(z, y, x),
            spacing_angstrom=spacing_angstrom,
            chunk_voxels=CHUNK_VOXELS,
            downsample="mode",
            recipe=recipe,
            parents=(of,),
        ) as writer:
            _check_parent(writer.attributes, task)
            _write_numbers(writer, task, plan, joined, running, priority, listen)
            _save_table(writer.path, writer.attributes, about, columns)
    return True


def _joined(
    task: ObjectTask,
    plan: ObjectPlan,
    shape: tuple[int, int, int],
    executor: Executor,
    priority: int,
    listen: Listener,
) -> Joined:
    """Give the objects of the whole volume."""
    joiner = Joiner(plan.most_parts)
    boxes = list(tile(shape, plan.block))
    with step(listen, "blocks", sum(box.n_voxels for box in boxes), "voxels") as work:
        for box, block in executor.each(partial(block_parts, task), boxes, priority=priority):
            joiner.add(box, block)
            work.advance(box.n_voxels)
    return joiner.joined(task.min_voxels)


def _write_numbers(
    writer: ProductWriter,
    task: ObjectTask,
    plan: ObjectPlan,
    joined: Joined,
    executor: Executor,
    priority: int,
    listen: Listener,
) -> None:
    """Write the object of every voxel, where an interrupted run has not; empty blocks as such."""
    z, y, x = writer.shape
    boxes = [box for box in tile((z, y, x), plan.block) if not writer.is_done(box.slices)]

    def items() -> Iterator[tuple[Box, Any]]:
        for box in boxes:
            if (numbers := joined.numbers(box)).any():
                yield box, numbers
            else:
                writer[box.slices] = np.zeros(box.shape, np.uint32)
                work.advance(box.n_voxels)

    with step(listen, "labels", sum(box.n_voxels for box in boxes), "voxels") as work:
        found = executor.each(partial(block_numbers, task), items(), priority=priority)
        for (box, _), numbers in found:
            writer[box.slices] = numbers
            work.advance(box.n_voxels)


def _check_parent(attributes: Mapping[str, Any], task: ObjectTask) -> None:
    """Make sure that what was counted is what the product will say it is of."""
    of = task.selection.product
    if attributes["parents"][of] != task.sha256:
        raise VerificationError(f"{of} of {task.tomogram} has changed meanwhile: run it again")


def _save_table(
    folder: Path, attributes: dict[str, Any], about: Mapping[str, Any], columns: Columns
) -> None:
    (folder / CSV).write_text(table_csv(columns))
    (folder / JSON).write_text(json.dumps({**about, "objects": table_rows(columns)}) + "\n")
    attributes["n_objects"] = len(columns["id"])
    attributes["counts"] = about["counts"]


@contextmanager
def _workers(given: Executor | None, n_threads: int) -> Iterator[Executor]:
    """Give the executor; threads of its own, as many as the memory allows, where it has none."""
    if given is not None and not given.is_local:
        yield given
    else:
        with execute_on("local", n_threads) as threads:
            yield threads
