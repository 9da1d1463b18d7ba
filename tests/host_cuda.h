// What gpu.cu needs to be compiled for a processor: one thread after the other, textures in software.
#pragma once
#include <math.h>
#include <stddef.h>
#include <string.h>

#include <utility>

#define __device__
#define __global__
#define __forceinline__ inline
#define __launch_bounds__(threads)

struct Triple { unsigned int x, y, z; };
static thread_local Triple blockIdx, threadIdx, blockDim;

struct float2 { float x, y; };
struct float4 { float x, y, z, w; };

// A texture object is the address of one of these.
struct HostTexture {
    const void *values;
    long long shape[3];
    long long n_channels, item_bytes;
    double weight_steps;  // of interpolation; 0 for exact weights, 256 for those of the hardware
};

static float host_texel(const HostTexture &t, long long z, long long y, long long x, int channel) {
    long long at[3] = {z, y, x};
    for (int axis = 0; axis < 3; axis++)
        at[axis] = at[axis] < 0 ? 0 : at[axis] >= t.shape[axis] ? t.shape[axis] - 1 : at[axis];
    size_t index = ((at[0] * t.shape[1] + at[1]) * t.shape[2] + at[2]) * t.n_channels + channel;
    if (t.item_bytes == 1) return ((const unsigned char *)t.values)[index] / 255.0f;
    return ((const unsigned short *)t.values)[index] / 65535.0f;
}

static float host_interpolated(unsigned long long handle, float x, float y, float z, int channel) {
    const HostTexture &t = *(const HostTexture *)handle;
    if (channel >= t.n_channels) return 0.0f;
    float at[3] = {z - 0.5f, y - 0.5f, x - 0.5f}, weight[3];
    long long first[3];
    for (int axis = 0; axis < 3; axis++) {
        float below = floorf(at[axis]);
        first[axis] = (long long)below;
        weight[axis] = at[axis] - below;
        if (t.weight_steps > 0)
            weight[axis] = floorf(weight[axis] * t.weight_steps + 0.5f) / t.weight_steps;
    }
    float planes[2];
    for (int dz = 0; dz < 2; dz++) {
        float rows[2];
        for (int dy = 0; dy < 2; dy++) {
            float one = host_texel(t, first[0] + dz, first[1] + dy, first[2], channel);
            float other = host_texel(t, first[0] + dz, first[1] + dy, first[2] + 1, channel);
            rows[dy] = one + (other - one) * weight[2];
        }
        planes[dz] = rows[0] + (rows[1] - rows[0]) * weight[1];
    }
    return planes[0] + (planes[1] - planes[0]) * weight[0];
}

template <typename T> T tex3D(unsigned long long handle, float x, float y, float z);
template <> inline float tex3D<float>(unsigned long long handle, float x, float y, float z) {
    return host_interpolated(handle, x, y, z, 0);
}
template <> inline float2 tex3D<float2>(unsigned long long handle, float x, float y, float z) {
    return {host_interpolated(handle, x, y, z, 0), host_interpolated(handle, x, y, z, 1)};
}
template <> inline float4 tex3D<float4>(unsigned long long handle, float x, float y, float z) {
    return {host_interpolated(handle, x, y, z, 0), host_interpolated(handle, x, y, z, 1),
            host_interpolated(handle, x, y, z, 2), host_interpolated(handle, x, y, z, 3)};
}

// Call a kernel for every thread of a grid. 0, or 1 + the place of an argument that is not as long as
// the kernel declares it, or -1 if there are not as many.
template <typename... Declared, size_t... place>
int host_launch(void (*kernel)(Declared...), const unsigned *grid, const unsigned *block,
                void **arguments, const size_t *sizes, int count,
                std::index_sequence<place...>) {
    if (count != (int)sizeof...(Declared)) return -1;
    size_t declared[] = {sizeof(Declared)...};
    for (int i = 0; i < count; i++)
        if (sizes[i] != declared[i]) return 1 + i;
    blockDim = {block[0], block[1], block[2]};
    for (unsigned i = 0; i < grid[0] * grid[1] * grid[2]; i++) {
        blockIdx = {i % grid[0], i / grid[0] % grid[1], i / grid[0] / grid[1]};
        for (unsigned j = 0; j < block[0] * block[1] * block[2]; j++) {
            threadIdx = {j % block[0], j / block[0] % block[1], j / block[0] / block[1]};
            kernel(*(std::remove_const_t<Declared> *)arguments[place]...);
        }
    }
    return 0;
}

template <typename... Declared>
int host_launch(void (*kernel)(Declared...), const unsigned *grid, const unsigned *block,
                void **arguments, const size_t *sizes, int count) {
    return host_launch(kernel, grid, block, arguments, sizes, count,
                       std::index_sequence_for<Declared...>());
}

#define HOST_KERNEL(name)                                                                      \
    extern "C" int launch_##name(const unsigned *grid, const unsigned *block, void **arguments, \
                                 const size_t *sizes, int count) {                             \
        return host_launch(name, grid, block, arguments, sizes, count);                        \
    }
