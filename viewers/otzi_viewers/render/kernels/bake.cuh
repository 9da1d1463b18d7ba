// The light at the places of the occluder's grid, probed once for all pictures.
#pragma once
#include "march.cuh"

// Occlusion and shadow, 255 being 1, at a place of the grid; nothing where nothing is near.
OTZI_CALL void bake_place(const Params &p, u8 *light, int z, int y, int x) {
    const int *shape = p.occluder_shape;
    u8 *to = light + 2 * (((size_t)z * shape[1] + y) * shape[2] + x);
    float at[3] = {2 * z + 1.0f, 2 * y + 1.0f, 2 * x + 1.0f};
    if (empty_bricks(p, at) > 1) {
        to[0] = to[1] = 0;
        return;
    }
    for (int axis = 0; axis < 3; axis++)
        at[axis] = at[axis] / p.texels[axis] - p.extent[axis] / 2;
    u32 key = draw_key(p.seed, OTZI_WHOLE_RAY, z, y * shape[2] + x);
    to[0] = (u8)(ambient_occlusion(p, at[0], at[1], at[2], key) * 255.0f + 0.5f);
    to[1] = (u8)(cone_shadow(p, at[0], at[1], at[2], key) * 255.0f + 0.5f);
}
