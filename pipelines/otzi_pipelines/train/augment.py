"""What is changed in crops, on the device of the network.

How crop i of a seed is changed is a function of both, whatever else is in its batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, cos, radians, sin
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from otzi_pipelines.train.settings import TrainSettings

__all__ = ["Change", "blurred", "rotated"]

_PLANE_AXES = (-2, -1)
_TRUNCATED_AT = 3
"""Standard deviations at which the kernel of a blur ends."""


@dataclass(frozen=True, slots=True)
class Change:
    """All that is changed in one crop."""

    flips: tuple[int, ...] = ()
    """Axes, from the last: -3 is z."""
    quarters: int = 0
    """Turns about z."""
    rotation_degrees: float = 0.0
    """About z."""
    blur_voxels: float = 0.0
    gain: float = 1.0
    offset: float = 0.0
    noise: float = 0.0
    """Standard deviations; the density of a volume has 1."""
    noise_seed: int = 0

    @classmethod
    def draw(cls, settings: TrainSettings, index: int) -> Change:
        """Give how crop `index` of the settings' seed is changed."""
        rng = np.random.default_rng((settings.seed, index, 1))
        flips: tuple[int, ...] = ()
        quarters = 0
        if settings.turns:
            flips = tuple(axis for axis in (-3, -2, -1) if rng.random() < 0.5)
            quarters = int(rng.integers(4))
        limits = settings.augmentation
        # All are drawn, used or not: what is off changes nothing of the others.
        gain, offset = rng.normal(size=2)
        noise, blur, angle = rng.random(3)
        return cls(
            flips,
            quarters,
            rotation_degrees=float(limits.rotation_degrees * (2 * angle - 1)),
            blur_voxels=float(limits.blur_voxels * blur),
            gain=float(np.exp(limits.gain * gain)),
            offset=float(limits.offset * offset),
            noise=float(limits.noise * noise),
            noise_seed=int(rng.integers(2**63)),
        )

    def __call__(self, density: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Give the changed crop.

        Parameters
        ----------
        density
            ``(z, y, x)`` float32; y and x are as many, where there are quarter turns.
        target
            ``(c, z, y, x)`` float32; of what a rotation brings in from outside nothing is known.
        """
        density, target = (
            torch.rot90(values.flip(self.flips), self.quarters, _PLANE_AXES)
            for values in (density, target)
        )
        if self.rotation_degrees:
            density = rotated(density[None], self.rotation_degrees, "bilinear", "reflection")[0]
            target = rotated(target, self.rotation_degrees, "nearest", "zeros")
        if self.blur_voxels:
            density = blurred(density, self.blur_voxels)
        if (self.gain, self.offset) != (1, 0):
            density = density * self.gain + self.offset
        if self.noise:
            generator = torch.Generator(density.device).manual_seed(self.noise_seed)
            noise = torch.randn(density.shape, generator=generator, device=density.device)
            density = density + self.noise * noise
        return density, target


def rotated(volume: Tensor, degrees: float, mode: str, padding: str) -> Tensor:
    """Give a volume turned about z, from y towards x, around its middle.

    Parameters
    ----------
    volume
        ``(c, z, y, x)`` float32.
    degrees
        The angle.
    mode, padding
        Between voxels and outside, as `torch.nn.functional.grid_sample` calls them.
    """
    c, z, y, x = volume.shape
    # Where each voxel comes from, as shares of the half extents: x first, as grid_sample has it.
    cosine, sine = cos(radians(degrees)), sin(radians(degrees))
    source = torch.tensor([[[cosine, -sine * y / x, 0], [sine * x / y, cosine, 0]]])
    planes = volume.reshape(1, c * z, y, x)
    grid = functional.affine_grid(source, [1, c * z, y, x], align_corners=False).to(volume)
    turned = functional.grid_sample(planes, grid, mode, padding, align_corners=False)
    return turned.reshape(volume.shape)


def blurred(density: Tensor, sd_voxels: float) -> Tensor:
    """Give ``(z, y, x)`` after a Gaussian blur; its reflection is beyond its border."""
    radius = min(ceil(_TRUNCATED_AT * sd_voxels), *(n - 1 for n in density.shape))
    places = torch.arange(-radius, radius + 1, device=density.device)
    kernel = torch.exp(-0.5 * (places / sd_voxels) ** 2)
    kernel = (kernel / kernel.sum()).to(density.dtype)
    image = density[None, None]
    for axis in range(3):
        pad, shape = [0] * 6, [1] * 5
        pad[4 - 2 * axis : 6 - 2 * axis] = radius, radius
        shape[2 + axis] = len(kernel)
        image = functional.conv3d(functional.pad(image, pad, "reflect"), kernel.view(shape))
    return image[0, 0]
