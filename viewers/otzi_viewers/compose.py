"""What the shader draws, in NumPy: the reference of its tests, and pictures without a browser.

Every value is float32 and computed in the shader's order, so that slices agree to the grey level.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from otzi.classes import rgb_of
from otzi.pseudo.uncertainty import entropy
from otzi.ramps import ramp

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from otzi_viewers.style import Style

__all__ = [
    "classes_over",
    "front_to_back",
    "project",
    "slice_color",
    "slice_image",
    "uncertainty_color",
]


def classes_over(values: NDArray[np.uint8], style: Style) -> NDArray[np.float32]:
    """Give the shown classes over each other, ``(…, 4)`` float32: red, green, blue · alpha, alpha.

    `values` are ``(c, …)`` uint8, channel 0 being the density.
    """
    density = _windowed(values, style)
    strength = 1 - np.float32(style.modulation) * (1 - density)
    total = np.zeros((*values.shape[1:], 4), np.float32)
    for c in style.classes:
        if not c.shown:
            continue
        ramped = ramp(values[c.channel] / np.float32(255), c.low)
        alpha = (np.float32(c.opacity) * strength * ramped)[..., None]
        total = total * (1 - alpha) + np.array([*c.rgb, 1], np.float32) * alpha
    return total


def slice_color(values: NDArray[np.uint8], style: Style) -> NDArray[np.float32]:
    """Give the colours of a slice, ``(…, 3)`` float32 in [0, 1], of ``(c, …)`` uint8.

    On black, where the style shows no density.
    """
    total = classes_over(values, style)
    if not style.shows_density:
        return total[..., :3]
    return total[..., :3] + (_windowed(values, style) * (1 - total[..., 3]))[..., None]


def slice_image(values: NDArray[np.uint8], style: Style) -> NDArray[np.uint8]:
    """Give the picture of a slice: ``(rows, columns, 3)`` uint8 of ``(c, rows, columns)`` uint8."""
    return np.rint(np.clip(slice_color(values, style), 0, 1) * 255).astype(np.uint8)


def uncertainty_color(
    values: NDArray[np.uint8], color: str, opacity: float, *, low: float = 0.0, margin: bool = False
) -> NDArray[np.float32]:
    """Give how unsure the classes are, ``(…, 4)`` float32: red, green, blue · alpha, alpha.

    `values` are ``(c, …)`` uint8, channel 0 being the density.
    """
    probabilities = values[1:] / np.float32(255)
    if margin:
        second, first = np.sort(probabilities, axis=0)[-2:]
        unsure = 1 - (first - second)
    else:
        unsure = entropy(probabilities)
    alpha = np.float32(opacity) * ramp(unsure, low)
    return alpha[..., None] * np.array([*rgb_of(color), 1], np.float32)


def front_to_back(samples: NDArray[np.float32], step_voxels: float) -> NDArray[np.float32]:
    """Give what is seen along axis 0, ``(…, 4)`` float32 with rgb · alpha, of ``(n, …, 4)``.

    The alpha of a sample is that of one voxel; its step is `step_voxels` long.
    """
    color = np.zeros((*samples.shape[1:-1], 3), np.float32)
    revealage = np.ones((*samples.shape[1:-1], 1), np.float32)
    for sample in samples:
        alpha = 1 - (1 - sample[..., 3:]) ** np.float32(step_voxels)
        color += sample[..., :3] / np.maximum(sample[..., 3:], 1e-6) * alpha * revealage
        revealage *= 1 - alpha
    return np.concatenate([color, 1 - revealage], axis=-1)


def project(
    volume: NDArray[np.uint8], style: Style, n_samples: int, gain: float = 1.0
) -> NDArray[np.float32]:
    """Give the 3-D view along z, the first slice in front: ``(y, x, 4)`` float32 with rgb · alpha.

    Parameters
    ----------
    volume
        ``(c, z, y, x)`` uint8, channel 0 being the density.
    style
        What is drawn, and how.
    n_samples
        Along a ray through the whole volume, from face to face.
    gain
        What the lengths of steps are multiplied by: 2ⁿ, where opacities are those of level 0 and
        this is level n.
    """
    depth = volume.shape[1]
    step_voxels = depth / (n_samples - 1)
    planes = np.minimum((np.arange(n_samples) * step_voxels).astype(int), depth - 1)
    samples = classes_over(volume[:, planes], style)
    return front_to_back(samples, step_voxels * gain)


def _windowed(values: NDArray[np.uint8], style: Style) -> NDArray[np.float32]:
    return ramp(values[0] / np.float32(255), style.density_low, style.density_high)
