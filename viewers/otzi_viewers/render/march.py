"""The kernel: one ray through the volume, in the `physical` look.

Along the ray, per step of length l: extinction ``σ = Σ s_i r_i(V_i) r_raw(V_raw)``, opacity
``a = 1 − exp(−σ l)``, colour the mean of the class colours by their part in σ, lit by ambient
occlusion and a soft shadow; front to back, until less than 1 % shines through. A step that is cut
by the far side of the box is as long as what is left, so the opacity of a uniform slab does not
depend on the step.

Positions are in voxels of the world, z, y, x from the centre of the box.

All that is compiled stands in this file but for the random draws: what numba keeps on disk is not
made anew when only the file of a function that is called has changed.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from otzi.compiled import compiled
from otzi_viewers.render.bricks import BRICK_VOXELS
from otzi_viewers.render.sampling import WHOLE_RAY, draw_key, uniform

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Lamp", "Medium", "Rules", "ambient_occlusion", "march", "shadow"]

_LEAST_TRANSMITTANCE = 0.01
_BRICK = float(BRICK_VOXELS)


class Medium(NamedTuple):
    """The volume and what its values mean."""

    data: NDArray[Any]
    """``(z, y, x, c + 1)``, as stored."""
    value_scale: float
    low: NDArray[np.float64]
    inverse_span: NDArray[np.float64]
    extinction: NDArray[np.float64]
    color: NDArray[np.float64]
    extent: NDArray[np.float64]
    """``(3,)``: the box in world lengths."""
    texels_per_voxel: NDArray[np.float64]
    """``(3,)``: samples of `data` per world length."""
    occluder: NDArray[np.uint8]
    """``(z, y, x)``, at half the resolution of `data`."""
    distances: NDArray[np.uint8]
    """``(z, y, x)``: of bricks, see `brick_distances`; all 0 crosses nothing."""


class Lamp(NamedTuple):
    """The light and how it is probed."""

    position: NDArray[np.float64]
    """``(3,)``: centre of the luminous ball."""
    radius: float
    shadow_start: float
    """Distance of the nearest probe from the point that is lit."""
    shadow_length: float
    """Distance of the farthest."""
    shadow_strength: float
    shadow_tint: NDArray[np.float64]
    """``(3,)``: colour of full shadow."""
    n_shadow: int
    ao_radius: float
    ao_centre: NDArray[np.float64]
    """``(3,)``: of the ball that is probed, from the point that is lit."""
    ao_strength: float
    ao_tint: NDArray[np.float64]
    n_ao: int
    ball: NDArray[np.float64]
    """``(n, 3)``: points of the unit ball; each point lit takes a run of them."""


class Rules(NamedTuple):
    """How finely rays are marched."""

    step: float
    gate: float
    seed: int


@compiled
def _edge_index(coordinate: float, length: int) -> tuple[int, int, float]:
    """Give the two samples about a coordinate, clamped to the array, and the weight of the later.

    Sample i has its centre at coordinate i + 0.5.
    """
    shifted = coordinate - 0.5
    floor = math.floor(shifted)
    first = int(floor)
    before = min(max(first, 0), length - 1)
    after = min(max(first + 1, 0), length - 1)
    return before, after, shifted - floor


@compiled
def _mix(first: float, second: float, weight: float) -> float:
    return first + (second - first) * weight


@compiled
def _occlusion(medium: Medium, z: float, y: float, x: float) -> float:
    """Give the occluder at a position of the world, in [0, 1]; 0 outside the box."""
    extent, scale, values = medium.extent, medium.texels_per_voxel, medium.occluder
    if abs(z) > extent[0] / 2 or abs(y) > extent[1] / 2 or abs(x) > extent[2] / 2:
        return 0.0
    z0, z1, fz = _edge_index((z + extent[0] / 2) * scale[0] / 2, values.shape[0])
    y0, y1, fy = _edge_index((y + extent[1] / 2) * scale[1] / 2, values.shape[1])
    x0, x1, fx = _edge_index((x + extent[2] / 2) * scale[2] / 2, values.shape[2])
    a = _mix(float(values[z0, y0, x0]), float(values[z0, y0, x1]), fx)
    b = _mix(float(values[z0, y1, x0]), float(values[z0, y1, x1]), fx)
    c = _mix(float(values[z1, y0, x0]), float(values[z1, y0, x1]), fx)
    d = _mix(float(values[z1, y1, x0]), float(values[z1, y1, x1]), fx)
    return _mix(_mix(a, b, fy), _mix(c, d, fy), fz) / 255.0


@compiled
def ambient_occlusion(
    medium: Medium, lamp: Lamp, z: float, y: float, x: float, key: np.uint64
) -> float:
    """Give how much of a ball that is lifted toward the light is filled, times its strength."""
    first = int(uniform(key, 0) * len(lamp.ball))
    total = 0.0
    for probe in range(lamp.n_ao):
        point = lamp.ball[(first + probe) % len(lamp.ball)]
        total += _occlusion(
            medium,
            z + lamp.ao_centre[0] + point[0] * lamp.ao_radius,
            y + lamp.ao_centre[1] + point[1] * lamp.ao_radius,
            x + lamp.ao_centre[2] + point[2] * lamp.ao_radius,
        )
    return min(lamp.ao_strength * total / lamp.n_ao, 1.0)


@compiled
def shadow(medium: Medium, lamp: Lamp, z: float, y: float, x: float, key: np.uint64) -> float:
    """Give how much stands in the cone to the luminous ball, nearer counting more, times strength.

    Probes lie at stratified fractions f of the cone's length, each toward another point of the
    ball but never beyond it, and weigh ``(1 − f)²``.
    """
    first = int(uniform(key, 1) * len(lamp.ball))
    shift = uniform(key, 2)
    total = 0.0
    weights = 0.0
    for probe in range(lamp.n_shadow):
        point = lamp.ball[(first + probe) % len(lamp.ball)]
        dz = lamp.position[0] + point[0] * lamp.radius - z
        dy = lamp.position[1] + point[1] * lamp.radius - y
        dx = lamp.position[2] + point[2] * lamp.radius - x
        fraction = (probe + shift) / lamp.n_shadow
        weight = (1.0 - fraction) * (1.0 - fraction)
        reach = _mix(lamp.shadow_start, lamp.shadow_length, fraction)
        distance = max(math.sqrt(dz * dz + dy * dy + dx * dx), 1e-9)
        scale = min(reach / distance, 1.0)
        total += weight * _occlusion(medium, z + dz * scale, y + dy * scale, x + dx * scale)
        weights += weight
    return min(lamp.shadow_strength * total / weights, 1.0)


@compiled
def _box_interval(
    origin: NDArray[np.float64], direction: NDArray[np.float64], extent: NDArray[np.float64]
) -> tuple[float, float]:
    """Give where a ray enters and leaves the box; it misses where the first is not less."""
    near = 0.0
    far = math.inf
    for axis in range(3):
        half = extent[axis] / 2
        if direction[axis] == 0.0:
            if abs(origin[axis]) >= half:
                return 0.0, 0.0
        else:
            one = (-half - origin[axis]) / direction[axis]
            other = (half - origin[axis]) / direction[axis]
            near = max(near, min(one, other))
            far = min(far, max(one, other))
    return near, far


@compiled
def _brick_index(coordinate: float, length: int) -> int:
    return min(max(math.floor(coordinate / _BRICK), 0), length - 1)


@compiled
def _steps_to_cross(
    reach: int,
    z: float,
    y: float,
    x: float,
    dz: float,
    dy: float,
    dx: float,
    step: float,
) -> int:
    """Give how many whole steps stay within the empty bricks about a brick, at least 1.

    Position and direction in samples of the data; `reach` is the brick's distance to the next that
    may be visible.
    """
    length = min(_crossing(reach, z, dz), _crossing(reach, y, dy), _crossing(reach, x, dx))
    return max(int(length / step), 1)


@compiled
def _crossing(reach: int, position: float, slope: float) -> float:
    """Give the length to the face, along one axis, of the empty bricks about a position."""
    brick = math.floor(position / _BRICK)
    if slope > 0.0:
        return ((brick + reach) * _BRICK - position) / slope
    if slope < 0.0:
        return ((brick - reach + 1) * _BRICK - position) / slope
    return math.inf


@compiled
def march(
    origins: NDArray[np.float64],
    directions: NDArray[np.float64],
    pixels: NDArray[np.int64],
    sample: int,
    medium: Medium,
    lamp: Lamp,
    rules: Rules,
    rgba: NDArray[np.float32],
    depth: NDArray[np.float32],
) -> None:
    """Write colour and depth of rays.

    Parameters
    ----------
    origins, directions
        ``(n, 3)``; directions have length 1.
    pixels
        ``(n,)``: what tells the rays of a picture apart.
    sample
        Which of the rays of each pixel these are.
    medium, lamp, rules
        What they go through, what lights it, how they are marched.
    rgba
        ``(n, 4)``, written: linear red, green, blue, premultiplied, and opacity.
    depth
        ``(n,)``, written: distance at which half the light is gone, infinite where it never is.
    """
    shape = medium.data.shape
    n_classes = len(medium.extinction)
    texels, extent = medium.texels_per_voxel, medium.extent
    for ray in range(len(pixels)):
        origin, direction = origins[ray], directions[ray]
        near, far = _box_interval(origin, direction, extent)
        n_steps = math.ceil((far - near) / rules.step) if far > near else 0
        jitter = uniform(draw_key(rules.seed, sample, WHOLE_RAY, pixels[ray]), 0)
        dz, dy, dx = direction[0] * texels[0], direction[1] * texels[1], direction[2] * texels[2]
        red = green = blue = 0.0
        transmittance = 1.0
        pending = 0.0
        is_lit = False
        light_red = light_green = light_blue = 1.0
        half_depth = math.inf
        index = 0
        while index < n_steps and transmittance >= _LEAST_TRANSMITTANCE:
            start = near + index * rules.step
            length = max(min(rules.step, far - start), 0.0)
            along = start + jitter * length
            z = (origin[0] + along * direction[0] + extent[0] / 2) * texels[0]
            y = (origin[1] + along * direction[1] + extent[1] / 2) * texels[1]
            x = (origin[2] + along * direction[2] + extent[2] / 2) * texels[2]
            empty = medium.distances[
                _brick_index(z, medium.distances.shape[0]),
                _brick_index(y, medium.distances.shape[1]),
                _brick_index(x, medium.distances.shape[2]),
            ]
            if empty > 0:
                index += _steps_to_cross(empty, z, y, x, dz, dy, dx, rules.step)
                continue
            z0, z1, fz = _edge_index(z, shape[0])
            y0, y1, fy = _edge_index(y, shape[1])
            x0, x1, fx = _edge_index(x, shape[2])
            sigma = part_red = part_green = part_blue = 0.0
            density = _ramp(medium, n_classes, z0, z1, fz, y0, y1, fy, x0, x1, fx)
            if density > 0.0:
                for channel in range(n_classes):
                    part = density * medium.extinction[channel]
                    part *= _ramp(medium, channel, z0, z1, fz, y0, y1, fy, x0, x1, fx)
                    sigma += part
                    part_red += part * medium.color[channel, 0]
                    part_green += part * medium.color[channel, 1]
                    part_blue += part * medium.color[channel, 2]
            index += 1
            if sigma <= 0.0:
                continue
            passing = math.exp(-sigma * length)
            weight = transmittance * (1.0 - passing)
            pending += weight
            if not is_lit or pending > rules.gate:
                key = draw_key(rules.seed, sample, index - 1, pixels[ray])
                pz = origin[0] + along * direction[0]
                py = origin[1] + along * direction[1]
                px = origin[2] + along * direction[2]
                occluded = ambient_occlusion(medium, lamp, pz, py, px, key)
                shaded = shadow(medium, lamp, pz, py, px, key)
                light_red = _lit(occluded, lamp.ao_tint[0]) * _lit(shaded, lamp.shadow_tint[0])
                light_green = _lit(occluded, lamp.ao_tint[1]) * _lit(shaded, lamp.shadow_tint[1])
                light_blue = _lit(occluded, lamp.ao_tint[2]) * _lit(shaded, lamp.shadow_tint[2])
                pending = 0.0
                is_lit = True
            red += weight * light_red * part_red / sigma
            green += weight * light_green * part_green / sigma
            blue += weight * light_blue * part_blue / sigma
            if transmittance > 0.5 and transmittance * passing <= 0.5:
                half_depth = start + math.log(transmittance / 0.5) / sigma
            transmittance *= passing
        rgba[ray, 0] = red
        rgba[ray, 1] = green
        rgba[ray, 2] = blue
        rgba[ray, 3] = 1.0 - transmittance
        depth[ray] = half_depth


@compiled
def _lit(darkness: float, tint: float) -> float:
    """Give the light that is left where `darkness` of it is replaced by the tint."""
    return 1.0 - darkness * (1.0 - tint)


@compiled
def _ramp(
    medium: Medium,
    channel: int,
    z0: int,
    z1: int,
    fz: float,
    y0: int,
    y1: int,
    fy: float,
    x0: int,
    x1: int,
    fx: float,
) -> float:
    """Give the ramp of a channel's interpolated value, in [0, 1]."""
    values = medium.data
    a = _mix(float(values[z0, y0, x0, channel]), float(values[z0, y0, x1, channel]), fx)
    b = _mix(float(values[z0, y1, x0, channel]), float(values[z0, y1, x1, channel]), fx)
    c = _mix(float(values[z1, y0, x0, channel]), float(values[z1, y0, x1, channel]), fx)
    d = _mix(float(values[z1, y1, x0, channel]), float(values[z1, y1, x1, channel]), fx)
    value = _mix(_mix(a, b, fy), _mix(c, d, fy), fz) * medium.value_scale
    ramped = (value - float(medium.low[channel])) * float(medium.inverse_span[channel])
    return min(max(ramped, 0.0), 1.0)
