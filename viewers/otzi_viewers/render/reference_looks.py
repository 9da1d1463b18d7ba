"""The reference of the kernel's other looks: see `otzi_viewers.render.reference`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from otzi_viewers.render.reference_fields import (
    LEAST_TRANSMITTANCE,
    WHOLE_RAY,
    Rays,
    clipped_at,
    masks_at,
    ramps_at,
    values_at,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from otzi_viewers.render.medium import Lamp, Medium, Rules

__all__ = ["maximum_look", "plain_look", "surface_look", "viewer_look"]

_VIEWER_STEP, _VIEWER_UNIT_STEP = 0.001, 0.0025


def viewer_look(
    found: NDArray[np.void], rays: Rays, medium: Medium, lamp: Lamp, rules: Rules
) -> None:
    """Put in what the published viewer draws, quirks and all: classes one after the other."""
    steps = rules.step / (rays.directions @ np.asarray(rules.forward))
    jitter = rays.draw(slice(None), WHOLE_RAY, 0)
    color, opacity = np.zeros((len(found), 3)), np.zeros(len(found))
    index = 0
    while True:
        along = rays.near + (index + jitter) * steps
        live = np.flatnonzero((along < rays.far) & (opacity < 1))
        if not live.size:
            break
        points = rays.points(live, along[live])
        ramps = ramps_at(medium, points)
        is_seen = (ramps[:, :-1].sum(axis=1) > 0.2) & (ramps[:, -1] > 0.1)
        seen, points, ramps = live[is_seen], points[is_seen], ramps[is_seen]
        found["depth"][seen] = np.minimum(found["depth"][seen], along[seen])
        occluded = _viewer_occlusion(medium, lamp, points, rays, seen, index)
        shaded = _viewer_shadow(medium, lamp, points)
        is_clipped = clipped_at(medium, points)
        for channel, class_color in enumerate(medium.color):
            part = ramps[:, channel] * ramps[:, -1] * (_VIEWER_STEP / _VIEWER_UNIT_STEP)
            part[is_clipped[:, channel]] = 0
            lit = class_color + (lamp.ao_tint - class_color) * occluded[:, None]
            lit = lit + (lamp.shadow_tint - lit) * shaded[:, None]
            color[seen] += ((1 - opacity[seen]) * part)[:, None] * lit
            opacity[seen] += (1 - opacity[seen]) * part
        opacity[opacity >= 0.8] = 1
        index += 1
    found["color"], found["transmittance"] = 1.5 * color, 1 - opacity


def _viewer_occlusion(
    medium: Medium,
    lamp: Lamp,
    points: NDArray[np.float64],
    rays: Rays,
    seen: NDArray[np.int64],
    index: int,
) -> NDArray[np.float64]:
    """Give the share of what is around that is empty: the sign is the viewer's own."""
    draws = np.stack([rays.draw(seen, index, n) for n in range(4 * lamp.n_ao)], axis=1)
    draws = draws.reshape(-1, lamp.n_ao, 4)
    way = 2 * draws[..., :3] - 1
    way /= np.maximum(np.linalg.norm(way, axis=-1, keepdims=True), 1e-9)
    reach = lamp.ao_radius * (0.2 + 0.5 * draws[..., 3:])
    filled = masks_at(medium, points[:, None] + way * reach)
    mean: NDArray[np.float64] = np.clip(1 - filled, 0, 1).mean(axis=1)
    return np.clip(lamp.ao_strength * mean, 0, 1)


def _viewer_shadow(medium: Medium, lamp: Lamp, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give what stands on a straight line toward the light."""
    along = 0.05 + 0.95 * np.arange(lamp.n_shadow)[:, None] / lamp.n_shadow
    filled = np.minimum(masks_at(medium, points[:, None] + along * np.asarray(lamp.shadow_line)), 1)
    mean: NDArray[np.float64] = np.clip((filled - 0.97) / 0.02, 0, 1).mean(axis=1)
    return np.clip(lamp.shadow_strength * mean, 0, 1)


def plain_look(
    found: NDArray[np.void], rays: Rays, medium: Medium, lamp: Lamp, rules: Rules
) -> None:
    """Put in the density alone, by Beer and Lambert, unlit."""
    jitter = rays.draw(slice(None), WHOLE_RAY, 0)
    transmittance, depth = np.ones(len(found)), np.full(len(found), np.inf)
    for index in range(_n_steps(rays, rules)):
        start = rays.near + index * rules.step
        live = np.flatnonzero((start < rays.far) & (transmittance >= LEAST_TRANSMITTANCE))
        length = np.minimum(rules.step, rays.far[live] - start[live])
        density = ramps_at(medium, rays.points(live, start[live] + jitter[live] * length))[:, -1]
        before = transmittance[live]
        after = before * np.exp(-medium.extinction[0] * density * length)
        crosses = (before > 0.5) & (after <= 0.5)
        depth[live[crosses]] = start[live[crosses]]
        transmittance[live] = after
    found["color"] = 1 - transmittance[:, None]
    found["transmittance"], found["depth"] = transmittance, depth


def maximum_look(
    found: NDArray[np.void], rays: Rays, medium: Medium, lamp: Lamp, rules: Rules
) -> None:
    """Put in the largest density on the way."""
    most, depth = np.zeros(len(found)), np.full(len(found), np.inf)
    for index in range(_n_steps(rays, rules)):
        along = rays.near + index * rules.step
        value = ramps_at(medium, rays.points(slice(None), along))[:, -1]
        better = (along < rays.far) & (value > most)
        most[better], depth[better] = value[better], along[better]
    found["color"], found["transmittance"], found["depth"] = most[:, None], 1 - most, depth


def surface_look(
    found: NDArray[np.void], rays: Rays, medium: Medium, lamp: Lamp, rules: Rules
) -> None:
    """Put in where the density first passes a value, as bright as it faces the eye."""

    def density(points: NDArray[np.float64]) -> NDArray[np.float64]:
        return values_at(medium, points)[:, -1]

    before, is_open = np.zeros(len(found)), np.ones(len(found), bool)
    for index in range(_n_steps(rays, rules)):
        along = rays.near + index * rules.step
        value = density(rays.points(slice(None), along))
        is_there = (along < rays.far) & is_open
        hit = np.flatnonzero(is_there & (value >= rules.iso))
        back = (value - rules.iso)[hit] / np.maximum((value - before)[hit], 1e-9)
        back[along[hit] <= rays.near[hit]] = 0
        at = along[hit] - back * rules.step
        points = rays.points(hit, at)
        normal = np.empty((len(hit), 3))
        for axis, offset in enumerate(np.eye(3) / medium.texels_per_voxel):
            rise = density(points - offset) - density(points + offset)
            normal[:, axis] = rise * medium.texels_per_voxel[axis]
        squared = (normal**2).sum(axis=1)
        facing = -(normal * rays.directions[hit]).sum(axis=1) / np.sqrt(np.maximum(squared, 1e-20))
        # The face of the box has no gradient of its own: it is seen as it is cut.
        shade = np.where((squared > 0) & (back > 0), 0.2 + 0.8 * np.abs(facing), 1)
        found["color"][hit], found["transmittance"][hit] = shade[:, None], 0
        found["depth"][hit], is_open[hit] = at, False
        before = np.where(is_there, value, before)


def _n_steps(rays: Rays, rules: Rules) -> int:
    longest = float((rays.far - rays.near).max(initial=0))
    return int(np.ceil(max(longest, 0) / rules.step))
