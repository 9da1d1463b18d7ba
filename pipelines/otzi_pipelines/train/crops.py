"""Random boxes of density and labels, drawn from many tomograms; only what is drawn is read.

Crop i of a seed is always the same, whatever was drawn before it: training resumes by its step.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from otzi.box import Box
from otzi.errors import ConfigurationError
from otzi.normalise import ROBUST, Normalisation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from otzi.box import Zyx
    from otzi.tomogram import Tomogram

__all__ = ["Crop", "CropSource", "LabelledVolume", "class_names", "covering_boxes", "cut"]

_CONTENT_LEVEL = 2
_BLOCK_VOXELS = 32


@dataclass(frozen=True, slots=True)
class Crop:
    """A cube of a tomogram with what is known of it, as stored."""

    volume: LabelledVolume
    box: Box
    """What was read; beyond it, in a thin volume, is padding."""
    density: NDArray[Any]
    """``(z, y, x)``; what is meant is `LabelledVolume.quantisation` and `normalisation` of it."""
    labels: NDArray[Any]
    """``(c, z, y, x)`` soft, all 0 where nothing is known; or hard, ``(z, y, x)`` the class, any
    other number where nothing is known."""

    def __str__(self) -> str:
        spans = zip("zyx", self.box.start, self.box.stop, strict=True)
        return f"{self.volume.id}, {', '.join(f'{a} {i} to {j}' for a, i, j in spans)}"


class LabelledVolume:
    """A tomogram with labels, read box by box, from any thread.

    Raises
    ------
    ConfigurationError
        If the labels have another shape or voxel size than the density.
    """

    def __init__(self, tomo: Tomogram, labels: str, normalisation: str = ROBUST) -> None:
        product = f"labels/{labels}"
        image = tomo.image(product)
        self.id = tomo.id
        self.shape: Zyx = tomo.shape
        self.classes = class_names(tomo, labels)
        self.normalisation = Normalisation.of(tomo.raw, normalisation)
        """Of true values."""
        self.quantisation = tomo.quantisation
        """Scale and offset: true values are ``stored · scale + offset``."""
        self._density = tomo.array("raw")
        self._labels = tomo.array(product)
        _check_fit(tomo, product, self._labels.shape)
        level = min(_CONTENT_LEVEL, image.n_levels - 1)
        self.content = _content(
            tomo.array(product, level)[...], len(self.classes), _BLOCK_VOXELS >> level
        )
        """``(c, z, y, x)`` float32: how much of each class lies in blocks of 32 voxels."""

    def read(self, box: Box, crop_voxels: int) -> Crop:
        """Give a cube that begins with a box inside the volume.

        Beyond the box the density is its reflection, and nothing is known of the classes.
        """
        density, labels = self._density[box.slices], self._labels[(..., *box.slices)]
        missing = [(0, crop_voxels - n) for n in box.shape]
        if any(after for _, after in missing):
            density = np.pad(density, missing, mode="reflect")
            if labels.ndim == 4:
                labels = np.pad(labels, [(0, 0), *missing])
            else:
                nothing = np.iinfo(labels.dtype).max
                labels = np.pad(labels, missing, constant_values=nothing)
        return Crop(self, box, density, labels)


def class_names(tomo: Tomogram, labels: str) -> tuple[str, ...]:
    """Give what the labels of a tomogram tell apart: hard ones have it in an attribute only."""
    product = f"labels/{labels}"
    named = tomo.image(product).channels or tomo.attributes(product).get("classes")
    return tuple(named or tomo.classes.names)


def _check_fit(tomo: Tomogram, product: str, shape: tuple[int, ...]) -> None:
    spacing = tomo.image(product).spacing_angstrom
    for what, found, wanted in (
        ("voxels", shape[-3:], tomo.shape),
        ("Å a voxel", spacing, tomo.spacing_angstrom),
    ):
        if not np.allclose(found, wanted):
            raise ConfigurationError(
                f"{product} of {tomo.id} has {found} {what} (z, y, x), its raw {wanted}: label it "
                "again"
            )


def cut(shape: Zyx, held_out: float) -> tuple[Box, Box]:
    """Give the part to train on, and the rest: the last `held_out` of the longest axis.

    Raises
    ------
    ConfigurationError
        If the longest axis is too short to be cut.
    """
    longest = int(np.argmax(shape))
    if shape[longest] < 2:
        raise ConfigurationError(f"a volume of {shape} voxels cannot be cut into two: leave it out")
    at = min(max(1, round(shape[longest] * (1 - held_out))), shape[longest] - 1)
    start, stop = [0, 0, 0], list(shape)
    start[longest] = stop[longest] = at
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
    ) -> None:
        if not 1 <= grid_voxels <= crop_voxels:
            raise ConfigurationError(
                f"grid_voxels = {grid_voxels} must be 1 to crop_voxels, {crop_voxels}"
            )
        self.volumes = tuple(volumes)
        self.crop_voxels = crop_voxels
        self.seed = seed
        self.balance = balance
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
            *(blocks.content for blocks in self._blocks)
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
        return self.volumes[i].read(box, self.crop_voxels)

    def place(self, index: int) -> tuple[int, Box]:
        """Give which volume crop `index` is of, and the box that is read of it."""
        rng = np.random.default_rng((self.seed, index, 0))
        i = int(rng.integers(len(self.volumes)))
        origins, blocks, region = self._origins[i], self._blocks[i], self._regions[i]
        if blocks.content and rng.random() < self.balance:
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

    starts: NDArray[np.int32]
    """``(n, 3)`` z, y, x."""
    content: dict[int, NDArray[np.float32]]
    """``(n,)`` for each channel that is there: how much of it lies in each block."""

    @classmethod
    def inside(cls, volume: LabelledVolume, region: Box) -> _Blocks:
        """Give the blocks of a volume that reach into a region."""
        starts = np.indices(volume.content.shape[1:], np.int32).reshape(3, -1).T * _BLOCK_VOXELS
        inside = ((starts + _BLOCK_VOXELS > region.start) & (starts < region.stop)).all(axis=1)
        content = volume.content.reshape(len(volume.content), -1)[:, inside]
        return cls(starts[inside], {c: mass for c, mass in enumerate(content) if mass.any()})

    def draw(self, rng: np.random.Generator) -> Box:
        """Give a block with a class, each class alike."""
        channels = sorted(self.content)
        mass = self.content[channels[rng.integers(len(channels))]].astype(np.float64)
        z, y, x = (int(v) for v in self.starts[rng.choice(len(mass), p=mass / mass.sum())])
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


def _content(labels: NDArray[Any], n_classes: int, block: int) -> NDArray[np.float32]:
    """Give ``(c, z, y, x)``: the sum of each class over cubes of `block` voxels."""
    content = []
    for c in range(n_classes):
        mass = np.nan_to_num(labels[c]) if labels.ndim == 4 else labels == c
        for axis in range(3):
            starts = range(0, mass.shape[axis], block)
            mass = np.add.reduceat(mass, starts, axis=axis, dtype=np.float64)
        content.append(mass.astype(np.float32))
    return np.stack(content)
