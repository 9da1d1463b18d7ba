// One ray through the volume, front to back, in the `physical` look: per step of length l the
// extinction is Σ s_i r_i(V_i) r_raw(V_raw), the opacity 1 - exp(-σ l), the colour the mean of the
// class colours by their part in σ, lit. A step that the far side of the box cuts is as long as
// what is left. Light is probed anew once `gate` of opacity has come together since.
#pragma once
#include "light.cuh"

#define OTZI_LEAST_TRANSMITTANCE 0.01f
#define OTZI_BRICK 8

struct Interval { float near, far; };

// Where a ray enters and leaves a box, [first, last) on each axis; it misses where near >= far.
OTZI_CALL Interval box_interval(const float *origin, const float *direction, const float *first,
                                const float *last) {
    float near = 0.0f, far = INFINITY;
    for (int axis = 0; axis < 3; axis++) {
        if (direction[axis] == 0.0f) {
            if (origin[axis] <= first[axis] || origin[axis] >= last[axis]) return {0.0f, 0.0f};
        } else {
            float one = (first[axis] - origin[axis]) / direction[axis];
            float other = (last[axis] - origin[axis]) / direction[axis];
            near = larger(near, smaller(one, other));
            far = smaller(far, larger(one, other));
        }
    }
    return {near, far};
}

OTZI_CALL Interval volume_interval(const Params &p, const float *origin, const float *direction) {
    float first[3], last[3];
    for (int axis = 0; axis < 3; axis++) {
        first[axis] = -p.extent[axis] / 2;
        last[axis] = p.extent[axis] / 2;
    }
    return box_interval(origin, direction, first, last);
}

OTZI_CALL int brick_of(float coordinate, int count) {
    int brick = (int)floorf(coordinate / OTZI_BRICK);
    return brick < 0 ? 0 : brick >= count ? count - 1 : brick;
}

OTZI_CALL int empty_bricks(const Params &p, const float *at) {
    int z = brick_of(at[0], p.brick_shape[0]), y = brick_of(at[1], p.brick_shape[1]);
    int x = brick_of(at[2], p.brick_shape[2]);
    return ((const u8 *)p.distances)[((size_t)z * p.brick_shape[1] + y) * p.brick_shape[2] + x];
}

// Whole steps that stay within the empty bricks about a position, at least 1.
OTZI_CALL int steps_to_cross(const Params &p, int reach, const float *at, const float *slope) {
    float length = INFINITY;
    for (int axis = 0; axis < 3; axis++) {
        float brick = floorf(at[axis] / OTZI_BRICK);
        if (slope[axis] > 0.0f)
            length = smaller(length, ((brick + reach) * OTZI_BRICK - at[axis]) / slope[axis]);
        else if (slope[axis] < 0.0f)
            length = smaller(length, ((brick - reach + 1) * OTZI_BRICK - at[axis]) / slope[axis]);
    }
    // A hair less: the product of steps and length may round past the face.
    int steps = (int)smaller(length / p.step * 0.999999f, 1e9f);
    return steps < 1 ? 1 : steps;
}

// Whether a position is this brick's. What lies on or beyond the last face is the last brick's.
OTZI_CALL bool is_own(const Params &p, const float *at) {
    for (int axis = 0; axis < 3; axis++) {
        int sample = (int)floorf(at[axis]);
        sample = sample < 0 ? 0 : sample >= p.shape[axis] ? p.shape[axis] - 1 : sample;
        if (sample < p.own_first[axis] || sample >= p.own_last[axis]) return false;
    }
    return true;
}

struct Steps { int first, last; };

// Steps that may lie in this brick: one more at either end than its box holds.
OTZI_CALL Steps own_steps(const Params &p, const float *origin, const float *direction,
                          Interval whole) {
    float first[3], last[3];
    int n_steps = (int)ceilf((whole.far - whole.near) / p.step);
    for (int axis = 0; axis < 3; axis++) {
        bool begins = p.own_first[axis] == 0, ends = p.own_last[axis] == p.shape[axis];
        first[axis] = begins ? -INFINITY : p.own_first[axis] / p.texels[axis] - p.extent[axis] / 2;
        last[axis] = ends ? INFINITY : p.own_last[axis] / p.texels[axis] - p.extent[axis] / 2;
    }
    Interval own = box_interval(origin, direction, first, last);
    if (!(own.near < own.far)) return {0, 0};
    int begin = (int)floorf(larger(own.near - whole.near, 0.0f) / p.step) - 2;
    float length = smaller(own.far, whole.far) - whole.near;
    int end = length > 0.0f ? (int)ceilf(length / p.step) + 2 : 0;
    return {begin < 0 ? 0 : begin, end > n_steps ? n_steps : end};
}

struct Sample { float sigma, red, green, blue; };

OTZI_CALL float ramp(const Params &p, float value, int index) {
    return unit_range((value - p.low[index]) * p.inverse_span[index]);
}

OTZI_CALL bool is_clipped(const Params &p, int index, const float *point) {
    const float *plane = p.clip[index];
    return plane[0] * point[0] + plane[1] * point[1] + plane[2] * point[2] + plane[3] < 0.0f;
}

OTZI_CALL Sample sample_classes(const Params &p, const float *at, const float *point) {
    Sample total = {0.0f, 0.0f, 0.0f, 0.0f};
    f4 last = fetch_pack(p, p.density_lane / 4, at[0], at[1], at[2]);
    float density = ramp(p, lane(last, p.density_lane % 4), p.density_lane);
    if (density <= 0.0f) return total;
    for (int pack = 0; pack < p.n_packs; pack++) {
        f4 values = pack == p.density_lane / 4 ? last : fetch_pack(p, pack, at[0], at[1], at[2]);
        for (int i = 0; i < 4; i++) {
            int index = 4 * pack + i;
            float part = density * p.extinction[index] * ramp(p, lane(values, i), index);
            if (part <= 0.0f || is_clipped(p, index, point)) continue;
            total.sigma += part;
            total.red += part * p.color[0][index];
            total.green += part * p.color[1][index];
            total.blue += part * p.color[2][index];
        }
    }
    return total;
}

OTZI_CALL void light_point(const Params &p, const float *at, u32 key, float *light) {
    Darkness dark = darkness(p, at, key);
    for (int i = 0; i < 3; i++)
        light[i] = lit(dark.occluded, p.ao_tint[i], 1.0f) *
                   lit(dark.shaded, p.shadow_tint[i], p.lamp_color[i]);
}

OTZI_CALL Ray new_ray() {
    return {{0.0f, 0.0f, 0.0f}, 1.0f, INFINITY, {1.0f, 1.0f, 1.0f}, -1.0f};
}

// Carry a ray through what this brick owns; one brick that owns all is the whole volume. Steps are
// counted from where the ray enters the volume, so that bricks change no bit.
OTZI_CALL void march_ray(const Params &p, const float *origin, const float *direction, u32 pixel,
                         Ray &ray) {
    Interval whole = volume_interval(p, origin, direction);
    if (!(whole.near < whole.far)) return;
    Steps steps = own_steps(p, origin, direction, whole);
    float jitter = uniform(draw_key(p.seed, p.sample, OTZI_WHOLE_RAY, pixel), 0);
    float slope[3];
    for (int axis = 0; axis < 3; axis++) slope[axis] = direction[axis] * p.texels[axis];
    int index = steps.first;
    while (index < steps.last && ray.transmittance >= OTZI_LEAST_TRANSMITTANCE) {
        float start = whole.near + index * p.step;
        float length = larger(smaller(p.step, whole.far - start), 0.0f);
        float along = start + jitter * length;
        float point[3], at[3];
        for (int axis = 0; axis < 3; axis++) {
            point[axis] = origin[axis] + along * direction[axis];
            at[axis] = (point[axis] + p.extent[axis] / 2) * p.texels[axis];
        }
        int empty = empty_bricks(p, at);
        if (empty > 0) {
            index += steps_to_cross(p, empty, at, slope);
            continue;
        }
        index += 1;
        if (!is_own(p, at)) continue;
        Sample sample = sample_classes(p, at, point);
        if (sample.sigma <= 0.0f) continue;
        float passing = expf(-sample.sigma * length);
        float weight = ray.transmittance * (1.0f - passing);
        bool is_lit = ray.pending >= 0.0f;
        ray.pending = (is_lit ? ray.pending : 0.0f) + weight;
        if (!is_lit || ray.pending > p.gate) {
            light_point(p, point, draw_key(p.seed, p.sample, index - 1, pixel), ray.light);
            ray.pending = 0.0f;
        }
        ray.color[0] += weight * ray.light[0] * sample.red / sample.sigma;
        ray.color[1] += weight * ray.light[1] * sample.green / sample.sigma;
        ray.color[2] += weight * ray.light[2] * sample.blue / sample.sigma;
        float after = ray.transmittance * passing;
        if (ray.transmittance > 0.5f && after <= 0.5f)
            ray.depth = start + logf(ray.transmittance / 0.5f) / sample.sigma;
        ray.transmittance = after;
    }
}
