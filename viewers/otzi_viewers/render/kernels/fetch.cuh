// Interpolated values: by the texture units of a GPU, by eight loads on a processor. The only part
// that is written twice.  Sample i has its centre at coordinate i + 0.5; edges go on.
#pragma once
#include "params.cuh"

#ifdef __CUDACC__

#define OTZI_CALL static __device__ __forceinline__

#ifdef OTZI_COUNT_FETCHES  // what a frame's time is compared with, by the benchmark
__device__ u64 n_fetches;
#define OTZI_COUNT_ONE() atomicAdd(&n_fetches, (u64)1)
#else
#define OTZI_COUNT_ONE()
#endif

struct f4 { float x, y, z, w; };
OTZI_CALL float lane(const f4 &v, int i) { return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w; }

OTZI_CALL f4 fetch_pack(const Params &p, int pack, float z, float y, float x) {
    // Normalised reads of the whole volume; a brick's texture begins at its first sample.
    OTZI_COUNT_ONE();
    float4 v = tex3D<float4>(p.data[pack], x - p.held_first[2], y - p.held_first[1],
                             z - p.held_first[0]);
    return {v.x, v.y, v.z, v.w};
}

#define OTZI_BATCH 1

// Σ weight · occluder at points of a batch, in samples of the occluder; outside nothing stands.
OTZI_CALL float fetch_occluder(const Params &p, const float *z, const float *y, const float *x,
                               const float *weight) {
    bool inside = z[0] >= 0.0f && z[0] <= p.occluder_end[0] && y[0] >= 0.0f &&
                  y[0] <= p.occluder_end[1] && x[0] >= 0.0f && x[0] <= p.occluder_end[2];
    if (!inside) return 0.0f;
    OTZI_COUNT_ONE();
    return weight[0] * tex3D<float>(p.occluder, x[0], y[0], z[0]);
}

OTZI_CALL float fetch_cone(const Params &p, int level, float z, float y, float x) {
    OTZI_COUNT_ONE();
    return tex3D<float>(p.cones[level], x, y, z);
}

struct Darkness { float occluded, shaded; };

OTZI_CALL Darkness fetch_light(const Params &p, float z, float y, float x) {
    OTZI_COUNT_ONE();
    float2 found = tex3D<float2>(p.light, x, y, z);
    return {found.x, found.y};
}

#else

#include <math.h>
#define OTZI_CALL static inline __attribute__((always_inline))

typedef float f4 __attribute__((vector_size(16)));
typedef u8 narrow4 __attribute__((vector_size(4)));
typedef u16 wide4 __attribute__((vector_size(8)));
OTZI_CALL float lane(const f4 &v, int i) { return v[i]; }

// The texture units of a GPU weigh in 1/256: so does a processor that is to be compared with one.
#ifdef OTZI_WEIGHT_STEPS
#define OTZI_WEIGHT(weight) \
    (floorf((weight) * OTZI_WEIGHT_STEPS + 0.5f) * (1.0f / OTZI_WEIGHT_STEPS))
#else
#define OTZI_WEIGHT(weight) (weight)
#endif

struct Edge { int before, after; float weight; };

OTZI_CALL Edge edge(float coordinate, int length) {
    float shifted = coordinate - 0.5f;
    float below = floorf(shifted);
    int first = (int)below;
    int last = length - 1;
    int before = first < 0 ? 0 : first > last ? last : first;
    int after = first + 1 < 0 ? 0 : first + 1 > last ? last : first + 1;
    return {before, after, OTZI_WEIGHT(shifted - below)};
}

template <typename Four>
OTZI_CALL f4 four(const u8 *at) {
    Four values;
    __builtin_memcpy(&values, at, sizeof values);
    return __builtin_convertvector(values, f4);
}

typedef u8 narrow8 __attribute__((vector_size(8)));
typedef u16 wide8 __attribute__((vector_size(16)));
template <typename Four> struct Pair;
template <> struct Pair<narrow4> { typedef narrow8 type; };
template <> struct Pair<wide4> { typedef wide8 type; };
typedef float pair8 __attribute__((vector_size(32)));

// Two neighbours on x at once.
template <typename Four>
OTZI_CALL pair8 two(const u8 *at) {
    typename Pair<Four>::type values;
    __builtin_memcpy(&values, at, sizeof values);
    return __builtin_convertvector(values, pair8);
}

template <typename Four>
OTZI_CALL f4 fetch_four(const Params &p, int pack, const Edge &z, const Edge &y, const Edge &x) {
    size_t texel = sizeof(Four) * p.n_packs;
    size_t row = texel * p.held_shape[2], plane = row * p.held_shape[1];
    const u8 *base = (const u8 *)p.data[0] + sizeof(Four) * pack;
    size_t z0 = plane * (z.before - p.held_first[0]), z1 = plane * (z.after - p.held_first[0]);
    size_t y0 = row * (y.before - p.held_first[1]), y1 = row * (y.after - p.held_first[1]);
    size_t x0 = texel * (x.before - p.held_first[2]), x1 = texel * (x.after - p.held_first[2]);
    if (p.n_packs == 1 && x.after > x.before) {
        pair8 near0 = two<Four>(base + z0 + y0 + x0), near1 = two<Four>(base + z0 + y1 + x0);
        pair8 far0 = two<Four>(base + z1 + y0 + x0), far1 = two<Four>(base + z1 + y1 + x0);
        near0 += (near1 - near0) * y.weight;
        far0 += (far1 - far0) * y.weight;
        near0 += (far0 - near0) * z.weight;
        f4 first = __builtin_shufflevector(near0, near0, 0, 1, 2, 3);
        f4 second = __builtin_shufflevector(near0, near0, 4, 5, 6, 7);
        return (first + (second - first) * x.weight) * p.value_scale;
    }
    f4 a = four<Four>(base + z0 + y0 + x0), b = four<Four>(base + z0 + y0 + x1);
    f4 c = four<Four>(base + z0 + y1 + x0), d = four<Four>(base + z0 + y1 + x1);
    f4 e = four<Four>(base + z1 + y0 + x0), f = four<Four>(base + z1 + y0 + x1);
    f4 g = four<Four>(base + z1 + y1 + x0), h = four<Four>(base + z1 + y1 + x1);
    a += (b - a) * x.weight;
    c += (d - c) * x.weight;
    e += (f - e) * x.weight;
    g += (h - g) * x.weight;
    a += (c - a) * y.weight;
    e += (g - e) * y.weight;
    return (a + (e - a) * z.weight) * p.value_scale;
}

OTZI_CALL f4 fetch_pack(const Params &p, int pack, float z, float y, float x) {
    Edge ez = edge(z, p.shape[0]), ey = edge(y, p.shape[1]), ex = edge(x, p.shape[2]);
    return p.is_wide ? fetch_four<wide4>(p, pack, ez, ey, ex)
                     : fetch_four<narrow4>(p, pack, ez, ey, ex);
}

#define OTZI_BATCH 8

typedef float f8 __attribute__((vector_size(32)));
typedef int i8 __attribute__((vector_size(32)));

struct Edges { i8 before; i8 after; f8 weight; };

OTZI_CALL Edges edges(f8 coordinate, int length) {
    f8 shifted = coordinate - 0.5f;
    // Down, also below 0: conversion cuts toward it.
    i8 cut = __builtin_convertvector(shifted, i8);
    i8 first = cut + (__builtin_convertvector(cut, f8) > shifted);
    i8 last = length - 1 - (first ^ first);
    i8 next = first + 1;
    i8 before = first < 0 ? last ^ last : first > last ? last : first;
    i8 after = next < 0 ? last ^ last : next > last ? last : next;
    f8 weight = shifted - __builtin_convertvector(first, f8);
    for (int i = 0; i < 8; i++) weight[i] = OTZI_WEIGHT(weight[i]);
    return {before, after, weight};
}

// Σ weight · occluder at points of a batch, in samples of the occluder; outside nothing stands.
// Two bytes are read at once: the array goes on for one beyond its end.
OTZI_CALL float fetch_occluder(const Params &p, const float *z, const float *y, const float *x,
                               const float *weight) {
    f8 pz, py, px, w;
    __builtin_memcpy(&pz, z, sizeof pz);
    __builtin_memcpy(&py, y, sizeof py);
    __builtin_memcpy(&px, x, sizeof px);
    __builtin_memcpy(&w, weight, sizeof w);
    i8 inside = (pz >= 0.0f) & (pz <= p.occluder_end[0]) & (py >= 0.0f) &
                (py <= p.occluder_end[1]) & (px >= 0.0f) & (px <= p.occluder_end[2]);
    f8 nothing = w - w;
    pz = inside ? pz : nothing;
    py = inside ? py : nothing;
    px = inside ? px : nothing;
    w = inside ? w : nothing;
    const int *shape = p.occluder_shape;
    Edges ez = edges(pz, shape[0]), ey = edges(py, shape[1]), ex = edges(px, shape[2]);
    size_t row = shape[2], plane = row * shape[1];
    const u8 *values = (const u8 *)p.occluder;
    i8 a, b, c, d;
    for (int i = 0; i < 8; i++) {
        const u8 *near = values + plane * ez.before[i] + ex.before[i];
        const u8 *far = values + plane * ez.after[i] + ex.before[i];
        size_t y0 = row * ey.before[i], y1 = row * ey.after[i];
        u16 two[4];
        __builtin_memcpy(two, near + y0, 2);
        __builtin_memcpy(two + 1, near + y1, 2);
        __builtin_memcpy(two + 2, far + y0, 2);
        __builtin_memcpy(two + 3, far + y1, 2);
        a[i] = two[0];
        b[i] = two[1];
        c[i] = two[2];
        d[i] = two[3];
    }
    // At either end of a row both are the same sample.
    f8 across = ex.after > ex.before ? ex.weight : nothing;
    f8 sides[4];
    i8 pairs[4] = {a, b, c, d};
    for (int i = 0; i < 4; i++) {
        f8 one = __builtin_convertvector(pairs[i] & 255, f8);
        f8 other = __builtin_convertvector(pairs[i] >> 8, f8);
        sides[i] = one + (other - one) * across;
    }
    f8 low = sides[0] + (sides[1] - sides[0]) * ey.weight;
    f8 high = sides[2] + (sides[3] - sides[2]) * ey.weight;
    f8 found = (low + (high - low) * ez.weight) * w;
    float total = 0.0f;
    for (int i = 0; i < 8; i++) total += found[i];
    return total * (1.0f / 255.0f);
}

template <int stride>
OTZI_CALL float fetch_byte(const u8 *values, const int *shape, float z, float y, float x) {
    Edge ez = edge(z, shape[0]), ey = edge(y, shape[1]), ex = edge(x, shape[2]);
    size_t row = (size_t)shape[2] * stride, plane = row * shape[1];
    const u8 *near = values + plane * ez.before, *far = values + plane * ez.after;
    size_t y0 = row * ey.before, y1 = row * ey.after;
    size_t x0 = (size_t)stride * ex.before, x1 = (size_t)stride * ex.after;
    float a = near[y0 + x0] + (near[y0 + x1] - near[y0 + x0]) * ex.weight;
    float b = near[y1 + x0] + (near[y1 + x1] - near[y1 + x0]) * ex.weight;
    float c = far[y0 + x0] + (far[y0 + x1] - far[y0 + x0]) * ex.weight;
    float d = far[y1 + x0] + (far[y1 + x1] - far[y1 + x0]) * ex.weight;
    a += (b - a) * ey.weight;
    c += (d - c) * ey.weight;
    return (a + (c - a) * ez.weight) * (1.0f / 255.0f);
}

OTZI_CALL float fetch_cone(const Params &p, int level, float z, float y, float x) {
    return fetch_byte<1>((const u8 *)p.cones[level], p.cone_shape[level], z, y, x);
}

struct Darkness { float occluded, shaded; };

OTZI_CALL Darkness fetch_light(const Params &p, float z, float y, float x) {
    const u8 *values = (const u8 *)p.light;
    return {fetch_byte<2>(values, p.occluder_shape, z, y, x),
            fetch_byte<2>(values + 1, p.occluder_shape, z, y, x)};
}

#endif

OTZI_CALL float smaller(float a, float b) { return a < b ? a : b; }
OTZI_CALL float larger(float a, float b) { return a > b ? a : b; }
OTZI_CALL float mix(float a, float b, float weight) { return a + (b - a) * weight; }
OTZI_CALL float unit_range(float value) { return smaller(larger(value, 0.0f), 1.0f); }
