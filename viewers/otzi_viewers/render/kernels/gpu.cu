// What a GPU calls: one thread a pixel, in tiles of 16 × 8, rays made from the camera. Rays, light
// and film stay on the device; each thread writes its own place, so there are no atomics.
#include "bake.cuh"
#include "looks.cuh"

// Pixels of the picture, half open.
struct Rectangle { int first_row, first_column, last_row, last_column; };

// Where this thread's ray begins, in the eye or on a plane through it; directions have length 1.
OTZI_CALL void camera_ray(const Params &p, int row, int column, float *origin, float *direction) {
    float across = (column + p.offset[1] - p.width * 0.5f) * p.pixel;
    float upward = (p.height * 0.5f - row - p.offset[0]) * p.pixel;
    float squared = 0.0f;
    for (int axis = 0; axis < 3; axis++) {
        float aside = across * p.right[axis] + upward * p.up[axis];
        origin[axis] = p.eye[axis] + (p.perspective ? 0.0f : aside);
        direction[axis] = p.forward[axis] + (p.perspective ? aside / p.distance : 0.0f);
        squared += direction[axis] * direction[axis];
    }
    float scale = 1.0f / sqrtf(squared);
    for (int axis = 0; axis < 3; axis++) direction[axis] *= scale;
}

OTZI_CALL int this_row(const Rectangle &where) {
    return where.first_row + (int)(blockIdx.y * blockDim.y + threadIdx.y);
}

OTZI_CALL int this_column(const Rectangle &where) {
    return where.first_column + (int)(blockIdx.x * blockDim.x + threadIdx.x);
}

extern "C" {

// New rays: they have been through nothing.
__global__ void begin(Ray *rays, u32 n_rays) {
    u32 index = blockIdx.x * blockDim.x + threadIdx.x;
    if (index < n_rays) rays[index] = new_ray();
}

// Carry the rays of a rectangle through this brick; `rays` holds one for each pixel of the picture.
__global__ void __launch_bounds__(128) march(const Params p, Ray *rays, const Rectangle where) {
    int row = this_row(where), column = this_column(where);
    if (row >= where.last_row || column >= where.last_column) return;
    u32 pixel = (u32)row * p.width + column;
    float origin[3], direction[3];
    camera_ray(p, row, column, origin, direction);
    Ray ray = rays[pixel];
    look_along(p, origin, direction, pixel, ray);
    rays[pixel] = ray;
}

// Whether light comes through anywhere in a rectangle, in any of `n_samples` pictures of rays: 1 is
// written by whoever finds it, 0 by nobody.
__global__ void find_open(const Ray *rays, u32 n_samples, u32 n_pixels, u32 width,
                          const Rectangle where, u32 *is_open) {
    int row = this_row(where), column = this_column(where);
    if (row >= where.last_row || column >= where.last_column) return;
    size_t pixel = (size_t)row * width + column;
    for (u32 sample = 0; sample < n_samples; sample++)
        if (rays[(size_t)sample * n_pixels + pixel].transmittance >= OTZI_LEAST_TRANSMITTANCE)
            *is_open = 1;
}

// Rays that are through, onto the film: colours summed, the depth of the first sample.
__global__ void expose(const Ray *rays, double *total, float *depth, u32 n_pixels, int is_first) {
    u32 pixel = blockIdx.x * blockDim.x + threadIdx.x;
    if (pixel >= n_pixels) return;
    const Ray &ray = rays[pixel];
    double *sum = total + 4 * (size_t)pixel;
    for (int c = 0; c < 3; c++) sum[c] = (is_first ? 0.0 : sum[c]) + ray.color[c];
    sum[3] = (is_first ? 0.0 : sum[3]) + (1.0f - ray.transmittance);
    if (is_first) depth[pixel] = ray.depth;
}

// The mean of what is on the film.
__global__ void develop(const double *total, float *rgba, u32 n_values, u32 n_samples) {
    u32 index = blockIdx.x * blockDim.x + threadIdx.x;
    if (index < n_values) rgba[index] = (float)(total[index] / n_samples);
}

// Occlusion and shadow of the occluder's grid; blocks are 16 × 8 × 1.
__global__ void __launch_bounds__(128) bake(const Params p, u8 *light) {
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x < p.occluder_shape[2] && y < p.occluder_shape[1]) bake_place(p, light, blockIdx.z, y, x);
}
}
