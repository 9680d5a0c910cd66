// How winners are written: what a window's code becomes in memory, and how narrow indices become 16-byte
// stores.
//
// V channels have V sizeof(Index) bytes of indices. If those are fewer than 16 (8 for eight channels of a
// byte), K = 16 / that neighbouring lanes exchange the indices of K neighbouring windows: each then has those
// of one window for the channels of all K lanes, 16 bytes. If they are more, K = that / 16 lanes exchange
// vectors within one window, so that each store of the warp covers whole sectors.
#pragma once

#include "arguments.cuh"
#include "contest.cuh"

namespace pyconvx {

struct NoIndex {};  // winners are not remembered

template <class Index>
inline constexpr int kIndexBytes = sizeof(Index);
template <>
inline constexpr int kIndexBytes<NoIndex> = 0;

// How many windows' indices lanes exchange that have INDICES bytes of each, and access BYTES at once.
template <int BYTES, int INDICES>
inline constexpr int kExchanged =
    BYTES == 16 && INDICES > 0 && INDICES < 16 ? 16 / (INDICES > 0 ? INDICES : 16) : 1;

// V channels, accessed by BYTES at once, of WINDOWS windows that neighbour each other in a row.
template <class Index, int V, int BYTES, int WINDOWS>
class Winners {
  static constexpr int B = V * kIndexBytes<Index>;
  static constexpr int CHUNK = B < BYTES ? B : BYTES < kIndexBytes<Index> ? kIndexBytes<Index> : BYTES;
  static constexpr int CHUNKS = B / CHUNK;

public:
  // Lanes that exchange.
  static constexpr int K = BYTES < 16 ? 1 : B < 16 ? kExchanged<BYTES, B> : B / 16;

  // Stores code[j], of windows j < count, at V channels from `indices` on, and `pixel` indices further for
  // each window. All lanes of a warp call it; count is the same in lanes that exchange.
  template <class Code>
  __device__ static void store(const Code (&code)[WINDOWS][V], Index* indices, int pixel, int count,
                               bool exchange) {
    if constexpr (B < 16 && K > 1) {
      if (exchange) {
#pragma unroll
        for (int j = 0; j < WINDOWS; j += K) store_exchanged(code, j, indices, pixel, count);
        return;
      }
    }
#pragma unroll
    for (int j = 0; j < WINDOWS; ++j) {
      char* to = reinterpret_cast<char*>(indices + static_cast<long long>(j) * pixel);
      unsigned words[CHUNKS][kWords<CHUNK>];
#pragma unroll
      for (int k = 0; k < CHUNKS; ++k) pack<CHUNK>(code[j], k * (CHUNK / kIndexBytes<Index>), words[k]);
      int lane = 0, step = 1;
      if constexpr (B > 16 && K > 1) {
        if (exchange) {
          lane = threadIdx.x % K, step = K;
          to -= lane * B - lane * 16;
          transpose_pieces(words);
        }
      }
      if (j < count) {
#pragma unroll
        for (int k = 0; k < CHUNKS; ++k) store_words<CHUNK>(to + k * step * CHUNK, words[k]);
      }
    }
  }

  // The other way: code[j] as unsigned integers, of int64 the lower half, of those windows that are `here`;
  // of others one that no tap has. All lanes of a warp call it; `here` is the same in lanes that exchange.
  __device__ static void load(unsigned (&code)[WINDOWS][V], const Index* indices, int pixel,
                              const bool (&here)[WINDOWS], bool exchange) {
    if constexpr (B < 16 && K > 1) {
      if (exchange) {
#pragma unroll
        for (int j = 0; j < WINDOWS; j += K) load_exchanged(code, j, indices, pixel, here);
        return;
      }
    }
#pragma unroll
    for (int j = 0; j < WINDOWS; ++j) {
      const char* from = reinterpret_cast<const char*>(indices + static_cast<long long>(j) * pixel);
      unsigned words[CHUNKS][kWords<CHUNK>];
      int lane = 0, step = 1;
      if constexpr (B > 16 && K > 1) {
        if (exchange) lane = threadIdx.x % K, step = K;
      }
#pragma unroll
      for (int k = 0; k < CHUNKS; ++k) {
#pragma unroll
        for (int i = 0; i < kWords<CHUNK>; ++i) words[k][i] = ~0u;
        if (here[j]) load_words<CHUNK>(words[k], from - lane * (B - CHUNK) + k * step * CHUNK);
      }
      if constexpr (B > 16 && K > 1) {
        if (exchange) transpose_pieces(words);
      }
#pragma unroll
      for (int k = 0; k < CHUNKS; ++k) unpack<CHUNK>(code[j], k * (CHUNK / kIndexBytes<Index>), words[k]);
    }
  }

private:
  // The indices of BYTES_ / sizeof(Index) channels from `first` on.
  template <int SIZE, class Code>
  __device__ static void pack(const Code (&code)[V], int first, unsigned (&words)[kWords<SIZE>]) {
    constexpr int COUNT = SIZE / kIndexBytes<Index>;
#pragma unroll
    for (int i = 0; i < COUNT; ++i) {
      const Code x = code[first + i];
      if constexpr (kIndexBytes<Index> == 8) {
        const unsigned long long bits = static_cast<unsigned long long>(static_cast<long long>(x));
        words[2 * i] = static_cast<unsigned>(bits), words[2 * i + 1] = static_cast<unsigned>(bits >> 32);
      } else if constexpr (kIndexBytes<Index> == 4) {
        words[i] = static_cast<unsigned>(x);
      } else if (i % 4 == 0) {
        words[i / 4] = static_cast<unsigned>(x) & 0xff;
      } else {
        words[i / 4] |= (static_cast<unsigned>(x) & 0xff) << 8 * (i % 4);
      }
    }
  }

  template <int SIZE>
  __device__ static void unpack(unsigned (&code)[V], int first, const unsigned (&words)[kWords<SIZE>]) {
#pragma unroll
    for (int i = 0; i < SIZE / kIndexBytes<Index>; ++i)
      code[first + i] = kIndexBytes<Index> == 8   ? words[2 * i]
                        : kIndexBytes<Index> == 4 ? words[i]
                                                  : words[i / 4] >> 8 * (i % 4) & 0xff;
  }

  // Lane l + e loads window j + e's.
  __device__ static void load_exchanged(unsigned (&code)[WINDOWS][V], int j, const Index* indices, int pixel,
                                        const bool (&here)[WINDOWS]) {
    const int lane = threadIdx.x % K;
    bool mine = false;
#pragma unroll
    for (int k = 0; k < K; ++k)
      mine = lane == k ? j + k < WINDOWS && here[j + k < WINDOWS ? j + k : 0] : mine;
    unsigned words[4] = {~0u, ~0u, ~0u, ~0u};
    if (mine) load_words<16>(words, indices + static_cast<long long>(j + lane) * pixel - lane * V);
    unsigned piece[K][kWords<B>];
#pragma unroll
    for (int k = 0; k < K; ++k)
#pragma unroll
      for (int i = 0; i < kWords<B>; ++i)
        piece[k][i] = B >= 4 ? words[k * kWords<B> + i] : words[k * B / 4] >> 8 * (k * B % 4) & 0xffff;
    transpose_pieces(piece);
#pragma unroll
    for (int k = 0; k < K; ++k)
      if (j + k < WINDOWS) unpack<B>(code[j + k < WINDOWS ? j + k : 0], 0, piece[k]);
  }

  // Windows [j, j + K) of lanes [l, l + K): lane l + e stores window j + e's.
  template <class Code>
  __device__ static void store_exchanged(const Code (&code)[WINDOWS][V], int j, Index* indices, int pixel,
                                         int count) {
    unsigned piece[K][kWords<B>];
#pragma unroll
    for (int k = 0; k < K; ++k) pack<B>(code[j + k], 0, piece[k]);
    transpose_pieces(piece);
    unsigned words[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if constexpr (B == 2)
        words[i] = __byte_perm(piece[2 * i][0], piece[2 * i + 1][0], 0x5410);
      else
        words[i] = piece[i / kWords<B>][i % kWords<B>];
    }
    const int lane = threadIdx.x % K;
    if (j + lane < count)
      store_words<16>(indices + static_cast<long long>(j + lane) * pixel - lane * V, words);
  }
};

}  // namespace pyconvx
