// Gradients that a pixel gathers from the windows over it.
#pragma once

#include "contest.cuh"

namespace pyconvx {

// V elements that are gradients. What is absent is 0.
template <class Element, int BYTES, bool MOVED>
class GradientSum {
  static constexpr int V = BYTES / sizeof(Element);
  using Number = Accumulator<Element>;

public:
  __device__ void clear() {
#pragma unroll
    for (int i = 0; i < kWords<BYTES>; ++i) words_[i] = 0;
#pragma unroll
    for (int v = 0; v < V; ++v) sum_[v] = 0;
  }

  // The gradients of one window, where it was won by the tap of this code.
  __device__ void add(const unsigned (&words)[kWords<BYTES>], const unsigned (&code)[V], unsigned tap) {
    bool won[V];
#pragma unroll
    for (int v = 0; v < V; ++v) won[v] = code[v] == tap;
    if constexpr (MOVED) {
#pragma unroll
      for (int i = 0; i < kWords<BYTES>; ++i) words_[i] |= words[i] & word_mask<sizeof(Element)>(won, i);
    } else {
#pragma unroll
      for (int v = 0; v < V; ++v)
        if (won[v]) sum_[v] += value(words, v);
    }
  }

  // The sums, rounded.
  __device__ void read(unsigned (&words)[kWords<BYTES>]) const {
    if constexpr (MOVED) {
#pragma unroll
      for (int i = 0; i < kWords<BYTES>; ++i) words[i] = words_[i];
    } else if constexpr (sizeof(Element) != 2) {
      elements_of<Element>(sum_, words);
    } else if constexpr (V == 1) {
      words[0] = Narrow<Element>::from(sum_[0]).bits;
    } else {
#pragma unroll
      for (int i = 0; i < V / 2; ++i)
        words[i] = is_f16<Element> ? ptx::cvt_rn_f16x2_f32(sum_[2 * i], sum_[2 * i + 1])
                                   : ptx::cvt_rn_bf16x2_f32(sum_[2 * i], sum_[2 * i + 1]);
    }
  }

  __device__ void store(void* to) const {
    unsigned words[kWords<BYTES>];
    read(words);
    store_words<BYTES>(to, words);
  }

private:
  __device__ static Number value(const unsigned (&words)[kWords<BYTES>], int v) {
    if constexpr (is_f16<Element>)
      return ptx::cvt_f32_f16(static_cast<unsigned short>(words[v / 2] >> 16 * (v % 2)));
    else
      return rank_of<Element>(words, v);
  }

  unsigned words_[kWords<BYTES>];
  Number sum_[V];
};

// Of the windows along an axis, those that reach over a position of the padded image.
__device__ inline int first_window(int position, int extent, const Division& by_stride) {
  return position < extent ? 0 : by_stride(position - extent) + 1;
}
__device__ inline int end_window(int position, const Division& by_stride, int windows) {
  const int end = by_stride(position) + 1;
  return end < windows ? end : windows;
}

}  // namespace pyconvx
