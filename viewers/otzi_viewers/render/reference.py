"""The kernel by its formulas, in NumPy: every step of every ray, nothing skipped.

Slow: what pictures are compared with, and what draws small ones where there is no compiler. Light
is always probed at random: what is baked, or probed by cones, is nearly that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from otzi.errors import NoCompiler
from otzi_viewers.render.kernels.params import new_rays
from otzi_viewers.render.reference_fields import (
    LEAST_TRANSMITTANCE,
    WHOLE_RAY,
    Rays,
    clipped_at,
    keyed_uniform,
    occlusion_at,
    ramps_at,
)
from otzi_viewers.render.reference_looks import (
    maximum_look,
    plain_look,
    surface_look,
    viewer_look,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from numpy.typing import NDArray

    from otzi_viewers.render.medium import Lamp, Medium, Rules

__all__ = ["MAXIMUM_REFERENCE_PIXELS", "check_reference_size", "reference_march"]

MAXIMUM_REFERENCE_PIXELS = 256 * 256
"""Of a picture that is drawn without a compiler: about a minute."""


def check_reference_size(size: tuple[int, int], missing: NoCompiler) -> None:
    """Refuse pictures for which nobody would wait.

    Raises
    ------
    NoCompiler
        As it was `missing`, with what can be drawn without it.
    """
    width, height = size
    if width * height > MAXIMUM_REFERENCE_PIXELS:
        raise NoCompiler(
            f"{missing}; without one, pictures have at most {MAXIMUM_REFERENCE_PIXELS} pixels and "
            f"{width}x{height} are more: take --size 256x256"
        ) from missing


def reference_march(
    medium: Medium,
    lamp: Lamp,
    rules: Rules,
    origins: NDArray[np.float64],
    directions: NDArray[np.float64],
    pixels: NDArray[np.int64],
    sample: int,
) -> NDArray[np.void]:
    """Give the state of rays that have been through the whole volume: ``(n,)`` of `RAY`.

    Parameters
    ----------
    medium, lamp, rules
        The volume, with its data; the light; and how rays are marched.
    origins, directions
        ``(n, 3)`` world; directions have length 1.
    pixels
        ``(n,)``: what tells the rays of a picture apart.
    sample
        Which of the rays of each pixel these are.
    """
    half = medium.extent / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        faces = np.stack([(-half - origins) / directions, (half - origins) / directions])
    beside = (directions == 0) & (np.abs(origins) >= half)
    first, last = faces.min(axis=0), faces.max(axis=0)
    first[directions == 0], last[directions == 0] = -np.inf, np.inf
    near = np.maximum(first.max(axis=1), 0)
    far = np.where(beside.any(axis=1), -np.inf, last.min(axis=1))

    def draw(rays: Any, step: int, number: int) -> NDArray[np.float64]:
        return keyed_uniform(rules.seed, sample, step, pixels[rays], number)

    rays = Rays(origins, directions, near, far, draw)
    found = new_rays(len(pixels))
    looks = {
        "physical": _physical,
        "viewer": viewer_look,
        "dvr": plain_look,
        "mip": maximum_look,
        "iso": surface_look,
    }
    looks[rules.look](found, rays, medium, lamp, rules)
    return found


def _physical(
    found: NDArray[np.void], rays: Rays, medium: Medium, lamp: Lamp, rules: Rules
) -> None:
    """Put in what the `physical` look makes of rays.

    By Beer and Lambert, classes mixed by extinction, lit anew once enough opacity has gathered.
    """
    n_rays = len(found)
    n_steps = np.where(rays.far > rays.near, np.ceil((rays.far - rays.near) / rules.step), 0)
    jitter = rays.draw(slice(None), WHOLE_RAY, 0)
    color, light = np.zeros((n_rays, 3)), np.ones((n_rays, 3))
    transmittance, pending = np.ones(n_rays), np.zeros(n_rays)
    depth, is_lit = np.full(n_rays, np.inf), np.zeros(n_rays, bool)
    for index in range(int(n_steps.max(initial=0))):
        live = np.flatnonzero((index < n_steps) & (transmittance >= LEAST_TRANSMITTANCE))
        start = rays.near[live] + index * rules.step
        length = np.clip(rays.far[live] - start, 0, rules.step)
        points = rays.points(live, start + jitter[live] * length)
        parts = _extinction_at(medium, points)
        sigma = parts.sum(axis=1)
        seen = sigma > 0
        hit, points, parts, sigma = live[seen], points[seen], parts[seen], sigma[seen]
        passing = np.exp(-sigma * length[seen])
        weight = transmittance[hit] * (1 - passing)
        pending[hit] += weight
        is_due = ~is_lit[hit] | (pending[hit] > rules.gate)
        due = hit[is_due]

        def draw(number: int, due: NDArray[np.int64] = due, index: int = index) -> Any:
            return rays.draw(due, index, number)

        light[due] = _light_at(medium, lamp, points[is_due], draw)
        pending[due], is_lit[due] = 0, True
        color[hit] += weight[:, None] * light[hit] * (parts @ medium.color) / sigma[:, None]
        before, after = transmittance[hit], transmittance[hit] * passing
        half_gone = start[seen] + np.log(before / 0.5) / sigma
        depth[hit] = np.where((before > 0.5) & (after <= 0.5), half_gone, depth[hit])
        transmittance[hit] = after
    found["color"], found["transmittance"], found["depth"] = color, transmittance, depth
    found["light"], found["pending"] = light, np.where(is_lit, pending, -1)


def _extinction_at(medium: Medium, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give the extinction of each class, ``(n, c)``, at points of the world."""
    ramps = ramps_at(medium, points)
    parts: NDArray[np.float64] = medium.extinction * ramps[:, :-1] * ramps[:, -1:]
    parts[clipped_at(medium, points)] = 0
    return parts


def _light_at(
    medium: Medium,
    lamp: Lamp,
    points: NDArray[np.float64],
    draw: Callable[[int], NDArray[np.float64]],
) -> NDArray[np.float64]:
    """Give the light, ``(n, 3)``, at points of the world; ``draw(number)`` gives their draws.

    A ball that is lifted toward the lamp occludes by its mean; the cone to the luminous ball by its
    mean with weight (1 - f)² at the fraction f of its length.
    """
    n_ball = len(lamp.ball)
    around = (draw(0) * n_ball).astype(int)[:, None] + np.arange(lamp.n_ao)
    near = points[:, None] + lamp.ao_centre + lamp.ao_radius * lamp.ball[around % n_ball]
    occluded = np.minimum(lamp.ao_strength * occlusion_at(medium, near).mean(axis=1), 1)

    toward = (draw(1) * n_ball).astype(int)[:, None] + np.arange(lamp.n_shadow)
    way = lamp.position + lamp.radius * lamp.ball[toward % n_ball] - points[:, None]
    fraction = (np.arange(lamp.n_shadow) + draw(2)[:, None]) / lamp.n_shadow
    reach = lamp.shadow_start + (lamp.shadow_length - lamp.shadow_start) * fraction
    share = np.minimum(reach / np.maximum(np.linalg.norm(way, axis=-1), 1e-9), 1)
    blocked = occlusion_at(medium, points[:, None] + way * share[..., None])
    weights = (1 - fraction) ** 2
    shaded = np.minimum(lamp.shadow_strength * (blocked * weights).sum(1) / weights.sum(1), 1)
    full = np.asarray(lamp.color)
    lit: NDArray[np.float64] = (1 - occluded[:, None] * (1 - lamp.ao_tint)) * (
        full - shaded[:, None] * (full - lamp.shadow_tint)
    )
    return lit
