// Who wins a window: a tap that is greater than the best so far or NaN, in row-major order of taps. The first
// tap inside the image wins whatever it is. So the first of equals wins, and the last of NaNs.
//
// Elements are compared as ranks. A rank is the element itself in f32 and f64. In the 16-bit formats it is
// the float whose upper half is the element and whose lower half is zero: both formats are sign and
// magnitude, as floats are, so ranks compare as the elements do, -0 and 0 equal, and an element is moved
// through the contest without a conversion. A bf16's rank is its value. A f16's is another number: infinity's
// is 2^121, and NaNs lie beyond it, most of them as numbers.
#pragma once

#include "words.cuh"

namespace pyconvx {

template <class Element>
using Rank = Accumulator<Element>;

template <class Element>
inline constexpr bool is_f16 = false;
template <>
inline constexpr bool is_f16<f16> = true;

template <class Element, int WORDS>
__device__ inline Rank<Element> rank_of(const unsigned (&words)[WORDS], int v) {
  if constexpr (sizeof(Element) == 8)
    return ptx::bits_to_f64(words[2 * v], words[2 * v + 1]);
  else if constexpr (sizeof(Element) == 4)
    return ptx::bits_to_f32(words[v]);
  else
    return ptx::bits_to_f32(v % 2 ? words[v / 2] & 0xffff0000u : words[v / 2] << 16);
}

// The elements with these ranks.
template <class Element, int V>
__device__ inline void elements_of(const Rank<Element> (&rank)[V],
                                   unsigned (&words)[kWords<V * sizeof(Element)>]) {
#pragma unroll
  for (int v = 0; v < V; ++v) {
    if constexpr (sizeof(Element) == 8) {
      const uint2 bits = ptx::f64_to_bits(rank[v]);
      words[2 * v] = bits.x, words[2 * v + 1] = bits.y;
    } else if constexpr (sizeof(Element) == 4) {
      words[v] = ptx::f32_to_bits(rank[v]);
    } else if constexpr (V == 1) {
      words[0] = ptx::f32_to_bits(rank[0]) >> 16;
    } else if (v % 2) {
      words[v / 2] = __byte_perm(ptx::f32_to_bits(rank[v - 1]), ptx::f32_to_bits(rank[v]), 0x7632);
    }
  }
}

// The rank of an infinity of that sign.
template <class Element>
__device__ inline Rank<Element> infinite_rank(bool negative) {
  const unsigned sign = negative ? 0x80000000u : 0;
  if constexpr (sizeof(Element) == 8)
    return ptx::bits_to_f64(0, sign | 0x7ff00000u);
  else
    return ptx::bits_to_f32(sign | (is_f16<Element> ? 0x7c000000u : 0x7f800000u));
}

template <class Element>
__device__ inline bool is_nan_rank(Rank<Element> x) {
  if constexpr (is_f16<Element>)
    return !(fabsf(x) <= infinite_rank<f16>(false));
  else
    return x != x;
}

// Does a ReLU whose output this is pass no gradient on? A NaN passes it.
template <class Element>
__device__ inline bool is_closed(Rank<Element> x) {
  return (x <= 0) & !is_nan_rank<Element>(x);
}

// As csrc/cpu has it: what is not above 0 becomes +0, and NaN stays.
template <class Element>
__device__ inline Rank<Element> relu_rank(Rank<Element> x) {
  return is_closed<Element>(x) ? Rank<Element>(0) : x;
}

// best, code = x, tap if it is the first, NaN or greater. Written as instructions, because the compiler makes
// branches of the comparisons, at which the lanes of a warp part ways.
template <class Element, class Code>
__device__ inline void challenge(Rank<Element>& best, Code& code, Rank<Element> x, Code tap, bool first) {
  if constexpr (sizeof(Element) == 8)
    ptx::challenge_f64(best, code, x, tap, first);
  else if constexpr (is_f16<Element>)
    ptx::challenge_bounded_f32(best, code, x, tap, first, infinite_rank<f16>(false));
  else
    ptx::challenge_f32(best, code, x, tap, first);
}

// Of a window that begins at `origin`, the first tap that is not before the image.
__device__ inline int first_tap(int origin, const Division& by_dilation) {
  return origin >= 0 ? 0 : by_dilation(by_dilation.divisor - 1 - origin);
}

// The contests of V neighbouring channels. A winner's code is what the caller gives its tap.
template <class Element, int V, class Code, bool CODED>
struct Contest {
  Rank<Element> best[V];
  Code code[CODED ? V : 1];

  // Before any tap: what a window without one has.
  __device__ void open() {
#pragma unroll
    for (int v = 0; v < V; ++v) best[v] = infinite_rank<Element>(true);
#pragma unroll
    for (int v = 0; v < (CODED ? V : 1); ++v) code[v] = -1;
  }

  __device__ void open(int v, Rank<Element> x, Code tap) {
    best[v] = x;
    code[CODED ? v : 0] = tap;
  }

  __device__ void offer(int v, Rank<Element> x, Code tap, bool first) {
    challenge<Element>(best[v], code[CODED ? v : 0], x, tap, first);
  }

  // The winners of a later row of the same windows.
  __device__ void offer(const Contest& row, bool first) {
#pragma unroll
    for (int v = 0; v < V; ++v) offer(v, row.best[v], row.code[CODED ? v : 0], first);
  }
};

}  // namespace pyconvx
