"""The lazy view: probabilities of a whole volume as a Dask array, a slice of which needs its tiles.

Tiles and cells are those of `otzi.tiles.batch`, which writes the whole in bounded memory.
"""

from __future__ import annotations

from itertools import accumulate as running_sum
from itertools import pairwise, product
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import xarray as xr
from dask._task_spec import DataNode, TaskRef
from dask.base import tokenize
from dask.highlevelgraph import HighLevelGraph

from otzi.normalise import Normalisation
from otzi.tiles.blocks import BlockPlan
from otzi.tiles.parts import infer_parts
from otzi.tiles.tasks import ScatterGraph, plan_for

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from otzi.box import Box, Zyx
    from otzi.tiles.blend import ProbabilityType
    from otzi.tiles.infer import Model

__all__ = ["predict_tiles"]

Slices = tuple[slice, slice, slice]


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
    plan = plan_for(model, (z, y, x), tile, overlap)
    normalise = normalisation or Normalisation.of(raw, model.normalisation)
    volume: Any = raw.data
    if not isinstance(volume, da.Array):
        volume = da.from_array(volume, chunks=tile)
    token = tokenize(volume.name, model, plan, normalise, dtype)
    name, shared = f"probabilities-{token}", f"model-{token}"
    graph = ScatterGraph(BlockPlan(plan), name, token)
    graph.tasks[shared] = DataNode(shared, model)
    for index in plan.tiles:
        box, cells = plan.read(index), plan.dependents(index)
        chunks, places = _chunks_of(volume, box)
        how = (normalise, box.shape, places, TaskRef(shared), graph.blocks, index, cells, dtype)
        graph.add_block(index, cells, _assemble_and_infer, *how, *chunks)
    for index in plan.tiles:
        graph.add_cell(index, dtype, len(model.classes))
    n_channels = len(model.classes) + model.n_measures
    data = da.Array(
        HighLevelGraph.from_collections(name, graph.tasks, dependencies=[volume]),
        name,
        chunks=((n_channels,), *plan.chunks),
        dtype=np.dtype(dtype),
    )
    return xr.DataArray(
        data[: len(model.classes)] if model.n_measures else data,
        dims=("c", "z", "y", "x"),
        coords={"c": list(model.classes)} | {axis: raw.coords[axis] for axis in raw.coords},
        name="probabilities",
        attrs={key: value for key, value in raw.attrs.items() if key != "statistics"},
    )


def _assemble_and_infer(
    normalise: Normalisation,
    shape: Zyx,
    places: Sequence[tuple[Slices, Slices]],
    model: Model,
    blocks: BlockPlan,
    index: Zyx,
    cells: Sequence[Zyx],
    dtype: ProbabilityType,
    *chunks: NDArray[Any],
) -> tuple[NDArray[Any], ...]:
    density = np.empty(shape, np.float32)
    for (into, of), chunk in zip(places, chunks, strict=True):
        density[into] = chunk[of]
    return infer_parts(normalise(density), model, blocks, index, cells, dtype, 1)


def _chunks_of(volume: Any, box: Box) -> tuple[list[TaskRef], list[tuple[Slices, Slices]]]:
    """Give the chunks that a box touches, and for each its place in the box and what of it."""
    touched = [
        list(_overlaps(lengths, start, stop))
        for lengths, start, stop in zip(volume.chunks, box.start, box.stop, strict=True)
    ]
    chunks, places = [], []
    for (i, into_z, of_z), (j, into_y, of_y), (k, into_x, of_x) in product(*touched):
        chunks.append(TaskRef((volume.name, i, j, k)))
        places.append(((into_z, into_y, into_x), (of_z, of_y, of_x)))
    return chunks, places


def _overlaps(lengths: Iterable[int], start: int, stop: int) -> Iterator[tuple[int, slice, slice]]:
    for i, (low, high) in enumerate(pairwise(running_sum(lengths, initial=0))):
        first, last = max(low, start), min(high, stop)
        if first < last:
            yield i, slice(first - start, last - start), slice(first - low, last - low)
