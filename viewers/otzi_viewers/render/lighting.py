"""The light of a scene in world lengths."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from otzi_viewers.render.medium import Lamp
from otzi_viewers.render.sampling import ball_points
from otzi_viewers.render.transfer import linear_color

if TYPE_CHECKING:
    from otzi_viewers.render.camera import Pose
    from otzi_viewers.render.scene import Light, Quality
    from otzi_viewers.render.source import VolumeSource
    from otzi_viewers.render.volume import Volume

__all__ = ["BALL_POINTS", "lamp_of", "viewer_lamp"]

_AO_LIFT = 0.55
_AO_TINT = (0.05, 0.07, 0.13)
_SHADOW_START_VOXELS = 1.5
_SHADOW_TINT = (0.06, 0.08, 0.16)

BALL_POINTS = 1024
"""Points of the unit ball, of which each lit point takes a run."""

# The published viewer's settings, and its colours of full occlusion and full shadow.
_VIEWER_AO_RADIUS = 0.015
_VIEWER_AO_PROBES, _VIEWER_AO_STRENGTH, _VIEWER_AO_TINT = 20, 0.9, (0.0, 0.01, 0.02)
_VIEWER_SHADOW_PROBES, _VIEWER_SHADOW_STRENGTH = 95, 0.5 * 5
_VIEWER_SHADOW_TINT, _VIEWER_SHADOW_LENGTH = (0.0, 0.015, 0.03), 0.2


def lamp_of(light: Light, quality: Quality, volume: Volume | VolumeSource, camera: Pose) -> Lamp:
    """Give the light in world lengths; the ball of ambient occlusion is lifted toward it."""
    longest = float(volume.extent_voxels.max())
    position = np.array(light.position, np.float64) * longest
    if light.attach == "camera":
        position = camera.to_world(position)
    distance = float(np.linalg.norm(position))
    upward = position / distance if distance else camera.up
    return Lamp(
        position=position,
        radius=light.radius * longest,
        shadow_start=_SHADOW_START_VOXELS,
        shadow_length=light.shadow_length * longest,
        shadow_strength=light.shadow,
        shadow_tint=np.array(_SHADOW_TINT),
        n_shadow=quality.shadow,
        ao_radius=light.occlusion_radius * longest,
        ao_centre=upward * (_AO_LIFT * light.occlusion_radius * longest),
        ao_strength=light.occlusion,
        ao_tint=np.array(_AO_TINT),
        n_ao=quality.ao,
        ball=ball_points(BALL_POINTS),
        color=linear_color(light.color),
    )


def viewer_lamp(volume: Volume | VolumeSource, camera: Pose) -> Lamp:
    """Give the light of the published viewer: its own settings, fixed to the camera.

    Its direction is one of the world, its steps are of the texture: on a box that is no cube the
    shadow falls aslant, as there.
    """
    longest = float(volume.extent_voxels.max())
    toward = camera.to_world(np.array([1.0, 1.0, 0.0]))
    toward /= np.linalg.norm(toward)
    return Lamp(
        position=toward * longest,
        radius=0.0,
        shadow_start=0.0,
        shadow_length=_VIEWER_SHADOW_LENGTH * longest,
        shadow_strength=_VIEWER_SHADOW_STRENGTH,
        shadow_tint=np.array(_VIEWER_SHADOW_TINT),
        n_shadow=_VIEWER_SHADOW_PROBES,
        ao_radius=_VIEWER_AO_RADIUS * longest,
        ao_centre=np.zeros(3),
        ao_strength=_VIEWER_AO_STRENGTH,
        ao_tint=np.array(_VIEWER_AO_TINT),
        n_ao=_VIEWER_AO_PROBES,
        ball=ball_points(BALL_POINTS),
        shadow_line=toward * _VIEWER_SHADOW_LENGTH * volume.extent_voxels,
    )
