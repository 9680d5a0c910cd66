// Tiles that are rectangles of P x Q output pixels of one image, numbered image by image and row by row:
// where one is, and how what tensor cores sum up of it is stored.
#pragma once

#include "epilogue.cuh"

namespace pyconvx {

struct PixelTile {
  int n, p, q;  // of its first pixel
};

template <int P, int Q>
__device__ inline PixelTile pixel_tile(const Conv2dArguments& args, int tile) {
  const int n = args.by_tiles_of_image(tile), in_image = tile - n * args.by_tiles_of_image.divisor;
  const int row = args.by_tiles_of_row(in_image), column = in_image - row * args.by_tiles_of_row.divisor;
  return {n, row * P, column * Q};
}

// The sums of M rows of 16 pixels, from row p of the tile on, by 8 N filters: `first_filter` is the first of
// the lane's vectors, and `column(half)` says which of a row's pixels a half of a matrix instruction is of.
template <class Element, int M, int N, class Column>
__device__ inline void store_rows(const Conv2dArguments& args, const PixelTile& at, int p, int first_filter,
                                  const float (&sum)[M][N][4], bool biased, Column column) {
  constexpr int V = kVector<Element>;
#pragma unroll
  for (int vector = 0; vector < 2 * N / V; ++vector) {
    const int filter = first_filter + vector * 4 * V;
    const Epilogue<Element> epilogue(args, filter, args.k - filter, biased);
#pragma unroll
    for (int i = 0; i < 2 * M; ++i) {
      const int row = at.p + p + i / 2, q = at.q + column(i % 2);
      if (row >= args.p || q >= args.q) continue;
      float x[V];
#pragma unroll
      for (int v = 0; v < V; ++v) x[v] = sum[i / 2][vector * V / 2 + v / 2][i % 2 * 2 + v % 2];
      epilogue.store((static_cast<long long>(at.n) * args.p + row) * args.q + q, x);
    }
  }
}

}  // namespace pyconvx
