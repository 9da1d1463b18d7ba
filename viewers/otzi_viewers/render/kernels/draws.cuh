// Random numbers that depend on what they are for and on nothing else: the same in any order of
// rays, tiles, bricks, steps skipped, and threads.  One draw a statement: C++ leaves the order of
// arguments open.
#pragma once
#include "fetch.cuh"

#define OTZI_WHOLE_RAY 0xFFFFFFFFu

// A 32-bit hash of a 32-bit word (C. Wellons, hash prospector, lowbias32).
OTZI_CALL u32 scrambled(u32 word) {
    word ^= word >> 16;
    word *= 0x7FEB352Du;
    word ^= word >> 15;
    word *= 0x846CA68Bu;
    return word ^ (word >> 16);
}

OTZI_CALL u32 draw_key(u32 seed, u32 sample, u32 step, u32 pixel) {
    u32 key = scrambled(seed);
    key = scrambled(key + sample);
    key = scrambled(key + step);
    return scrambled(key + pixel);
}

// Draw `number` of a key, in [0, 1): 24 bits, which a float holds.
OTZI_CALL float uniform(u32 key, u32 number) {
    u32 word = scrambled(key + (number + 1) * 0x9E3779B9u);
    return (word >> 8) * (1.0f / 16777216.0f);
}
