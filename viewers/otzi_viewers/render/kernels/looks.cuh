// The other looks: what the published viewer does, and the baselines that the paper compares with,
// which draw the density alone. They march the whole volume; none is streamed.
#pragma once
#include "march.cuh"

// Where the steps of a ray are, in the world and in samples.
struct Place { float point[3], at[3]; };

OTZI_CALL Place place_on(const Params &p, const float *origin, const float *direction, float along) {
    Place place;
    for (int axis = 0; axis < 3; axis++) {
        place.point[axis] = origin[axis] + along * direction[axis];
        place.at[axis] = (place.point[axis] + p.extent[axis] / 2) * p.texels[axis];
    }
    return place;
}

OTZI_CALL float density_at(const Params &p, const float *at) {
    f4 values = fetch_pack(p, p.density_lane / 4, at[0], at[1], at[2]);
    return lane(values, p.density_lane % 4);
}

// Sum of the masks of all classes at a point of the world; nothing stands outside.
OTZI_CALL float masks(const Params &p, float z, float y, float x) {
    float point[3] = {z, y, x}, at[3], total = 0.0f;
    for (int axis = 0; axis < 3; axis++) {
        if (fabsf(point[axis]) > p.extent[axis] / 2) return 0.0f;
        at[axis] = (point[axis] + p.extent[axis] / 2) * p.texels[axis];
    }
    for (int pack = 0; pack < p.n_packs; pack++) {
        f4 values = fetch_pack(p, pack, at[0], at[1], at[2]);
        for (int i = 0; i < 4 && 4 * pack + i < p.density_lane; i++)
            total += ramp(p, lane(values, i), 4 * pack + i);
    }
    return total;
}

#define OTZI_VIEWER_STEP 0.001f
#define OTZI_VIEWER_UNIT_STEP 0.0025f

// The published viewer darkens where the surroundings are empty: the sign is its own.
OTZI_CALL float viewer_occlusion(const Params &p, const float *at, u32 key) {
    float total = 0.0f;
    for (int probe = 0; probe < p.n_ao; probe++) {
        float dz = 2.0f * uniform(key, 4 * probe) - 1.0f;
        float dy = 2.0f * uniform(key, 4 * probe + 1) - 1.0f;
        float dx = 2.0f * uniform(key, 4 * probe + 2) - 1.0f;
        float length = larger(sqrtf(dz * dz + dy * dy + dx * dx), 1e-9f);
        float far = p.ao_radius * (0.2f + 0.5f * uniform(key, 4 * probe + 3)) / length;
        float filled = masks(p, at[0] + dz * far, at[1] + dy * far, at[2] + dx * far);
        total += unit_range(1.0f - filled);
    }
    return unit_range(p.ao_strength * total / p.n_ao);
}

// A straight line toward the light, every part of it alike; the ramp of the published occluder.
OTZI_CALL float viewer_shadow(const Params &p, const float *at) {
    float total = 0.0f;
    for (int probe = 0; probe < p.n_shadow; probe++) {
        float t = 0.05f + 0.95f * probe / p.n_shadow;
        float filled = masks(p, at[0] + t * p.shadow_line[0], at[1] + t * p.shadow_line[1],
                             at[2] + t * p.shadow_line[2]);
        total += unit_range((smaller(filled, 1.0f) - 0.97f) / 0.02f);
    }
    return unit_range(p.shadow_strength * total / p.n_shadow);
}

OTZI_CALL void viewer_ray(const Params &p, const float *origin, const float *direction, u32 pixel,
                          Ray &ray) {
    Interval whole = volume_interval(p, origin, direction);
    float ahead = 0.0f;
    for (int axis = 0; axis < 3; axis++) ahead += direction[axis] * p.forward[axis];
    // Its rays are not of length 1: steps are longer toward the corners of the picture.
    float step = p.step / ahead, opacity = 0.0f;
    float jitter = uniform(draw_key(p.seed, p.sample, OTZI_WHOLE_RAY, pixel), 0);
    int index = 0;
    for (float along = whole.near + jitter * step; along < whole.far; along += step, index++) {
        Place place = place_on(p, origin, direction, along);
        float raw = ramp(p, density_at(p, place.at), p.density_lane);
        float total = masks(p, place.point[0], place.point[1], place.point[2]);
        if (total <= 0.2f || raw <= 0.1f) continue;
        if (ray.depth == INFINITY) ray.depth = along;
        u32 key = draw_key(p.seed, p.sample, index, pixel);
        float occluded = viewer_occlusion(p, place.point, key);
        float shaded = viewer_shadow(p, place.point);
        for (int i = 0; i < p.density_lane; i++) {
            f4 values = fetch_pack(p, i / 4, place.at[0], place.at[1], place.at[2]);
            float mask = ramp(p, lane(values, i % 4), i);
            if (is_clipped(p, i, place.point)) continue;
            float part = mask * raw * (OTZI_VIEWER_STEP / OTZI_VIEWER_UNIT_STEP);
            for (int c = 0; c < 3; c++) {
                float color = mix(p.color[c][i], p.ao_tint[c], occluded);
                ray.color[c] += (1.0f - opacity) * part * mix(color, p.shadow_tint[c], shaded);
            }
            opacity += (1.0f - opacity) * part;
        }
        if (opacity >= 0.8f) {
            opacity = 1.0f;
            break;
        }
    }
    for (int c = 0; c < 3; c++) ray.color[c] *= 1.5f;
    ray.transmittance = 1.0f - opacity;
}

OTZI_CALL void plain_ray(const Params &p, const float *origin, const float *direction, u32 pixel,
                         Ray &ray) {
    Interval whole = volume_interval(p, origin, direction);
    float jitter = uniform(draw_key(p.seed, p.sample, OTZI_WHOLE_RAY, pixel), 0);
    for (float start = whole.near; start < whole.far; start += p.step) {
        float length = smaller(p.step, whole.far - start);
        Place place = place_on(p, origin, direction, start + jitter * length);
        float sigma = p.extinction[0] * ramp(p, density_at(p, place.at), p.density_lane);
        float passing = expf(-sigma * length), after = ray.transmittance * passing;
        for (int c = 0; c < 3; c++) ray.color[c] += ray.transmittance - after;
        if (ray.transmittance > 0.5f && after <= 0.5f) ray.depth = start;
        ray.transmittance = after;
        if (after < OTZI_LEAST_TRANSMITTANCE) break;
    }
}

OTZI_CALL void maximum_ray(const Params &p, const float *origin, const float *direction, Ray &ray) {
    Interval whole = volume_interval(p, origin, direction);
    float most = 0.0f;
    for (float along = whole.near; along < whole.far; along += p.step) {
        Place place = place_on(p, origin, direction, along);
        float value = ramp(p, density_at(p, place.at), p.density_lane);
        if (value > most) {
            most = value;
            ray.depth = along;
        }
    }
    for (int c = 0; c < 3; c++) ray.color[c] = most;
    ray.transmittance = 1.0f - most;
}

OTZI_CALL void surface_ray(const Params &p, const float *origin, const float *direction, Ray &ray) {
    Interval whole = volume_interval(p, origin, direction);
    float before = 0.0f;
    for (float along = whole.near; along < whole.far; along += p.step) {
        float value = density_at(p, place_on(p, origin, direction, along).at);
        if (value < p.iso) {
            before = value;
            continue;
        }
        float back = along > whole.near ? (value - p.iso) / larger(value - before, 1e-9f) : 0.0f;
        Place place = place_on(p, origin, direction, along - back * p.step);
        float normal[3], squared = 0.0f, facing = 0.0f;
        for (int axis = 0; axis < 3; axis++) {
            Place low = place, high = place;
            low.at[axis] -= 1.0f;
            high.at[axis] += 1.0f;
            normal[axis] = (density_at(p, low.at) - density_at(p, high.at)) * p.texels[axis];
            squared += normal[axis] * normal[axis];
        }
        for (int axis = 0; axis < 3; axis++)
            facing -= normal[axis] * direction[axis] / sqrtf(larger(squared, 1e-20f));
        // The face of the box has no gradient of its own: it is seen as it is cut.
        float shade = squared > 0.0f && back > 0.0f ? 0.2f + 0.8f * fabsf(facing) : 1.0f;
        for (int c = 0; c < 3; c++) ray.color[c] = shade;
        ray.transmittance = 0.0f;
        ray.depth = along - back * p.step;
        return;
    }
}

OTZI_CALL void look_along(const Params &p, const float *origin, const float *direction, u32 pixel,
                          Ray &ray) {
    switch (OTZI_LOOK_OF(p)) {
        case VIEWER: return viewer_ray(p, origin, direction, pixel, ray);
        case PLAIN: return plain_ray(p, origin, direction, pixel, ray);
        case MAXIMUM: return maximum_ray(p, origin, direction, ray);
        case SURFACE: return surface_ray(p, origin, direction, ray);
        default: return march_ray(p, origin, direction, pixel, ray);
    }
}
