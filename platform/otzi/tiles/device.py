"""The parts of a block made on a device: inference, quantisation and sums beside each other.

The same integers as in `otzi.tiles.parts`, which is for processors. What comes back from a device
are cells as stored and the sums of those that other blocks share: a tenth of the probabilities.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from otzi.tiles.blend import PROBABILITY_STEPS, WHOLE, check_outputs, finalise
from otzi.tiles.cells import is_alone
from otzi.tiles.infer import Model, naming_memory
from otzi.tiles.parts import cut_tiles, naming, padded

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray

    from otzi.box import Zyx
    from otzi.tiles.blend import ProbabilityType
    from otzi.tiles.blocks import BlockPlan

__all__ = ["DeviceModel", "infer_parts_on_device"]


class DeviceModel(Model, Protocol):
    """A model that takes and gives tensors on its device."""

    device: torch.device
    turn: AbstractContextManager[Any]
    """Held while its memory is used."""

    def infer(self, tiles: torch.Tensor) -> torch.Tensor:
        """Give ``(b, c, z, y, x)`` float32 for ``(b, 1, z, y, x)`` normalised density."""
        ...


def infer_parts_on_device(
    density: NDArray[np.float32],
    model: DeviceModel,
    blocks: BlockPlan,
    block: Zyx,
    cells: Sequence[Zyx],
    dtype: ProbabilityType,
    batch: int,
) -> tuple[NDArray[Any], ...]:
    """Give the part of a block in each of `cells`; see `otzi.tiles.parts.infer_parts`.

    What other blocks share is uint32 sums, of single tiles, too.

    Raises
    ------
    ModelError
        If what the model gives is no probability; it names the tile.
    MemoryBudgetError
        If the tiles do not fit into the memory of the device.
    """
    whole = padded(density, model.size_multiple, blocks.plan.tile)
    n_tiles = len(blocks.members(block))
    what = f"a block of {n_tiles} tiles, {min(batch, n_tiles)} of them at a time, does"
    with naming_memory(what, model.device, "--block or --tile"), torch.inference_mode():
        here = _pinned(torch.from_numpy(whole), model.device)
        with model.turn:
            parts, extremes, wait = _begin(here, model, blocks, block, cells, dtype, batch)
        wait()
    for tile, values in zip(blocks.members(block), extremes.tolist(), strict=True):
        with naming(model, blocks.plan, tile):
            check_outputs(*values)
    return tuple(
        _as_part(part.numpy(), dtype, len(model.classes), alone=is_alone(blocks, cell))
        for cell, part in zip(cells, parts, strict=True)
    )


def _begin(
    density: torch.Tensor,
    model: DeviceModel,
    blocks: BlockPlan,
    block: Zyx,
    cells: Sequence[Zyx],
    dtype: ProbabilityType,
    batch: int,
) -> tuple[list[torch.Tensor], torch.Tensor, Callable[[], None]]:
    """Tell the device all that is to be done; give the parts, the extremes, and how to wait.

    Nothing else of the device's memory is held on return: it does one thing after another, so that
    whoever has the next turn may take it.
    """
    there = density.to(model.device, non_blocking=True)
    total, extremes = _summed(there, model, blocks, block, batch)
    reach = blocks.reach(block)
    parts = []
    for cell in cells:
        part = total[(slice(None), *blocks.part(block, cell).within(reach))]
        if dtype == "uint8" and is_alone(blocks, cell):
            part = _bytes_of(part, len(model.classes))
        parts.append(_begin_download(part))
    return parts, _begin_download(extremes), _end_of_work(model.device)


def _summed(
    density: torch.Tensor, model: DeviceModel, blocks: BlockPlan, block: Zyx, batch: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Give the weighted sum of all tiles of a block over its reach, and the extremes of each tile.

    The sum is ``(c, z, y, x)`` int32, the bits of which are those of a uint32.
    """
    plan, reach, device = blocks.plan, blocks.reach(block), model.device
    n_classes = len(model.classes)
    shape = (n_classes + model.n_measures, *reach.shape)
    total = torch.zeros(shape, dtype=torch.int32, device=device)
    extremes = []
    tiles = cut_tiles(blocks, block, density.shape)
    while some := list(islice(tiles, batch)):
        outputs = model.infer(torch.stack([density[within] for _, within in some])[:, None])
        for (tile, _), output in zip(some, outputs, strict=True):
            inside = plan.reach(tile)
            reached = output[(slice(None), *inside.within(plan.read(tile)))]
            steps, extreme = _quantised(reached, n_classes)
            extremes.append(extreme)
            z, y, x = (torch.from_numpy(w.astype(np.int32)).to(device) for w in plan.weights(tile))
            steps *= z[:, None, None] * y[:, None] * x
            total[(slice(None), *inside.within(reach))] += steps
    return total, torch.stack(extremes)


def _quantised(outputs: torch.Tensor, n_classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Give the steps, ``(c, z, y, x)`` int32, and lowest, highest measure, and error of the sum."""
    steps = torch.empty(outputs.shape, dtype=torch.int32, device=outputs.device)
    cumulative = torch.zeros_like(outputs[0])
    below = torch.zeros_like(steps[0])
    for c in range(n_classes):
        cumulative += outputs[c]
        upto = torch.round(cumulative.clamp(max=1) * PROBABILITY_STEPS).to(torch.int32)
        steps[c] = upto - below
        below = upto
    steps[n_classes - 1] += PROBABILITY_STEPS - below
    measures = outputs[n_classes:]
    steps[n_classes:] = torch.round(measures.clamp(0, 1) * PROBABILITY_STEPS).to(torch.int32)
    highest = measures.amax() if len(measures) else torch.zeros_like(cumulative[0, 0, 0])
    return steps, torch.stack([outputs.amin(), highest, (cumulative - 1).abs().amax()])


def _bytes_of(total: torch.Tensor, n_classes: int) -> torch.Tensor:
    """Give what `otzi.tiles.blend.finalise` does for uint8."""
    wide = total.to(torch.int64) & 0xFFFFFFFF
    wide[:n_classes] = wide[:n_classes].cumsum(dim=0)
    upto = ((wide * 255 + WHOLE // 2) >> 18) // PROBABILITY_STEPS
    upto[1:n_classes] -= upto[: n_classes - 1].clone()
    return upto.to(torch.uint8)


def _pinned(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Give a copy from which a GPU takes while the processor goes on; torch keeps such memory."""
    return values.pin_memory() if device.type == "cuda" else values


def _begin_download(values: torch.Tensor) -> torch.Tensor:
    """Give a copy in the memory of the processor, once the device is synchronised."""
    if values.device.type != "cuda":
        return values.clone(memory_format=torch.contiguous_format)
    there = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    return there.copy_(values, non_blocking=True)


def _end_of_work(device: torch.device) -> Callable[[], None]:
    """Give what waits until the device has done all it was told up to now, and no more."""
    if device.type != "cuda":
        return lambda: None
    done = torch.cuda.Event()  # type: ignore[no-untyped-call]
    done.record(torch.cuda.current_stream(device))
    return done.synchronize


def _as_part(
    values: NDArray[Any], dtype: ProbabilityType, n_classes: int, *, alone: bool
) -> NDArray[Any]:
    if values.dtype == np.uint8:
        return values
    total = values.view(np.uint32)
    return finalise(total, dtype, n_classes) if alone else total
