"""The published way to segment a volume, defects included, to compare ours with.

Reconstructed from what the published code is known to do: the volume is cut into chunks of its
depth × 512 × 512, each brought to the same minimum and maximum by itself; tiles lie on a centred
grid, so that margins are left without a prediction; the ramp at the faces of tiles begins at 0, so
that the outermost planes are 0; where chunks overlap the first row is; no weight is ever divided by
the sum; and each class is stretched to its own range in the end. The whole result is in memory, in
which only the chunk at work comes on top: it is for small volumes.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from otzi.box import Box
from otzi.errors import MemoryBudgetError, UsageError
from otzi.memory import format_bytes
from otzi.normalise import Normalisation
from otzi_pipelines.ramps.histograms import codes_of
from otzi_pipelines.segment.seams import PlaneSteps

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from otzi.box import Zyx
    from otzi.tiles.infer import Model
    from otzi.tomogram import Tomogram

__all__ = [
    "LegacyAxis",
    "LegacyPlan",
    "check_legacy",
    "compare_with_legacy",
    "legacy_probabilities",
]

CHUNK_VOXELS = 512
"""Of y and x; a chunk has the whole depth."""
_LARGEST_BYTES = 4 * 10**9
_BYTES_PER_VALUE = 16
"""Of a class in a voxel: the sum, what it is stretched to, both results, and what is between."""


@dataclass(frozen=True, slots=True)
class LegacyAxis:
    """Chunks and tiles of one axis."""

    n_voxels: int
    chunk: int
    tile: int
    overlap: int

    @property
    def n_chunks(self) -> int:
        """Number of chunks."""
        return -(-self.n_voxels // self.chunk)

    @property
    def chunk_overlap(self) -> int:
        """Voxels that neighbouring chunks share; 0 where the axis is a multiple of the chunk."""
        spare = self.n_chunks * self.chunk - self.n_voxels
        return spare // (self.n_chunks - 1) if self.n_chunks > 1 else 0

    def chunks(self) -> list[tuple[int, int]]:
        """Give start and stop of every chunk."""
        last = max(0, self.n_voxels - self.chunk)
        starts = (min(k * (self.chunk - self.chunk_overlap), last) for k in range(self.n_chunks))
        return [(start, min(start + self.chunk, self.n_voxels)) for start in starts]

    def tiles(self, length: int) -> list[int]:
        """Give the starts of the tiles in a chunk of `length` voxels: as many as fit, centred."""
        stride = self.tile - self.overlap
        n_more = (length - self.tile) // stride
        margin = (length - self.tile - n_more * stride) // 2
        return [margin + k * stride for k in range(n_more + 1)]

    def tile_weights(self, k: int, n_tiles: int) -> NDArray[np.float32]:
        """Give ``(tile,)``: i / (overlap − 1) from both faces; 1 but for the first at the ends."""
        ramp = np.linspace(0, 1, self.overlap, dtype=np.float32)
        at_end = np.minimum(np.arange(self.overlap, dtype=np.float32), 1)
        weights = np.ones(self.tile, np.float32)
        if self.overlap:
            weights[: self.overlap] = at_end if k == 0 else ramp
            weights[-self.overlap :] *= (at_end if k == n_tiles - 1 else ramp)[::-1]
        return weights

    def chunk_weights(self, k: int) -> NDArray[np.float32]:
        """Give the weights of a chunk: ramps where it meets others; its first row is lost, too."""
        start, stop = self.chunks()[k]
        weights = np.ones(stop - start, np.float32)
        if n := self.chunk_overlap:
            ramp = np.linspace(0, 1, n, dtype=np.float32)
            if k > 0:
                weights[:n] = ramp
            if k < self.n_chunks - 1:
                weights[-n:] *= ramp[::-1]
                weights[0] = 0
        return weights


@dataclass(frozen=True, slots=True)
class LegacyPlan:
    """How the published code cuts a volume."""

    shape: Zyx
    tile: int = 128
    overlap: int = 32
    chunk: int = CHUNK_VOXELS

    @property
    def axes(self) -> tuple[LegacyAxis, LegacyAxis, LegacyAxis]:
        """Those of z, y and x."""
        z, y, x = self.shape
        return (
            LegacyAxis(z, z, self.tile, self.overlap),
            LegacyAxis(y, self.chunk, self.tile, self.overlap),
            LegacyAxis(x, self.chunk, self.tile, self.overlap),
        )


def legacy_probabilities(
    read: Callable[[Box], NDArray[np.float32]],
    plan: LegacyPlan,
    model: Model,
    value_range: tuple[float, float],
    normalise: Callable[[NDArray[np.float32]], NDArray[np.float32]],
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Give what the published code would store, and where it has a prediction.

    Parameters
    ----------
    read
        Gives the density of a box.
    plan
        Of the volume.
    model
        Takes a tile at a time.
    value_range
        To which each chunk is brought by itself: minimum and maximum of the whole volume.
    normalise
        What the model expects of the whole volume.

    Returns
    -------
    (c, z, y, x) uint8
        Each class stretched to 0 … 255.
    (z, y, x) bool
        Whether any weight is above 0.
    """
    sums = np.zeros((len(model.classes), *plan.shape), np.float32)
    is_covered = np.zeros(plan.shape, bool)
    chunks = [list(enumerate(axis.chunks())) for axis in plan.axes]
    for (i, z), (j, y), (k, x) in product(*chunks):
        box = Box((z[0], y[0], x[0]), (z[1], y[1], x[1]))
        density = normalise(_stretched(read(box), value_range))
        blended, weight = _blended(density, plan, model)
        own = _outer([axis.chunk_weights(n) for axis, n in zip(plan.axes, (i, j, k), strict=True)])
        sums[(slice(None), *box.slices)] += blended * own
        is_covered[box.slices] |= weight * own > 0
    low, high = (edge(sums, axis=(1, 2, 3), keepdims=True) for edge in (np.min, np.max))
    stretched = (sums - low) / np.where(high > low, high - low, 1)
    return np.rint(stretched * 255).astype(np.uint8), is_covered


def check_legacy(
    shape: Zyx, n_classes: int, *, tile: int = 128, memory_bytes: int | None = None
) -> None:
    """Make sure that a volume can be done the published way.

    Raises
    ------
    MemoryBudgetError
        If it does not fit into memory.
    UsageError
        If it is thinner than a tile: there the published code fails.
    """
    if min(shape) < tile:
        raise UsageError(
            f"the published way needs at least a tile of {tile} voxels on each axis, the volume "
            f"has {shape}: leave --legacy out, or take a smaller --tile"
        )
    needed = _BYTES_PER_VALUE * n_classes * int(np.prod(shape))
    allowed = min(_LARGEST_BYTES, memory_bytes or _LARGEST_BYTES)
    if needed > allowed:
        raise MemoryBudgetError(
            f"the published way holds the whole volume: {format_bytes(needed)}, allowed are "
            f"{format_bytes(allowed)}: leave --legacy out, or compare on a smaller tomogram"
        )


def compare_with_legacy(
    tomo: Tomogram,
    model: Model,
    name: str,
    *,
    tile: int = 128,
    overlap: int = 32,
    chunk: int = CHUNK_VOXELS,
    memory_bytes: int | None = None,
) -> dict[str, Any]:
    """Give how the published way differs from ``probs/NAME`` of the same model, as plain JSON.

    Shares of voxels: ``uncovered_share`` without a prediction, ``wrong_sum_share`` whose classes do
    not sum to 1 within a step of 1/255, ``other_class_share`` covered, but of another most probable
    class than ours. ``largest_step`` compares the plane between voxels across which its values
    change most with the median one of that axis and class; ``largest_step_here`` is ours.

    Raises
    ------
    MemoryBudgetError, UsageError
        As `check_legacy` does.
    """
    check_legacy(tomo.shape, len(model.classes), tile=tile, memory_bytes=memory_bytes)
    plan = LegacyPlan(tomo.shape, tile, overlap, chunk)
    statistics = tomo.attributes("raw")["statistics"]
    scale, offset = map(np.float32, tomo.quantisation)
    stored = tomo.array("raw")
    theirs, is_covered = legacy_probabilities(
        lambda box: stored[box.slices].astype(np.float32) * scale + offset,
        plan,
        model,
        (statistics["minimum"], statistics["maximum"]),
        Normalisation.from_statistics(statistics, model.normalisation),
    )
    ours = tomo.array(f"probs/{name}")[...]
    is_wrong = np.abs(theirs.sum(axis=0, dtype=np.int32) - 255) > 1
    is_other = is_covered & (theirs.argmax(axis=0) != ours.argmax(axis=0))
    return {
        "uncovered_share": 1 - float(is_covered.mean()),
        "wrong_sum_share": float(is_wrong.mean()),
        "other_class_share": float(is_other.mean()),
        "largest_step": _largest_step(theirs, tomo.shape),
        "largest_step_here": _largest_step(codes_of(ours), tomo.shape),
    }


def _stretched(
    density: NDArray[np.float32], value_range: tuple[float, float]
) -> NDArray[np.float32]:
    low, high = map(np.float32, value_range)
    least, most = density.min(), density.max()
    stretched: NDArray[np.float32] = (density - least) / ((most - least) or np.float32(1))
    stretched *= high - low
    stretched += low
    return stretched


def _blended(
    density: NDArray[np.float32], plan: LegacyPlan, model: Model
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Give weighted probabilities of a chunk, ``(c, z, y, x)``, and the sum of weights."""
    blended = np.zeros((len(model.classes), *density.shape), np.float32)
    weight = np.zeros(density.shape, np.float32)
    starts = [axis.tiles(n) for axis, n in zip(plan.axes, density.shape, strict=True)]
    for index in product(*(range(len(own)) for own in starts)):
        z, y, x = (own[k] for own, k in zip(starts, index, strict=True))
        where = Box((z, y, x), (z + plan.tile, y + plan.tile, x + plan.tile)).slices
        own = _outer(
            [
                axis.tile_weights(k, len(at))
                for axis, k, at in zip(plan.axes, index, starts, strict=True)
            ]
        )
        (probabilities,) = model(np.ascontiguousarray(density[where])[None, None])
        blended[(slice(None), *where)] += probabilities[: len(blended)] * own
        weight[where] += own
    return blended, weight


def _outer(weights: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    z, y, x = weights
    outer: NDArray[np.float32] = z[:, None, None] * y[:, None] * x
    return outer


def _largest_step(codes: NDArray[Any], shape: Zyx) -> float | None:
    steps = PlaneSteps(len(codes), shape)
    steps.add(Box.whole(shape), codes)
    return steps.largest_over_median()
