"""Probabilities of a whole volume from overlapping tiles, each inferred once: two Dask graphs.

Both consist of the same tasks: a tile is inferred and quantised, cut into the parts that its cells
need, and each cell is blended from its up to 8 parts. `predict_tiles` is the lazy view, in which a
slice needs its tiles only. `store_tiles` writes the whole: it lets a tile begin only when the cell
`window` tiles before it is written, so that memory follows the cross-section of the volume and not
its length.
"""

from __future__ import annotations

from itertools import accumulate as running_sum
from itertools import pairwise, product
from typing import TYPE_CHECKING, Any, Protocol

import dask.array as da
import numpy as np
import xarray as xr
from dask import threaded
from dask._task_spec import DataNode, GraphNode, Task, TaskRef
from dask.base import tokenize
from dask.callbacks import Callback
from dask.highlevelgraph import HighLevelGraph

from otzi.errors import ModelError, UsageError
from otzi.events import Listener, ignore, step
from otzi.normalise import Normalisation
from otzi.tiles.blend import ProbabilityType, accumulate, finalise, quantise
from otzi.tiles.plan import TilePlan

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from numpy.typing import NDArray

    from otzi.box import Box, Zyx
    from otzi.tiles.infer import Model

__all__ = ["Sink", "predict_tiles", "store_tiles", "window"]

Slices = tuple[slice, slice, slice]


class Sink(Protocol):
    """What takes ``(c, z, y, x)`` blocks, each voxel once, from any thread."""

    def __setitem__(self, region: tuple[slice, ...], block: NDArray[Any], /) -> None: ...


def predict_tiles(
    raw: xr.DataArray,
    model: Model,
    *,
    tile: int = 128,
    overlap: int = 32,
    normalisation: Normalisation | None = None,
    dtype: ProbabilityType = "float32",
) -> xr.DataArray:
    """Give the class probabilities of a volume, lazily: slice it, look at it, compute a part.

    Within one compute every tile is inferred once. Computing the whole of a large tomogram keeps
    more and more parts in memory; ``otzi segment`` does that in bounded memory.

    Parameters
    ----------
    raw
        ``(z, y, x)`` density, lazy or not.
    model
        From `otzi.load_model`, or anything that is a `otzi.tiles.infer.Model`.
    tile, overlap
        In voxels; a volume thinner than a tile is reflected to what the model needs.
    normalisation
        Of the whole volume; the model's, from the volume's statistics, where left out.
    dtype
        ``"float32"`` or ``"float16"``: probabilities; ``"uint8"``: 255 times them, as stored.

    Returns
    -------
    xarray.DataArray
        ``(c, z, y, x)``, Dask-backed, one chunk for each cell, summing to 1 (or 255) over c.

    Raises
    ------
    UsageError
        If tile, overlap and the model's size do not fit together.
    ConfigurationError
        If there is no normalisation and the volume carries no statistics.
    """
    z, y, x = raw.shape
    plan = _plan_for(model, (z, y, x), tile, overlap)
    normalise = normalisation or Normalisation.of(raw, model.normalisation)
    volume: Any = raw.data
    if not isinstance(volume, da.Array):
        volume = da.from_array(volume, chunks=tile)
    token = tokenize(volume.name, model, plan, normalise, dtype)
    name = f"probabilities-{token}"
    shared = f"model-{token}"
    graph: dict[Any, GraphNode] = {shared: DataNode(shared, model)}
    for index in plan.tiles:
        box = plan.read(index)
        blocks, places = _blocks_of(volume, box)
        infer = Task(
            _key("tile", token, index),
            _infer_blocks,
            TaskRef(shared),
            normalise,
            plan.reach(index).within(box),
            box.shape,
            places,
            *blocks,
        )
        _add(graph, infer, *_cuts(plan, token, index, plan.dependents(index)))
    for index in plan.tiles:
        key = (name, 0, *index)
        _add(graph, Task(key, _blend, plan, index, dtype, *_parts(plan, token, index)))
    data = da.Array(
        HighLevelGraph.from_collections(name, graph, dependencies=[volume]),
        name,
        chunks=((len(model.classes),), *plan.chunks),
        dtype=np.dtype(dtype),
    )
    return xr.DataArray(
        data,
        dims=("c", "z", "y", "x"),
        coords={"c": list(model.classes)} | {axis: raw.coords[axis] for axis in raw.coords},
        name="probabilities",
        attrs={key: value for key, value in raw.attrs.items() if key != "statistics"},
    )


def store_tiles(
    read: Callable[[Box], NDArray[np.float32]],
    shape: Zyx,
    model: Model,
    sink: Sink,
    *,
    tile: int = 128,
    overlap: int = 32,
    dtype: ProbabilityType = "uint8",
    workers: int = 1,
    is_done: Callable[[Box], bool] = lambda cell: False,
    listen: Listener = ignore,
) -> None:
    """Write the class probabilities of a whole volume, bit-equal to those of `predict_tiles`.

    Parameters
    ----------
    read
        Gives the normalised density of a box, from any thread.
    shape
        Of the volume.
    model, tile, overlap, dtype
        As in `predict_tiles`.
    sink
        Takes the cells.
    workers
        Tiles that are inferred at the same time.
    is_done
        Tells of a cell that need not be written: an interrupted run did; only the tiles that the
        others need are inferred.
    listen
        Told of every tile.

    Raises
    ------
    UsageError
        If tile, overlap and the model's size do not fit together.
    """
    plan = _plan_for(model, shape, tile, overlap)
    graph: dict[Any, GraphNode] = {}
    token = "stored"
    cells = [cell for cell in plan.sweep if not is_done(plan.cell(cell))]
    wanted = set(cells)
    needed = {tile for cell in cells for tile in plan.contributors(cell)}
    tiles = [tile for tile in plan.sweep if tile in needed]
    ahead, written = window(workers), list[TaskRef]()
    for position, index in enumerate(tiles):
        box = plan.read(index)
        if position >= ahead and tiles[position - ahead] in wanted:
            written = [TaskRef(_key("cell", token, tiles[position - ahead]))]
        infer = Task(
            _key("tile", token, index),
            _infer_read,
            model,
            read,
            box,
            plan.reach(index).within(box),
            *written,
        )
        _add(graph, infer, *_cuts(plan, token, index, wanted))
    for cell in cells:
        write = Task(
            _key("cell", token, cell),
            _blend_into,
            sink,
            plan,
            cell,
            dtype,
            *_parts(plan, token, cell),
        )
        _add(graph, write)
    with step(listen, "segment", len(tiles), "tiles") as work:

        def done(key: Any, *_: Any) -> None:
            if key[0].startswith("tile-"):
                work.advance()

        with Callback(posttask=done):
            keys = [_key("cell", token, cell) for cell in cells]
            threaded.get(graph, keys, num_workers=workers)


def window(workers: int) -> int:
    """Give how many tiles may be ahead of the last written cell: enough to keep all busy."""
    return 2 * workers


def _plan_for(model: Model, shape: Zyx, tile: int, overlap: int) -> TilePlan:
    if tile % model.size_multiple:
        raise UsageError(
            f"tile {tile} does not fit the model: take a multiple of {model.size_multiple} voxels"
        )
    return TilePlan(shape, tile, overlap)


# Keys and edges


def _key(kind: str, token: str, *indices: Zyx) -> tuple[Any, ...]:
    return f"{kind}-{token}", *(i for index in indices for i in index)


def _add(graph: dict[Any, GraphNode], *tasks: Task) -> None:
    graph.update((task.key, task) for task in tasks)


def _cuts(plan: TilePlan, token: str, index: Zyx, cells: Collection[Zyx]) -> Iterator[Task]:
    reach = plan.reach(index)
    whole = TaskRef(_key("tile", token, index))
    for cell in plan.dependents(index):
        if cell in cells:
            where = plan.part(index, cell).within(reach)
            yield Task(_key("part", token, index, cell), _cut, whole, where)


def _parts(plan: TilePlan, token: str, cell: Zyx) -> Iterator[TaskRef]:
    return (TaskRef(_key("part", token, index, cell)) for index in plan.contributors(cell))


def _blocks_of(volume: Any, box: Box) -> tuple[list[TaskRef], list[tuple[Slices, Slices]]]:
    """Give the blocks that a box touches, and for each its place in the box and what of it."""
    touched = [
        list(_overlaps(lengths, start, stop))
        for lengths, start, stop in zip(volume.chunks, box.start, box.stop, strict=True)
    ]
    blocks, places = [], []
    for (i, into_z, of_z), (j, into_y, of_y), (k, into_x, of_x) in product(*touched):
        blocks.append(TaskRef((volume.name, i, j, k)))
        places.append(((into_z, into_y, into_x), (of_z, of_y, of_x)))
    return blocks, places


def _overlaps(lengths: Iterable[int], start: int, stop: int) -> Iterator[tuple[int, slice, slice]]:
    for i, (low, high) in enumerate(pairwise(running_sum(lengths, initial=0))):
        first, last = max(low, start), min(high, stop)
        if first < last:
            yield i, slice(first - start, last - start), slice(first - low, last - low)


# Tasks


def _infer_blocks(
    model: Model,
    normalise: Normalisation,
    within: Slices,
    shape: Zyx,
    places: list[tuple[Slices, Slices]],
    *blocks: NDArray[Any],
) -> NDArray[np.uint16]:
    density = np.empty(shape, np.float32)
    for (into, of), block in zip(places, blocks, strict=True):
        density[into] = block[of]
    return _infer(model, normalise(density), within)


def _infer_read(
    model: Model,
    read: Callable[[Box], NDArray[np.float32]],
    box: Box,
    within: Slices,
    *_written: None,
) -> NDArray[np.uint16]:
    return _infer(model, read(box), within)


def _infer(model: Model, density: NDArray[np.float32], within: Slices) -> NDArray[np.uint16]:
    sides = density.shape
    missing = [(0, -side % model.size_multiple) for side in sides]
    tile = np.pad(density, missing, mode="reflect")
    (probabilities,) = model(tile[None, None])
    if probabilities.shape != (len(model.classes), *tile.shape):
        raise ModelError(
            f"the model gives {probabilities.shape} for a tile of {tile.shape}: it must give one "
            f"channel for each of {', '.join(model.classes)}"
        )
    return quantise(probabilities[(slice(None), *within)])


def _cut(steps: NDArray[np.uint16], where: Slices) -> NDArray[np.uint16]:
    return np.ascontiguousarray(steps[(slice(None), *where)])


def _blend(
    plan: TilePlan, index: Zyx, dtype: ProbabilityType, *parts: NDArray[np.uint16]
) -> NDArray[Any]:
    cell = plan.cell(index)
    total = np.zeros((len(parts[0]), *cell.shape), np.uint32)
    for tile, part in zip(plan.contributors(index), parts, strict=True):
        box = plan.part(tile, index)
        where = box.within(plan.reach(tile))
        weights = [w[s] for w, s in zip(plan.weights(tile), where, strict=True)]
        accumulate(total[(slice(None), *box.within(cell))], part, weights)
    return finalise(total, dtype)


def _blend_into(
    sink: Sink, plan: TilePlan, index: Zyx, dtype: ProbabilityType, *parts: NDArray[np.uint16]
) -> None:
    sink[(slice(None), *plan.cell(index).slices)] = _blend(plan, index, dtype, *parts)
