// Max unpooling's indices: where they are, what they mean, and whether they are good.
//
// Index (p, q) of a channel is, by its type, the winner's offset r S + s in its window (uint8, int32), or its
// position h W + w in the plane (int64). An offset means the position
//
//   h = p stride_h - pad_top + r dilation_h,  w = q stride_w - pad_left + s dilation_w.
//
// It is good if it is a tap's (0 <= index < R S) and 0 <= h < H, 0 <= w < W; a position, if 0 <= index < H W.
// A bad one leads nowhere: nothing is written or read there, and the place of the first in memory is left in
// bad_index, complemented, so that 0 stands for none and the first is the greatest.
//
// A thread has chunks of V neighbouring channels, up to 16 bytes of values. One byte an index would make that
// a read of 16 / sizeof(value) bytes. So where channels allow it ("wide"), K = 16 / V neighbouring lanes
// share K K chunks: each reads the indices of K neighbouring chunks, 16 bytes; takes the values of chunks K
// apart, so that the lanes' 16 bytes lie side by side; and the lanes exchange what they have read.
#pragma once

#include "unpool_arguments.cuh"
#include "words.cuh"

namespace pyconvx {

__device__ inline void report_bad_index(const UnpoolArguments& args, long long place) {
  atomicMax(args.bad_index, ~static_cast<unsigned long long>(place));
}

// The offsets of one window for the channels of one thread. Value is an unsigned integer as wide as the
// elements: they are only moved.
template <class Value, class Index, int V_, bool WIDE>
class Offsets {
public:
  static constexpr int V = V_, K = WIDE ? 16 / V : 1;
  static constexpr int BYTES = V * sizeof(Value), WORDS = kWords<BYTES>;
  static constexpr unsigned NOWHERE = ~0u, NO_TAP = ~0u - 1;  // no index is either

  __device__ explicit Offsets(const UnpoolArguments& args)
      : args_(args), at_(place_of(args.sweep, blockIdx.x * blockDim.x + threadIdx.x)) {}

  __device__ const Place& at() const { return at_; }
  __device__ bool in_pooled(int p, int q) const { return p >= 0 && p < args_.p && q >= 0 && q < args_.q; }

  // Chunk k's first channel, and whether there is such a chunk.
  __device__ int channel(int k) const {
    return WIDE ? (at_.chunk / K * K * K + k * K + at_.chunk % K) * V : at_.chunk * V;
  }
  __device__ bool exists(int k) const { return at_.exists && channel(k) < args_.c; }

  __device__ long long pooled(int p, int q, int k) const {
    return ((static_cast<long long>(at_.image) * args_.p + p) * args_.q + q) * args_.c + channel(k);
  }
  __device__ long long plane(int h, int w, int k) const {
    return ((static_cast<long long>(at_.image) * args_.h + h) * args_.w + w) * args_.c + channel(k);
  }

  // Window (p, q)'s indices as they are, or NOWHERE if there is no such window. If wide, all lanes of the
  // warp call it.
  __device__ void load(unsigned (&code)[K][V], int p, int q) const {
    constexpr int PIECE = V * sizeof(Index);
    const Index* indices = static_cast<const Index*>(args_.indices);
    unsigned piece[K][kWords<PIECE>] = {};
    const bool window = in_pooled(p, q);
    if constexpr (WIDE) {
      unsigned bits[4] = {};
      const int c = at_.chunk * 16;
      if (window && at_.exists && c < args_.c)
        load_words<16>(
            bits, indices + ((static_cast<long long>(at_.image) * args_.p + p) * args_.q + q) * args_.c + c);
#pragma unroll
      for (int k = 0; k < K; ++k)
#pragma unroll
        for (int j = 0; j < kWords<PIECE>; ++j)
          piece[k][j] = PIECE >= 4 ? bits[k * PIECE / 4 + j] : bits[k * PIECE / 4] >> 8 * (k * PIECE % 4);
      transpose_pieces(piece);
    } else if (window && exists(0)) {
      load_words<PIECE>(piece[0], indices + pooled(p, q, 0));
    }
#pragma unroll
    for (int k = 0; k < K; ++k)
#pragma unroll
      for (int v = 0; v < V; ++v) {
        const unsigned index = sizeof(Index) == 1 ? piece[k][v / 4] >> 8 * (v % 4) & 0xff : piece[k][v];
        code[k][v] = window && exists(k) ? index : NOWHERE;
      }
  }

  // Those of window (p, q), which exists: bad ones become NOWHERE, and are reported.
  __device__ void check(unsigned (&code)[K][V], int p, int q) const {
    const int top = p * args_.stride_h - args_.pad_top, left = q * args_.stride_w - args_.pad_left;
    const bool inside = top >= 0 && top + (args_.r - 1) * args_.dilation_h < args_.h && left >= 0 &&
                        left + (args_.s - 1) * args_.dilation_w < args_.w;
    const unsigned taps = args_.r * args_.s;
#pragma unroll
    for (int k = 0; k < K; ++k)
#pragma unroll
      for (int v = V - 1; v >= 0; --v) {
        bool good = code[k][v] < taps;
        if (!inside && good) {
          const int r = args_.by_s(code[k][v]), s = code[k][v] - r * args_.s;
          const int h = top + r * args_.dilation_h, w = left + s * args_.dilation_w;
          good = h >= 0 && h < args_.h && w >= 0 && w < args_.w;
        }
        if (good) continue;
        code[k][v] = NOWHERE;
        if (exists(k))
          report_bad_index(args_,
                           pooled(p, q, k) + v + args_.sweep.first_image * args_.p * args_.q * args_.c);
      }
  }

  // The words of chunk k at those of its channels whose index is `tap`, and zeros.
  __device__ static void pick(unsigned (&to)[WORDS], const unsigned (&value)[WORDS],
                              const unsigned (&code)[V], unsigned tap) {
    bool chosen[V];
#pragma unroll
    for (int v = 0; v < V; ++v) chosen[v] = code[v] == tap;
#pragma unroll
    for (int j = 0; j < WORDS; ++j) to[j] = value[j] & word_mask<sizeof(Value)>(chosen, j);
  }

private:
  const UnpoolArguments& args_;
  const Place at_;
};

}  // namespace pyconvx
