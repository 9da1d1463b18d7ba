"""From linear light to what a screen shows: glow, tone curve, background, sRGB.  Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from otzi.classes import rgb_of
from otzi_viewers.render.camera import pose
from otzi_viewers.render.scale_bar import with_scale_bar
from otzi_viewers.render.transfer import linear_color

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from otzi_viewers.render.scene import Output, Scene
    from otzi_viewers.render.source import VolumeSource
    from otzi_viewers.render.volume import Volume

__all__ = ["display", "glow", "shown", "srgb_encoded", "tone_mapped"]

_KNEE = (0.4, 1.0)
_GLOW_RADIUS = 20 / 1280
"""r of the published viewer's ``exp(−(1.5 i/r)²)``, in units of the picture's longer side."""
_SHOULDER = 0.6
"""Linear light above which the tone curve bends."""
_LUMINANCE = np.array([0.2126, 0.7152, 0.0722], np.float32)


def display(
    rgba: NDArray[np.float32], output: Output, *, is_light: bool = True
) -> NDArray[np.float32]:
    """Give the picture as it is shown: ``(rows, columns, 3)`` float32 in [0, 1], sRGB.

    Where `rgba`, premultiplied, is empty and nothing glows, it is the background. If it is not
    light (the published viewer and the baselines mix what a screen shows), it is only laid over
    the background.
    """
    if not is_light:
        shown = np.array(rgb_of(output.background), np.float32)
        return np.clip(rgba[..., :3] + (1 - rgba[..., 3:]) * shown, 0, 1)
    light = rgba[..., :3] * np.float32(output.exposure)
    light += np.float32(output.bloom) * glow(light)
    behind = linear_color(output.background).astype(np.float32)
    return srgb_encoded(tone_mapped(light) + (1 - rgba[..., 3:]) * behind)


def shown(
    rgba: NDArray[np.float32], scene: Scene, volume: Volume | VolumeSource
) -> NDArray[np.float32]:
    """Give `display` of a scene's picture, with the scale bar that it asks for."""
    picture = display(rgba, scene.output, is_light=scene.quality.look == "physical")
    if not scene.output.scale_bar:
        return picture
    view = pose(scene.camera, scene.output.size, volume.extent_voxels)
    return with_scale_bar(picture, view.voxels_per_pixel * volume.voxel_angstrom)


def glow(light: NDArray[np.float32]) -> NDArray[np.float32]:
    """Give the bright parts of linear light, ``(rows, columns, 3)``, blurred.

    A soft knee on the luminance, where the published viewer cuts hard: a cut flickers in movies.
    """
    low, high = _KNEE
    share = np.clip((light @ _LUMINANCE - low) / (high - low), 0, 1)
    bright = light * (share * share * (3 - 2 * share))[..., None]
    radius = _GLOW_RADIUS * max(light.shape[:2])
    sigma = radius / (1.5 * np.sqrt(2))
    blurred: NDArray[np.float32] = ndimage.gaussian_filter(
        bright, sigma, axes=(0, 1), mode="constant"
    )
    return blurred


def tone_mapped(light: NDArray[np.float32]) -> NDArray[np.float32]:
    """Give linear light compressed into [0, 1): as it is up to a shoulder, then ever slower.

    The curve acts on the largest channel and the others keep their share, so a class is seen in
    its own hue however bright it is lit.
    """
    largest = light.max(axis=-1, keepdims=True)
    room = np.float32(1 - _SHOULDER)
    over = np.maximum(largest - np.float32(_SHOULDER), 0)
    compressed = np.minimum(largest, np.float32(_SHOULDER)) + room * (1 - np.exp(-over / room))
    return light * np.where(over > 0, compressed / np.maximum(largest, _SHOULDER), 1)


def srgb_encoded(light: NDArray[np.float32]) -> NDArray[np.float32]:
    """Give linear values in [0, 1] in the sRGB encoding (IEC 61966-2-1)."""
    light = np.clip(light, 0, 1)
    low = light * np.float32(12.92)
    high = np.float32(1.055) * light ** np.float32(1 / 2.4) - np.float32(0.055)
    return np.where(light <= np.float32(0.0031308), low, high)
