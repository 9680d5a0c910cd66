// Vectors of elements that are moved and not computed with: 32-bit words, whatever they hold.
#pragma once

#include "../device.cuh"

namespace pyconvx {

template <int BYTES>
inline constexpr int kWords = BYTES < 4 ? 1 : BYTES / 4;

// BYTES from an address that is a multiple of them, in one access.
template <int BYTES>
__device__ inline void load_words(unsigned (&to)[kWords<BYTES>], const void* from) {
  if constexpr (BYTES == 16) {
    const uint4 bits = *static_cast<const uint4*>(from);
    to[0] = bits.x, to[1] = bits.y, to[2] = bits.z, to[3] = bits.w;
  } else if constexpr (BYTES == 8) {
    const uint2 bits = *static_cast<const uint2*>(from);
    to[0] = bits.x, to[1] = bits.y;
  } else if constexpr (BYTES == 4) {
    to[0] = *static_cast<const unsigned*>(from);
  } else if constexpr (BYTES == 2) {
    to[0] = *static_cast<const unsigned short*>(from);
  } else {
    to[0] = *static_cast<const unsigned char*>(from);
  }
}

template <int BYTES>
__device__ inline void store_words(void* to, const unsigned (&from)[kWords<BYTES>]) {
  if constexpr (BYTES == 16)
    ptx::store_global(to, uint4{from[0], from[1], from[2], from[3]});
  else if constexpr (BYTES == 8)
    ptx::store_global(to, uint2{from[0], from[1]});
  else if constexpr (BYTES == 4)
    *static_cast<unsigned*>(to) = from[0];
  else if constexpr (BYTES == 2)
    *static_cast<unsigned short*>(to) = static_cast<unsigned short>(from[0]);
  else
    *static_cast<unsigned char*>(to) = static_cast<unsigned char>(from[0]);
}

// The numbers in a vector of V elements, and back, rounded to nearest even.

template <class Element, int V>
__device__ inline void widen_words(Accumulator<Element> (&to)[V],
                                   const unsigned (&from)[kWords<V * sizeof(Element)>]) {
#pragma unroll
  for (int v = 0; v < V; ++v) {
    if constexpr (sizeof(Element) == 8)
      to[v] = ptx::bits_to_f64(from[2 * v], from[2 * v + 1]);
    else if constexpr (sizeof(Element) == 4)
      to[v] = ptx::bits_to_f32(from[v]);
    else
      to[v] = widen(Element{static_cast<unsigned short>(from[v / 2] >> 16 * (v % 2))});
  }
}

template <class Element, int V>
__device__ inline void narrow_words(unsigned (&to)[kWords<V * sizeof(Element)>],
                                    const Accumulator<Element> (&from)[V]) {
#pragma unroll
  for (int v = 0; v < V; ++v) {
    if constexpr (sizeof(Element) == 8) {
      const uint2 bits = ptx::f64_to_bits(from[v]);
      to[2 * v] = bits.x, to[2 * v + 1] = bits.y;
    } else if constexpr (sizeof(Element) == 4) {
      to[v] = ptx::f32_to_bits(from[v]);
    } else if constexpr (V == 1) {
      to[0] = Narrow<Element>::from(from[0]).bits;
    } else if (v % 2 == 0) {
      to[v / 2] = Narrow<Element>::pair(from[v], from[v + 1]);
    }
  }
}

// Ones in those elements, of BYTES each, of word `j` of a vector of V that are chosen.
template <int BYTES, int V>
__device__ inline unsigned word_mask(const bool (&chosen)[V], int j) {
  if constexpr (BYTES >= 4)
    return chosen[j * 4 / BYTES] ? ~0u : 0u;
  else if constexpr (V == 1)
    return chosen[0] ? ~0u : 0u;
  else
    return (chosen[2 * j] ? 0xffffu : 0u) | (chosen[2 * j + 1] ? 0xffff0000u : 0u);
}

// Among COUNT neighbouring lanes, each of which has COUNT pieces of WORDS words: lane e's piece k becomes
// lane k's piece e. Every lane of the warp takes part. In each of log2(COUNT) rounds a lane keeps half of its
// pieces and swaps the other half with one partner's.
template <int COUNT, int WORDS>
__device__ inline void transpose_pieces(unsigned (&piece)[COUNT][WORDS]) {
#pragma unroll
  for (int step = 1; step < COUNT; step *= 2) {
    const bool upper = threadIdx.x & step;
#pragma unroll
    for (int k = 0; k < COUNT; ++k) {
      if (k & step) continue;
#pragma unroll
      for (int j = 0; j < WORDS; ++j) {
        const unsigned given = upper ? piece[k][j] : piece[k | step][j];
        const unsigned taken = __shfl_xor_sync(~0u, given, step);
        piece[k][j] = upper ? taken : piece[k][j];
        piece[k | step][j] = upper ? piece[k | step][j] : taken;
      }
    }
  }
}

}  // namespace pyconvx
