// What lies in another image where a max pooling's winners were:
//
//   output[n][p][q][c] = input[n][h][w][c], where (h, w) is what index[n][p][q][c] says
//
// or 0 where that is outside the plane, which is how a window without a winner is remembered. An index is an
// offset in its window or a position in the plane; see max_pool.cuh.
//
// A thread owns V neighbouring channels of one window. Each channel has a winner of its own, so the image is
// read element by element; the output is written BYTES at once.
#pragma once

#include "arguments.cuh"
#include "words.cuh"

namespace pyconvx {

// Bits is an unsigned integer as wide as the elements: they are only moved.
template <class Bits, class Index, int BYTES>
__global__ void __launch_bounds__(256) max_pool_gather(const __grid_constant__ MaxPoolArguments args) {
  constexpr int V = BYTES / sizeof(Bits), IN_WORD = 4 / sizeof(Bits) > 1 ? 4 / sizeof(Bits) : 1;
  constexpr bool FLAT = sizeof(Index) == 8;
  const Place at = place_of(args.sweep, blockIdx.x * blockDim.x + threadIdx.x);
  if (!at.exists) return;
  const int c = at.chunk * V;
  const long long place =
      ((static_cast<long long>(at.image) * args.p + at.row) * args.q + at.column) * args.c + c;
  const Index* indices = static_cast<const Index*>(args.indices) + place;
  const Bits* image =
      static_cast<const Bits*>(args.from) + static_cast<long long>(at.image) * args.h * args.w * args.c;
  const int top = at.row * args.stride_h - args.pad_top, left = at.column * args.stride_w - args.pad_left;
  unsigned words[kWords<BYTES>] = {};
#pragma unroll
  for (int v = 0; v < V; ++v) {
    const Index index = indices[v];
    long long position = static_cast<long long>(index);
    bool inside = index >= 0 && position < static_cast<long long>(args.h) * args.w;
    if constexpr (!FLAT) {
      inside = index >= 0 && position < static_cast<long long>(args.r) * args.s;
      const int r = inside ? args.by_s(static_cast<unsigned>(index)) : 0,
                s = static_cast<int>(index) - r * args.s;
      const int h = top + r * args.dilation_h, w = left + s * args.dilation_w;
      inside = inside && h >= 0 && h < args.h && w >= 0 && w < args.w;
      position = static_cast<long long>(h) * args.w + w;
    }
    if (!inside) continue;
    const Bits bits = image[position * args.c + c + v];
    if constexpr (sizeof(Bits) == 8)
      words[2 * v] = static_cast<unsigned>(bits), words[2 * v + 1] = static_cast<unsigned>(bits >> 32);
    else
      words[v / IN_WORD] |= static_cast<unsigned>(bits) << 8 * sizeof(Bits) * (v % IN_WORD);
  }
  store_words<BYTES>(static_cast<Bits*>(args.to) + place, words);
}

}  // namespace pyconvx
