// What a processor calls: tiles of rays, from as many threads as there are.
#include <stddef.h>
#include "looks.cuh"

extern "C" {

// Size of the parameters and of a ray, then the offset of each parameter, for `params.py` to check.
int layout(size_t *sizes) {
    size_t found[] = {
        sizeof(Params), sizeof(Ray),
        offsetof(Params, data), offsetof(Params, shape), offsetof(Params, n_packs),
        offsetof(Params, value_scale), offsetof(Params, low), offsetof(Params, color),
        offsetof(Params, lamp), offsetof(Params, step), offsetof(Params, width),
        offsetof(Params, clip), offsetof(Params, shadow_line), offsetof(Params, offset),
    };
    int count = sizeof found / sizeof *found;
    for (int i = 0; i < count; i++) sizes[i] = found[i];
    return count;
}

// Carry rays through this brick. `rays` holds what they have been through: all of them in new ones.
void march(const Params *params, const float *origins, const float *directions, const u32 *pixels,
           Ray *rays, size_t n_rays) {
    for (size_t i = 0; i < n_rays; i++)
        look_along(*params, origins + 3 * i, directions + 3 * i, pixels[i], rays[i]);
}

// Occlusion and shadow, 255 being 1, of planes of the occluder's grid; nothing where nothing is near.
void bake(const Params *params, u8 *light, int first, int last) {
    const Params &p = *params;
    const int *shape = p.occluder_shape;
    for (int z = first; z < last; z++)
        for (int y = 0; y < shape[1]; y++)
            for (int x = 0; x < shape[2]; x++) {
                u8 *to = light + 2 * (((size_t)z * shape[1] + y) * shape[2] + x);
                float at[3] = {2 * z + 1.0f, 2 * y + 1.0f, 2 * x + 1.0f};
                if (empty_bricks(p, at) > 1) {
                    to[0] = to[1] = 0;
                    continue;
                }
                for (int axis = 0; axis < 3; axis++)
                    at[axis] = at[axis] / p.texels[axis] - p.extent[axis] / 2;
                u32 key = draw_key(p.seed, OTZI_WHOLE_RAY, z, y * shape[2] + x);
                to[0] = (u8)(ambient_occlusion(p, at[0], at[1], at[2], key) * 255.0f + 0.5f);
                to[1] = (u8)(cone_shadow(p, at[0], at[1], at[2], key) * 255.0f + 0.5f);
            }
}

float probe_occlusion(const Params *params, const float *point, u32 key) {
    return ambient_occlusion(*params, point[0], point[1], point[2], key);
}

float probe_shadow(const Params *params, const float *point, u32 key) {
    return cone_shadow(*params, point[0], point[1], point[2], key);
}

u32 key_of(u32 seed, u32 sample, u32 step, u32 pixel) { return draw_key(seed, sample, step, pixel); }
float draw(u32 key, u32 number) { return uniform(key, number); }
}
