// Element-wise kernels: who has which elements, and a bit for each.
//
// A thread has 32 elements, whose bits are one word of a mask: bit i % 32 of word i / 32 is element i's. They
// are K vectors of V, and if they were neighbours, a warp's accesses would lie 32 elements apart. So K
// neighbouring lanes share K K vectors: lane e has vectors k K + e, k = 0 ... K - 1, of the group's, and each
// access of the lanes is one piece of memory. Word e, for the vectors e K ... e K + K - 1, then has V bits
// from every lane j of the group, its vector e's, from bit j V on.
#pragma once

#include "../pool/words.cuh"
#include "arguments.cuh"

namespace pyconvx {

template <class Element, int V>
class Strip {
public:
  static constexpr int K = 32 / V, BYTES = V * sizeof(Element), WORDS = kWords<BYTES>;
  using Number = Accumulator<Element>;

  __device__ explicit Strip(const ElementwiseArguments& args)
      : args_(args), thread_(blockIdx.x * 256 + threadIdx.x) {}

  // Vector k's first element; some, or all, of its elements may not exist.
  __device__ int first(int k) const { return ((thread_ / K * K + k) * K + thread_ % K) * V; }

  __device__ void load(unsigned (&to)[WORDS], const void* from, int k) const {
    const int at = first(k);
    const Element* element = static_cast<const Element*>(from) + at;
    if (at + V <= args_.count) return load_words<BYTES>(to, element);
#pragma unroll
    for (int j = 0; j < WORDS; ++j) to[j] = 0;
#pragma unroll
    for (int v = 0; v < V; ++v)
      if (at + v < args_.count) {
        unsigned bits[kWords<sizeof(Element)>];
        load_words<sizeof(Element)>(bits, element + v);
        if constexpr (sizeof(Element) == 2)
          to[v / 2] |= bits[0] << 16 * (v % 2);
        else
#pragma unroll
          for (int j = 0; j < kWords<sizeof(Element)>; ++j) to[v * kWords<sizeof(Element)> + j] = bits[j];
      }
  }

  __device__ void store(const unsigned (&from)[WORDS], int k) const {
    const int at = first(k);
    Element* element = static_cast<Element*>(args_.to) + at;
    if (at + V <= args_.count) return store_words<BYTES>(element, from);
#pragma unroll
    for (int v = 0; v < V; ++v)
      if (at + v < args_.count) {
        unsigned bits[kWords<sizeof(Element)>];
        if constexpr (sizeof(Element) == 2)
          bits[0] = from[v / 2] >> 16 * (v % 2);
        else
#pragma unroll
          for (int j = 0; j < kWords<sizeof(Element)>; ++j) bits[j] = from[v * kWords<sizeof(Element)> + j];
        store_words<sizeof(Element)>(element + v, bits);
      }
  }

  // The words of a vector where `bits`, of which the lowest is the first element's, are set; zeros elsewhere.
  __device__ static void keep(unsigned (&words)[WORDS], unsigned bits) {
    bool chosen[V];
#pragma unroll
    for (int v = 0; v < V; ++v) chosen[v] = bits >> v & 1;
#pragma unroll
    for (int j = 0; j < WORDS; ++j) words[j] &= word_mask<sizeof(Element)>(chosen, j);
  }

  // Writes the mask, of which a lane has V bits for each of its vectors. In each of log2(K) rounds a lane
  // keeps half of its words and adds what its partner has of them. All lanes take part.
  __device__ void store_mask(const unsigned (&bits)[K]) const {
    const int lane = threadIdx.x % K;
    unsigned word[K];
#pragma unroll
    for (int k = 0; k < K; ++k) word[k] = bits[k] << lane * V;
#pragma unroll
    for (int half = K / 2; half > 0; half /= 2) {
      const bool upper = lane & half;
#pragma unroll
      for (int k = 0; k < half; ++k) {
        const unsigned given = upper ? word[k] : word[k + half];
        word[k] = (upper ? word[k + half] : word[k]) | __shfl_xor_sync(~0u, given, half);
      }
    }
    const int bytes = (args_.count + 7) / 8 - 4 * thread_;
    unsigned char* mask = static_cast<unsigned char*>(args_.mask) + 4 * thread_;
    if (args_.mask_words && bytes >= 4)
      *reinterpret_cast<unsigned*>(mask) = word[0];
    else
      for (int i = 0; i < 4 && i < bytes; ++i) mask[i] = static_cast<unsigned char>(word[0] >> 8 * i);
  }

  // Reads it. All lanes take part.
  __device__ void load_mask(unsigned (&bits)[K]) const {
    const int bytes = (args_.count + 7) / 8 - 4 * thread_;
    const unsigned char* mask = static_cast<const unsigned char*>(args_.mask) + 4 * thread_;
    unsigned word = 0;
    if (args_.mask_words && bytes >= 4)
      word = *reinterpret_cast<const unsigned*>(mask);
    else
      for (int i = 0; i < 4 && i < bytes; ++i) word |= static_cast<unsigned>(mask[i]) << 8 * i;
#pragma unroll
    for (int k = 0; k < K; ++k) bits[k] = __shfl_sync(~0u, word, k, K) >> threadIdx.x % K * V;
  }

private:
  const ElementwiseArguments& args_;
  const int thread_;
};

}  // namespace pyconvx
