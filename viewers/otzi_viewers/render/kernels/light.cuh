// The light at a point of the `physical` look: occlusion of a ball that is lifted toward the light
// and the soft shadow of a luminous ball, both from the occluder; probed at random, baked, or by a
// few wide taps.
#pragma once
#include "draws.cuh"

// Probes that are looked up together, in samples of the occluder.
struct Probes {
    float z[OTZI_BATCH], y[OTZI_BATCH], x[OTZI_BATCH], weight[OTZI_BATCH];
};

OTZI_CALL void place(const Params &p, Probes &probes, int i, float weight, float z, float y,
                     float x) {
    probes.z[i] = (z + p.extent[0] / 2) * p.texels[0] / 2;
    probes.y[i] = (y + p.extent[1] / 2) * p.texels[1] / 2;
    probes.x[i] = (x + p.extent[2] / 2) * p.texels[2] / 2;
    probes.weight[i] = weight;
}

OTZI_CALL const float *ball_point(const Params &p, int index) {
    return (const float *)p.ball + 3 * (index % p.n_ball);
}

// How much of the lifted ball is filled, times its strength.
OTZI_CALL float ambient_occlusion(const Params &p, float z, float y, float x, u32 key) {
    int first = (int)(uniform(key, 0) * p.n_ball);
    float total = 0.0f;
    for (int begin = 0; begin < p.n_ao; begin += OTZI_BATCH) {
        Probes probes;
        for (int i = 0; i < OTZI_BATCH; i++) {
            const float *point = ball_point(p, first + begin + i);
            place(p, probes, i, begin + i < p.n_ao ? 1.0f : 0.0f,
                  z + p.ao_centre[0] + point[0] * p.ao_radius,
                  y + p.ao_centre[1] + point[1] * p.ao_radius,
                  x + p.ao_centre[2] + point[2] * p.ao_radius);
        }
        total += fetch_occluder(p, probes.z, probes.y, probes.x, probes.weight);
    }
    return smaller(p.ao_strength * total / p.n_ao, 1.0f);
}

// How much stands in the cone to the luminous ball, times strength: probes at stratified fractions
// f of its length, each toward another point of the ball and never beyond it, of weight (1 - f)².
OTZI_CALL float cone_shadow(const Params &p, float z, float y, float x, u32 key) {
    int first = (int)(uniform(key, 1) * p.n_ball);
    float shift = uniform(key, 2);
    float total = 0.0f, weights = 0.0f;
    for (int begin = 0; begin < p.n_shadow; begin += OTZI_BATCH) {
        Probes probes;
        for (int i = 0; i < OTZI_BATCH; i++) {
            const float *point = ball_point(p, first + begin + i);
            float dz = p.lamp[0] + point[0] * p.lamp_radius - z;
            float dy = p.lamp[1] + point[1] * p.lamp_radius - y;
            float dx = p.lamp[2] + point[2] * p.lamp_radius - x;
            float fraction = (begin + i + shift) / p.n_shadow;
            float left = larger(1.0f - fraction, 0.0f);
            float reach = mix(p.shadow_start, p.shadow_length, fraction);
            float distance = larger(sqrtf(dz * dz + dy * dy + dx * dx), 1e-9f);
            float scale = smaller(reach / distance, 1.0f);
            place(p, probes, i, left * left, z + dz * scale, y + dy * scale, x + dx * scale);
            weights += left * left;
        }
        total += fetch_occluder(p, probes.z, probes.y, probes.x, probes.weight);
    }
    return smaller(p.shadow_strength * total / weights, 1.0f);
}

// A tap of the occluder that is averaged over about `radius` world lengths; 0 outside the box.
OTZI_CALL float cone_tap(const Params &p, float z, float y, float x, float radius) {
    if (fabsf(z) > p.extent[0] / 2 || fabsf(y) > p.extent[1] / 2 || fabsf(x) > p.extent[2] / 2)
        return 0.0f;
    float level = log2f(larger(radius * p.texels[2], 1.0f));  // one at `cones[0]`: 4 samples wide
    int below = (int)smaller(level, (float)(p.n_cones - 1));
    int above = below + 1 < p.n_cones ? below + 1 : below;
    float at[2];
    for (int i = 0; i < 2; i++) {
        int chosen = i ? above : below;
        float size = (float)(4 << chosen);
        at[i] = fetch_cone(p, chosen, (z + p.extent[0] / 2) * p.texels[0] / size,
                           (y + p.extent[1] / 2) * p.texels[1] / size,
                           (x + p.extent[2] / 2) * p.texels[2] / size);
    }
    return mix(at[0], at[1], unit_range(level - below));
}

// Occlusion and shadow without noise, from a few wide taps: for previews.
OTZI_CALL Darkness cone_darkness(const Params &p, float z, float y, float x) {
    float filled = cone_tap(p, z + p.ao_centre[0], y + p.ao_centre[1], x + p.ao_centre[2],
                            p.ao_radius);
    float dz = p.lamp[0] - z, dy = p.lamp[1] - y, dx = p.lamp[2] - x;
    float distance = larger(sqrtf(dz * dz + dy * dy + dx * dx), 1e-9f);
    const int taps = 6;
    float total = 0.0f, weights = 0.0f;
    for (int i = 0; i < taps; i++) {
        float fraction = (i + 0.5f) / taps;
        float weight = (1.0f - fraction) * (1.0f - fraction);
        float scale = smaller(mix(p.shadow_start, p.shadow_length, fraction) / distance, 1.0f);
        total += weight * cone_tap(p, z + dz * scale, y + dy * scale, x + dx * scale,
                                   scale * p.lamp_radius);
        weights += weight;
    }
    return {smaller(p.ao_strength * filled, 1.0f),
            smaller(p.shadow_strength * total / weights, 1.0f)};
}

OTZI_CALL Darkness baked_darkness(const Params &p, float z, float y, float x) {
    return fetch_light(p, (z + p.extent[0] / 2) * p.texels[0] / 2,
                       (y + p.extent[1] / 2) * p.texels[1] / 2,
                       (x + p.extent[2] / 2) * p.texels[2] / 2);
}

// What stands around and in the light of a point of the world.
OTZI_CALL Darkness darkness(const Params &p, const float *at, u32 key) {
    if (OTZI_LIGHTING_OF(p) == BAKED) return baked_darkness(p, at[0], at[1], at[2]);
    if (OTZI_LIGHTING_OF(p) == CONE) return cone_darkness(p, at[0], at[1], at[2]);
    Darkness dark = {0.0f, 0.0f};
    if (p.ao_strength > 0.0f) dark.occluded = ambient_occlusion(p, at[0], at[1], at[2], key);
    if (p.shadow_strength > 0.0f) dark.shaded = cone_shadow(p, at[0], at[1], at[2], key);
    return dark;
}

// What comes to a point where `darkness` of the light is replaced by the tint.
OTZI_CALL float lit(float darkness, float tint, float light) {
    return light - darkness * (light - tint);
}
