// What a GPU calls: one thread a pixel, rays made from the camera.
#include "looks.cuh"

// Whether this ray begins in the eye or on a plane through it; directions have length 1.
OTZI_CALL void camera_ray(const Params &p, u32 pixel, float *origin, float *direction) {
    float across = (pixel % p.width + p.offset[1] - p.width * 0.5f) * p.pixel;
    float upward = (p.height * 0.5f - pixel / p.width - p.offset[0]) * p.pixel;
    float squared = 0.0f;
    for (int axis = 0; axis < 3; axis++) {
        float aside = across * p.right[axis] + upward * p.up[axis];
        origin[axis] = p.eye[axis] + (p.perspective ? 0.0f : aside);
        direction[axis] = p.forward[axis] + (p.perspective ? aside / p.distance : 0.0f);
        squared += direction[axis] * direction[axis];
    }
    float scale = rsqrtf(squared);
    for (int axis = 0; axis < 3; axis++) direction[axis] *= scale;
}

extern "C" __global__ void __launch_bounds__(128) march(const Params p, Ray *rays) {
    u32 column = blockIdx.x * 16 + threadIdx.x, row = blockIdx.y * 8 + threadIdx.y;
    if (column >= (u32)p.width || row >= (u32)p.height) return;
    u32 pixel = row * p.width + column;
    float origin[3], direction[3];
    camera_ray(p, pixel, origin, direction);
    Ray ray = rays[pixel];
    look_along(p, origin, direction, pixel, ray);
    rays[pixel] = ray;
}
