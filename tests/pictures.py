"""Small scenes and volumes for the tests of the renderer."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
from scipy import ndimage

from otzi_viewers.render.scene import (
    Camera,
    ClassLook,
    Density,
    Light,
    Output,
    Quality,
    Scene,
)
from otzi_viewers.render.volume import Volume, packed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from otzi.tomogram import Tomogram

__all__ = [
    "DARK",
    "SEE_THROUGH",
    "add_probs",
    "blobs",
    "look",
    "scene_of",
    "uniform_volume",
]

SEE_THROUGH = Density(low=-1.0, high=0.0)
"""A density ramp that is 1 everywhere."""
DARK = Light(occlusion=0.0, shadow=0.0)
"""A light without occlusion and shadow: everything is lit alike."""


def look(
    name: str = "a", *, extinction: float = 0.05, color: str = "#ff0000", **more: Any
) -> ClassLook:
    return ClassLook(name, **{"low": 0.0, "extinction": extinction, "color": color, **more})


def scene_of(
    *looks: ClassLook,
    size: tuple[int, int] = (16, 12),
    light: Light = DARK,
    density: Density = SEE_THROUGH,
    camera: Camera | None = None,
    **quality: Any,
) -> Scene:
    """Give a complete scene, seen along z by parallel rays that all meet the box."""
    along_z = Camera(azimuth=0, elevation=0, projection="orthographic", distance=0.5)
    return Scene(
        classes=looks or (look(),),
        density=density,
        light=light,
        camera=camera or along_z,
        quality=replace(Quality(spp=1, ao=4, shadow=5), **quality),
        output=Output(size=size),
    )


def uniform_volume(
    *values: float, shape: tuple[int, int, int] = (10, 12, 14), spacing: Any = (1.0, 1.0, 1.0)
) -> Volume:
    """Give a volume of one class for each value, the same everywhere; density 1."""
    probabilities = np.stack([np.full(shape, value, np.float32) for value in values])
    return packed(probabilities, np.ones(shape, np.float32), spacing)


def blobs(
    shape: tuple[int, int, int] = (22, 26, 35),
    *,
    n_classes: int = 2,
    share: float = 0.3,
    spacing: Any = (1.0, 1.0, 1.0),
    seed: int = 0,
) -> Volume:
    """Give smooth blobs of 8 bits in a volume of which this share is not empty."""
    noise = np.random.default_rng(seed).normal(size=(n_classes + 1, *shape))
    smooth = ndimage.gaussian_filter(noise, (0, 2, 2, 2)).astype(np.float32)
    floor = np.quantile(smooth, 1 - share, axis=(1, 2, 3), keepdims=True)
    values = np.clip((smooth - floor) / (smooth.max(axis=(1, 2, 3), keepdims=True) - floor), 0, 1)
    codes = np.rint(values * 255).astype(np.uint8)
    density = np.clip(0.5 + smooth[-1], 0, 1)
    return packed(codes[:-1], density, spacing)


def add_probs(tomo: Tomogram, name: str, drawn: NDArray[np.uint8], classes: Sequence[str]) -> None:
    """Publish probabilities: `drawn` for all classes but the first, which has what is left."""
    rest = 255 - drawn.sum(axis=0, keepdims=True)
    values = np.concatenate([rest, drawn]).astype(np.uint8)
    with tomo.write(
        f"probs/{name}", dtype=np.uint8, recipe={}, shape=drawn.shape[1:], channels=classes
    ) as writer:
        da.store(da.from_array(values, chunks=(-1, 64, 64, 64)), writer, lock=False)
