// Max unpooling by indices that may lead anywhere, or whose windows overlap so much that looking at all that
// lie over an output would take longer. Who comes last is found first, in a workspace of one rank for each
// output:
//
//   last[n][h][w][c] = 1 + the greatest p Q + q whose index means (h, w), or 0 if none does
//
// by an integer maximum, which does not depend on the order that threads come in. Then forward,
//
//   output[n][h][w][c] = input[n][last - 1][c], or 0
//
// is a gather that writes every output once, and backward every pooled value takes the gradient from where it
// was put if it was the last there. A Rank has 32 bits if P Q has, otherwise 64.
#pragma once

#include "unpool.cuh"

namespace pyconvx {

// Zeros, 16 bytes at a time. A template, because several files of a build include it.
template <class Vector>
__global__ void __launch_bounds__(256) fill_zeros(const __grid_constant__ FillArguments args) {
  for (long long i = blockIdx.x * 256ll + threadIdx.x; i < args.vectors; i += gridDim.x * 256ll)
    static_cast<Vector*>(args.to)[i] = Vector{};
}

// The place in the plane that an index of window (p, q) means, or -1.
__device__ inline long long position_of(const UnpoolArguments& args, int, int, long long index) {
  return index >= 0 && index < static_cast<long long>(args.h) * args.w ? index : -1;
}
__device__ inline long long position_of(const UnpoolArguments& args, int p, int q, int index) {
  if (index < 0 || index >= args.r * args.s) return -1;
  const int r = args.by_s(index), s = index - r * args.s;
  const int h = p * args.stride_h - args.pad_top + r * args.dilation_h;
  const int w = q * args.stride_w - args.pad_left + s * args.dilation_w;
  if (h < 0 || h >= args.h || w < 0 || w >= args.w) return -1;
  return static_cast<long long>(h) * args.w + w;
}
__device__ inline long long position_of(const UnpoolArguments& args, int p, int q, unsigned char index) {
  return position_of(args, p, q, static_cast<int>(index));
}

// V neighbouring indices, for channels from `c` on of pooled position `at`.
template <class Index, int V>
struct IndexVector {
  static constexpr int BYTES = V * sizeof(Index);
  unsigned word[kWords<BYTES>];

  __device__ IndexVector(const UnpoolArguments& args, long long at) {
    load_words<BYTES>(word, static_cast<const Index*>(args.indices) + at);
  }
  __device__ Index operator[](int v) const {
    if constexpr (sizeof(Index) == 8)
      return static_cast<Index>(word[2 * v] | static_cast<unsigned long long>(word[2 * v + 1]) << 32);
    else if constexpr (sizeof(Index) == 4)
      return static_cast<Index>(word[v]);
    else
      return static_cast<Index>(word[v / 4] >> 8 * (v % 4));
  }
};

// V neighbouring values, one by one into words.
template <class Value, int V>
struct ValueVector {
  static constexpr int BYTES = V * sizeof(Value);
  unsigned word[kWords<BYTES>] = {};

  __device__ void set(int v, Value value) {
    if constexpr (sizeof(Value) == 8)
      word[2 * v] = static_cast<unsigned>(value), word[2 * v + 1] = static_cast<unsigned>(value >> 32);
    else if constexpr (sizeof(Value) == 4)
      word[v] = value;
    else
      word[v / 2] |= static_cast<unsigned>(value) << 16 * (v % 2);
  }
  __device__ void store(void* to, long long at) const {
    store_words<BYTES>(static_cast<Value*>(to) + at, word);
  }
};

// Threads sweep over pooled positions.
template <class Index, class Rank, int V>
__global__ void __launch_bounds__(256) mark_last(const __grid_constant__ UnpoolArguments args) {
  const Place at = place_of(args.sweep, blockIdx.x * 256 + threadIdx.x);
  if (!at.exists) return;
  const long long rank = static_cast<long long>(at.row) * args.q + at.column;
  const long long pooled =
      (at.image * (static_cast<long long>(args.p) * args.q) + rank) * args.c + at.chunk * V;
  const long long plane = static_cast<long long>(at.image) * args.h * args.w * args.c + at.chunk * V;
  const IndexVector<Index, V> indices(args, pooled);
#pragma unroll
  for (int v = 0; v < V; ++v) {
    const long long position = position_of(args, at.row, at.column, indices[v]);
    if (position < 0)
      report_bad_index(args, pooled + v + args.sweep.first_image * args.p * args.q * args.c);
    else
      atomicMax(static_cast<Rank*>(args.last) + plane + position * args.c + v, static_cast<Rank>(rank + 1));
  }
}

// Threads sweep over the plane. Those past the last repeat it, up to the store.
template <class Value, class Rank, int V>
__global__ void __launch_bounds__(256) take_last(const __grid_constant__ UnpoolArguments args) {
  const Place at = place_of(args.sweep, blockIdx.x * 256 + threadIdx.x);
  const long long output =
      ((static_cast<long long>(at.image) * args.h + at.row) * args.w + at.column) * args.c + at.chunk * V;
  const Value* input = static_cast<const Value*>(args.from) +
                       static_cast<long long>(at.image) * args.p * args.q * args.c + at.chunk * V;
  constexpr int BYTES = V * sizeof(Rank);
  unsigned word[kWords<BYTES>];
  load_words<BYTES>(word, static_cast<const Rank*>(args.last) + output);
  ValueVector<Value, V> values;
#pragma unroll
  for (int v = 0; v < V; ++v) {
    Rank rank = word[v * (sizeof(Rank) / 4)];
    if constexpr (sizeof(Rank) == 8) rank |= static_cast<Rank>(word[2 * v + 1]) << 32;
    values.set(v, rank ? input[(static_cast<long long>(rank) - 1) * args.c + v] : Value(0));
  }
  __syncwarp();  // lanes that had other values to read store together all the same
  if (at.exists) values.store(args.to, output);
}

// Threads sweep over pooled positions.
template <class Value, class Index, class Rank, int V>
__global__ void __launch_bounds__(256) take_last_backward(const __grid_constant__ UnpoolArguments args) {
  const Place at = place_of(args.sweep, blockIdx.x * 256 + threadIdx.x);
  const long long rank = static_cast<long long>(at.row) * args.q + at.column;
  const long long pooled =
      (at.image * (static_cast<long long>(args.p) * args.q) + rank) * args.c + at.chunk * V;
  const long long plane = static_cast<long long>(at.image) * args.h * args.w * args.c + at.chunk * V;
  const IndexVector<Index, V> indices(args, pooled);
  ValueVector<Value, V> values;
#pragma unroll
  for (int v = 0; v < V; ++v) {
    const long long position = position_of(args, at.row, at.column, indices[v]);
    const long long from = plane + position * args.c + v;
    const bool won =
        position >= 0 && static_cast<const Rank*>(args.last)[from] == static_cast<Rank>(rank + 1);
    values.set(v, won ? static_cast<const Value*>(args.from)[from] : Value(0));
  }
  __syncwarp();  // as above
  if (at.exists) values.store(args.to, pooled);
}

}  // namespace pyconvx
