// What a processor calls: tiles of rays, from as many threads as there are.
#include <stddef.h>
#include "bake.cuh"
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

// Occlusion and shadow of planes of the occluder's grid.
void bake(const Params *params, u8 *light, int first, int last) {
    const int *shape = params->occluder_shape;
    for (int z = first; z < last; z++)
        for (int y = 0; y < shape[1]; y++)
            for (int x = 0; x < shape[2]; x++) bake_place(*params, light, z, y, x);
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
