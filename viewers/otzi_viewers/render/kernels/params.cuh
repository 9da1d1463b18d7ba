// What a kernel is told: plain data, laid out as `params.py` lays it out (checked by `layout`).
// World lengths are in voxels, z, y, x, from the centre of the box.
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#ifdef __CUDACC_RTC__  // no <math.h> there
#define INFINITY __int_as_float(0x7F800000)
#endif

#define OTZI_LANES 16
#define OTZI_CONES 5

enum Lighting { PROBES, BAKED, CONE };
enum Look { PHYSICAL, VIEWER, PLAIN, MAXIMUM, SURFACE };

// A GPU's kernel is compiled for one look and lighting: with all of them it would need too many
// registers for the texture units to be kept busy.
#ifdef OTZI_LOOK
#define OTZI_LOOK_OF(p) OTZI_LOOK
#define OTZI_LIGHTING_OF(p) OTZI_LIGHTING
#else
#define OTZI_LOOK_OF(p) (p).look
#define OTZI_LIGHTING_OF(p) (p).lighting
#endif

struct Params {
    // Addresses on a processor, texture objects or device addresses on a GPU.
    u64 data[OTZI_LANES / 4];
    u64 occluder;
    u64 cones[OTZI_CONES];  // the occluder at a quarter of the resolution, an eighth …
    u64 light;              // baked, two channels: occlusion and shadow
    u64 distances;
    u64 ball;

    int shape[3];           // of the whole volume, in samples
    int held_first[3];      // of what lies in `data`
    int held_shape[3];
    int own_first[3];       // samples of this brick, half open
    int own_last[3];
    int occluder_shape[3];
    int brick_shape[3];     // of `distances`
    int n_packs;            // of four channels
    int is_wide;            // 16 bits a channel, otherwise 8
    int density_lane;
    int n_ball;
    int n_ao;
    int n_shadow;
    int lighting;
    int look;
    int cone_shape[OTZI_CONES][3];
    int n_cones;

    float value_scale;      // of stored values to [0, 1]
    float extent[3];
    float texels[3];        // samples per world length
    float occluder_end[3];  // of the box, in samples of the occluder
    float low[OTZI_LANES];
    float inverse_span[OTZI_LANES];
    float extinction[OTZI_LANES];  // 0 where there is no class
    float color[3][OTZI_LANES];

    float shadow_line[3];   // of the `viewer` look: from a point to the end of its shadow ray

    float lamp[3];
    float lamp_radius;
    float lamp_color[3];
    float shadow_start;
    float shadow_length;
    float shadow_strength;
    float shadow_tint[3];
    float ao_radius;
    float ao_centre[3];
    float ao_strength;
    float ao_tint[3];

    float step;
    float gate;
    float iso;              // density of the surface
    float clip[OTZI_LANES][4];  // what is drawn of a class: normal · position + offset >= 0
    u32 seed;
    u32 sample;

    // The camera, for rays that the kernel makes itself.
    int width;
    int height;
    int perspective;
    float eye[3];
    float right[3];
    float up[3];
    float forward[3];
    float pixel;            // world length of one at the target
    float distance;
    float offset[2];        // place in the pixel, row and column
};

// What is kept of a ray from one brick to the next.
struct Ray {
    float color[3];
    float transmittance;
    float depth;
    float light[3];
    float pending;          // below 0: not lit yet
};
