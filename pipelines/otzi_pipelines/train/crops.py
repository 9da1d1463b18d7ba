"""Random boxes of density and labels, drawn from many tomograms; only what is drawn is read.

Crop i of a seed is always the same, whatever was drawn before it: training resumes by its step.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from otzi.box import Box
from otzi.errors import ConfigurationError
from otzi.tiles.density import NormalisedDensity

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Sequence

    from numpy.typing import NDArray

    from otzi.box import Zyx
    from otzi.tomogram import Tomogram

    Batch = tuple[NDArray[np.float32], NDArray[np.float32]]

__all__ = ["Crop", "CropSource", "LabelledVolume", "batches", "covering_boxes", "split"]

_CONTENT_LEVEL = 2
_BLOCK_VOXELS = 32
_BATCHES_AHEAD = 2


@dataclass(frozen=True, slots=True)
class Crop:
    """A cube of a tomogram with what is known of it."""

    density: NDArray[np.float32]
    """``(z, y, x)``, normalised with its whole volume."""
    target: NDArray[np.float32]
    """``(c, z, y, x)`` in [0, 1], summing to 1 over c; all 0 where nothing is known."""


class LabelledVolume:
    """A tomogram with labels, read box by box, from any thread.

    Soft labels are ``(c, z, y, x)``; hard ones ``(z, y, x)``, the class or any other number where
    nothing is known.
    """

    def __init__(self, tomo: Tomogram, labels: str) -> None:
        product = f"labels/{labels}"
        image = tomo.image(product)
        self.id = tomo.id
        self.shape: Zyx = tomo.shape
        self.classes = _class_names(tomo, product)
        self._density = NormalisedDensity(tomo)
        self._labels = tomo.array(product)
        level = min(_CONTENT_LEVEL, image.n_levels - 1)
        self.content = _content(
            tomo.array(product, level)[...], len(self.classes), _BLOCK_VOXELS >> level
        )
        """``(c, z, y, x)`` float64: how much of each class lies in blocks of 32 voxels."""

    def read(self, box: Box, crop_voxels: int) -> Crop:
        """Give a cube that begins with a box inside the volume.

        Beyond the box the density is its reflection, and nothing is known of the classes.
        """
        missing = [(0, crop_voxels - n) for n in box.shape]
        target = _soft(self._labels[(..., *box.slices)], len(self.classes))
        return Crop(
            np.pad(self._density(box), missing, mode="reflect"),
            np.pad(target, [(0, 0), *missing]),
        )


def _class_names(tomo: Tomogram, product: str) -> tuple[str, ...]:
    """Give what labels of a tomogram tell apart: hard ones have it in an attribute only."""
    named = tomo.image(product).channels or tomo.attributes(product).get("classes")
    return tuple(named or tomo.classes.names)


def split(shape: Zyx, held_out: float) -> tuple[Box, Box]:
    """Give the part to train on, and the rest: the last `held_out` of the longest axis.

    Raises
    ------
    ConfigurationError
        If the longest axis is too short to be cut.
    """
    longest = int(np.argmax(shape))
    if shape[longest] < 2:
        raise ConfigurationError(f"a volume of {shape} voxels cannot be cut into two: leave it out")
    cut = min(max(1, round(shape[longest] * (1 - held_out))), shape[longest] - 1)
    start, stop = [0, 0, 0], list(shape)
    start[longest] = stop[longest] = cut
    (z0, y0, x0), (z1, y1, x1) = start, stop
    return Box((0, 0, 0), (z1, y1, x1)), Box((z0, y0, x0), shape)


class CropSource:
    """Reproducible random crops: ``source[i]``; nothing outside the regions is read.

    Parameters
    ----------
    volumes, regions
        What to draw from, and which part of each.
    crop_voxels
        Side of a crop.
    seed
        Of all that is random.
    grid_voxels
        Crops begin at multiples of this, or end with the region.
    balance
        Share of the crops that are drawn around a place where a certain class is, each class
        alike; the others are drawn from everywhere alike.
    turns
        Whether crops are flipped on any axis and turned about z by quarters.

    Raises
    ------
    ConfigurationError
        If the grid is wider than a crop, or there is nothing labelled to draw from.
    """

    def __init__(
        self,
        volumes: Sequence[LabelledVolume],
        regions: Sequence[Box],
        crop_voxels: int,
        *,
        seed: int,
        grid_voxels: int = 32,
        balance: float = 0.5,
        turns: bool = True,
    ) -> None:
        if not 1 <= grid_voxels <= crop_voxels:
            raise ConfigurationError(
                f"grid_voxels = {grid_voxels} must be 1 to crop_voxels, {crop_voxels}"
            )
        self.volumes = tuple(volumes)
        self.crop_voxels = crop_voxels
        self.seed = seed
        self.balance = balance
        self.turns = turns
        self._regions = tuple(regions)
        self._origins = [
            [
                _origins(start, stop, crop_voxels, grid_voxels)
                for start, stop in zip(region.start, region.stop, strict=True)
            ]
            for region in regions
        ]
        self._blocks = [
            _Blocks.inside(volume, region) for volume, region in zip(volumes, regions, strict=True)
        ]
        self.classes_present: frozenset[int] = frozenset().union(
            *(blocks.shares for blocks in self._blocks)
        )
        """Channels that occur anywhere in the regions."""
        if not self.classes_present:
            raise ConfigurationError(
                f"nothing is labelled in the part to train on of "
                f"{', '.join(volume.id for volume in volumes) or 'no tomogram'}: label more of it"
            )

    def __getitem__(self, index: int) -> Crop:
        """Give crop `index` of the seed."""
        i, box = self.place(index)
        crop = self.volumes[i].read(box, self.crop_voxels)
        return _turned(crop, np.random.default_rng((self.seed, index, 1))) if self.turns else crop

    def place(self, index: int) -> tuple[int, Box]:
        """Give which volume crop `index` is of, and the box that is read of it."""
        rng = np.random.default_rng((self.seed, index, 0))
        i = int(rng.integers(len(self.volumes)))
        origins, blocks, region = self._origins[i], self._blocks[i], self._regions[i]
        if blocks.shares and rng.random() < self.balance:
            block = blocks.draw(rng).intersect(region)
            origins = [
                _holding(axis, self.crop_voxels, start, stop)
                for axis, start, stop in zip(origins, block.start, block.stop, strict=True)
            ]
        z, y, x = (int(rng.choice(axis)) for axis in origins)
        return i, _cube((z, y, x), self.crop_voxels).intersect(region)


@dataclass(frozen=True, slots=True)
class _Blocks:
    """Where each class is, in blocks of 32 voxels."""

    starts: NDArray[np.int64]
    """``(n, 3)`` z, y, x."""
    shares: dict[int, NDArray[np.float64]]
    """``(n,)`` for each channel that is there: the share of its voxels in each block."""

    @classmethod
    def inside(cls, volume: LabelledVolume, region: Box) -> _Blocks:
        """Give the blocks of a volume that reach into a region."""
        starts = np.indices(volume.content.shape[1:]).reshape(3, -1).T * _BLOCK_VOXELS
        inside = ((starts + _BLOCK_VOXELS > region.start) & (starts < region.stop)).all(axis=1)
        content = volume.content.reshape(len(volume.content), -1)[:, inside]
        shares = {c: mass / mass.sum() for c, mass in enumerate(content) if mass.any()}
        return cls(starts[inside], shares)

    def draw(self, rng: np.random.Generator) -> Box:
        """Give a block with a class, each class alike."""
        channels = sorted(self.shares)
        share = self.shares[channels[rng.integers(len(channels))]]
        z, y, x = (int(v) for v in self.starts[rng.choice(len(share), p=share)])
        return _cube((z, y, x), _BLOCK_VOXELS)


def covering_boxes(region: Box, crop_voxels: int) -> list[Box]:
    """Give boxes of `crop_voxels` that cover a region; the last of an axis overlaps another.

    Where the region is thinner, so are they.
    """
    origins = (_origins(0, n, crop_voxels, crop_voxels) for n in region.shape)
    return [
        _cube((z, y, x), crop_voxels).shift(region.start).intersect(region)
        for z, y, x in product(*origins)
    ]


def batches(source: CropSource, steps: Iterable[int], batch: int) -> Generator[Batch, None, None]:
    """Yield for each step ``(b, 1, z, y, x)`` density and ``(b, c, z, y, x)`` target.

    The next batches are read while one is in use.
    """

    def read(step: int) -> Batch:
        crops = [source[step * batch + i] for i in range(batch)]
        return np.stack([c.density[None] for c in crops]), np.stack([c.target for c in crops])

    ahead: deque[Future[Batch]] = deque()
    with ThreadPoolExecutor(max_workers=_BATCHES_AHEAD) as pool:
        for step in steps:
            ahead.append(pool.submit(read, step))
            if len(ahead) > _BATCHES_AHEAD:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def _origins(start: int, stop: int, crop: int, grid: int) -> list[int]:
    last = max(start, stop - crop)
    aligned = range(-(-start // grid) * grid, last, grid)
    return sorted({start, last, *aligned})


def _holding(origins: list[int], crop: int, start: int, stop: int) -> list[int]:
    """Give the origins whose crops hold most of a block; all of it, if they are wider."""
    held = [min(o + crop, stop) - max(o, start) for o in origins]
    most = max(held)
    return [o for o, n in zip(origins, held, strict=True) if n == most]


def _cube(start: Zyx, side: int) -> Box:
    z, y, x = start
    return Box(start, (z + side, y + side, x + side))


def _soft(labels: NDArray[Any], n_classes: int) -> NDArray[np.float32]:
    """Give ``(c, z, y, x)`` in [0, 1] of soft labels, or of hard ones ``(z, y, x)``."""
    if labels.ndim == 3:
        return np.asarray(labels == np.arange(n_classes)[:, None, None, None], np.float32)
    soft = labels.astype(np.float32)
    return soft / np.float32(255) if labels.dtype == np.uint8 else soft


def _content(labels: NDArray[Any], n_classes: int, block: int) -> NDArray[np.float64]:
    """Give ``(c, z, y, x)``: the sum of each class over cubes of `block` voxels."""
    content = []
    for c in range(n_classes):
        mass = labels[c] if labels.ndim == 4 else labels == c
        for axis in range(3):
            starts = range(0, mass.shape[axis], block)
            mass = np.add.reduceat(mass, starts, axis=axis, dtype=np.float64)
        content.append(mass)
    return np.stack(content)


def _turned(crop: Crop, rng: np.random.Generator) -> Crop:
    flipped = tuple(axis for axis in (-3, -2, -1) if rng.random() < 0.5)
    quarters = int(rng.integers(4))
    density, target = (
        np.ascontiguousarray(np.rot90(np.flip(values, flipped), quarters, axes=(-2, -1)))
        for values in (crop.density, crop.target)
    )
    return Crop(density, target)
