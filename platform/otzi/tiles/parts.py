"""What one block of tiles contributes to each cell."""

from __future__ import annotations

from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from otzi.errors import ModelError
from otzi.tiles.blend import accumulate, quantise_box
from otzi.tiles.cells import blended, is_alone, weights_within

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from otzi.box import Box, Zyx
    from otzi.tiles.blend import ProbabilityType
    from otzi.tiles.blocks import BlockPlan
    from otzi.tiles.infer import Model
    from otzi.tiles.plan import TilePlan

__all__ = [
    "cut_tiles",
    "infer_parts",
    "naming",
    "padded",
    "read_and_infer_parts",
]


def read_and_infer_parts(
    read: Callable[[Box], NDArray[np.float32]],
    model: Model,
    blocks: BlockPlan,
    block: Zyx,
    cells: Sequence[Zyx],
    dtype: ProbabilityType,
    batch: int,
) -> tuple[NDArray[Any], ...]:
    """Give `infer_parts` of a block whose density is yet to be read."""
    return infer_parts(read(blocks.read(block)), model, blocks, block, cells, dtype, batch)


def infer_parts(
    density: NDArray[np.float32],
    model: Model,
    blocks: BlockPlan,
    block: Zyx,
    cells: Sequence[Zyx],
    dtype: ProbabilityType,
    batch: int,
) -> tuple[NDArray[Any], ...]:
    """Give the part of a block in each of `cells`; its tiles are inferred, each once.

    Parameters
    ----------
    density
        ``(z, y, x)`` float32, normalised: all that the block sees.
    model
        Called with up to `batch` tiles.
    blocks, block
        Where the tiles lie.
    cells
        Some of those that the block reaches into.
    dtype
        Of cells that need no other block.
    batch
        Tiles at a time.

    Returns
    -------
    tuple of numpy.ndarray
        ``(c, z, y, x)`` each. As stored, if the cell needs no other block; otherwise uint16 steps
        yet to be weighted, if a block is one tile; otherwise uint32, their weighted sum.

    Raises
    ------
    ModelError
        If what the model gives is no probability, or of another shape; it names the tile.
    """
    if getattr(model, "blends_on_device", False):
        from otzi.tiles.device import DeviceModel, infer_parts_on_device

        model = cast("DeviceModel", model)
        return infer_parts_on_device(density, model, blocks, block, cells, dtype, batch)
    outputs = _inferred(density, model, blocks, block, batch)
    n_classes = len(model.classes)
    make = _steps if blocks.is_single else _sums
    parts: list[NDArray[Any]] = [*make(outputs, model, blocks, block, cells)]
    return tuple(
        blended(blocks, cell, dtype, n_classes, part) if is_alone(blocks, cell) else part
        for cell, part in zip(cells, parts, strict=True)
    )


def padded(density: NDArray[np.float32], size_multiple: int, tile: int) -> NDArray[np.float32]:
    """Give the density with axes shorter than a tile reflected to a multiple of `size_multiple`."""
    missing = [(0, -n % size_multiple if n < tile else 0) for n in density.shape]
    return np.pad(density, missing, mode="reflect") if any(more for _, more in missing) else density


def cut_tiles(blocks: BlockPlan, block: Zyx, shape: Sequence[int]) -> Iterator[tuple[Zyx, Any]]:
    """Yield the tiles of a block, and the index of each in its density, padded to `shape`."""
    plan, box = blocks.plan, blocks.read(block)
    for tile in blocks.members(block):
        within = plan.read(tile).within(box)
        sides = zip(within, box.shape, shape, strict=True)
        yield tile, tuple(slice(s.start, s.stop + new - old) for s, old, new in sides)


@contextmanager
def naming(model: Model, plan: TilePlan, tile: Zyx) -> Iterator[None]:
    """Add tile and model to the message of a `ModelError`."""
    try:
        yield
    except ModelError as error:
        voxel = plan.read(tile).start
        raise ModelError(f"tile {tile} at voxel {voxel} by {model}: {error}") from error


def _inferred(
    density: NDArray[np.float32], model: Model, blocks: BlockPlan, block: Zyx, batch: int
) -> Iterator[tuple[Zyx, NDArray[np.float32]]]:
    """Yield the tiles of a block and what the model gives for each, ``(c, z, y, x)``."""
    whole = padded(density, model.size_multiple, blocks.plan.tile)
    n_channels = len(model.classes) + model.n_measures
    tiles = cut_tiles(blocks, block, whole.shape)
    while some := list(islice(tiles, batch)):
        views = [whole[within] for _, within in some]
        # Of a block of one tile that is no copy.
        seen = np.ascontiguousarray(views[0])[None] if len(some) == 1 else np.stack(views)
        outputs = model(seen[:, None])
        for (tile, _), output in zip(some, outputs, strict=True):
            if output.shape != (n_channels, *seen.shape[1:]):
                with naming(model, blocks.plan, tile):
                    raise ModelError(
                        f"the model gives {output.shape} for a tile of {seen.shape[1:]}: it must "
                        f"give one channel for each of {', '.join(model.classes)}"
                    )
            yield tile, np.ascontiguousarray(output, np.float32)


def _steps(
    outputs: Iterator[tuple[Zyx, NDArray[np.float32]]],
    model: Model,
    blocks: BlockPlan,
    block: Zyx,
    cells: Sequence[Zyx],
) -> list[NDArray[np.uint16]]:
    """Give the steps of a block's only tile in each of `cells`."""
    ((tile, output),) = outputs
    return [
        _quantised(output, model, blocks.plan, tile, blocks.part(block, cell)) for cell in cells
    ]


def _sums(
    outputs: Iterator[tuple[Zyx, NDArray[np.float32]]],
    model: Model,
    blocks: BlockPlan,
    block: Zyx,
    cells: Sequence[Zyx],
) -> list[NDArray[np.uint32]]:
    """Give the weighted sum of all tiles of a block in each of `cells`."""
    plan = blocks.plan
    boxes = {cell: blocks.part(block, cell) for cell in cells}
    n_channels = len(model.classes) + model.n_measures
    sums = {cell: np.zeros((n_channels, *box.shape), np.uint32) for cell, box in boxes.items()}
    for tile, output in outputs:
        for cell in plan.dependents(tile):
            if cell in sums:
                region = plan.part(tile, cell)
                steps = _quantised(output, model, plan, tile, region)
                start = _from(region, boxes[cell])
                accumulate(sums[cell], steps, weights_within(plan, tile, region), start)
    return list(sums.values())


def _quantised(
    output: NDArray[np.float32], model: Model, plan: TilePlan, tile: Zyx, region: Box
) -> NDArray[np.uint16]:
    start = _from(region, plan.read(tile))
    with naming(model, plan, tile):
        return quantise_box(output, start, region.shape, n_classes=len(model.classes))


def _from(box: Box, outer: Box) -> Zyx:
    z, y, x = (a - b for a, b in zip(box.start, outer.start, strict=True))
    return z, y, x
