// Where fields of a structure lie, as a constant: NVRTC has no offsetof. A structure is read out of
// words that count up; the first word of a field is then its place, in words of four bytes.
#pragma once
#include "params.cuh"

template <typename Structure> struct Words { u32 word[sizeof(Structure) / 4]; };

template <typename Structure> constexpr Structure counted() {
    Words<Structure> words = {};
    for (u32 i = 0; i < sizeof(Structure) / 4; i++) words.word[i] = i;
    return __builtin_bit_cast(Structure, words);
}

constexpr u32 first_word(u64 field) { return (u32)field; }
constexpr u32 first_word(float field) { return __builtin_bit_cast(u32, field); }
constexpr u32 first_word(int field) { return (u32)field; }
constexpr u32 first_word(u32 field) { return field; }

template <typename Element, int count>
constexpr u32 first_word(const Element (&field)[count]) { return first_word(field[0]); }
