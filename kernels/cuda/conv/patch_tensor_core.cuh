// What a warp multiplies of a patch (patch.cuh) and of filters beside it, on tensor cores.
//
// ldmatrix reads 16 bytes of 8 rows at once; neighbours are an odd number of chunks apart, so that they lie
// in different banks. A lane reads at its own number, plus the tap's, plus a constant. Filters stand in the
// order of fragments.cuh.
#pragma once

#include "fragments.cuh"
#include "patch.cuh"

namespace pyconvx {

template <class Element, class Tile>
class WarpProduct {
  static constexpr int V = kVector<Element>;
  static constexpr int WARP_PIXELS = Tile::PIXELS / Tile::WARPS_M;
  static constexpr int WARP_FILTERS = Tile::FILTERS / Tile::WARPS_N;
  static_assert(WARP_PIXELS % 16 == 0 && WARP_FILTERS % (4 * V) == 0, "warps own whole vectors of outputs");

public:
  static constexpr int STEPS = Tile::CHUNKS / 2 / Tile::SLICES;  // matrix instructions one after another
  // Operands are read a step ahead, across the barrier between taps; two sets of them take turns, which takes
  // an even number of steps.
  static constexpr bool AHEAD = STEPS % 2 == 0;
  static constexpr int M = WARP_PIXELS / 16, N = WARP_FILTERS / 8;  // matrix instructions of a warp
  static constexpr int PIXELS = 2 * M;                              // of a lane
  static constexpr int VECTORS = WARP_FILTERS / (4 * V);            // of outputs, of a lane and pixel
  static_assert(STEPS > 0, "a slice has a share of every tap");

  // The filter in row `row` of shared memory.
  __device__ static constexpr int filter_of_row(int row) { return pyconvx::filter_of_row<V>(row); }

  // For a tile's pixels from first_pixel on; bytes of shared memory where patches and filters begin.
  __device__ WarpProduct(const PatchPixels& pixels, int first_pixel, unsigned patch, unsigned filters) {
    const int lane = threadIdx.x % 32;
    const unsigned slice = warp_slice() * 32;
#pragma unroll
    for (int i = 0; i < M; ++i)
      pixels_from_[i] =
          ptx::keep(patch + pixels.place(first_pixel + warp_pixel() + i * 16 + lane % 16, Tile::PITCH) +
                    lane / 16 * 16 + slice);
    filters_from_ = ptx::keep(filters + (warp_filter() + lane / 16 * 8 + lane % 8) * Tile::PITCH +
                              lane / 8 % 2 * 16 + slice);
  }

  // Step `step` of the tap at byte `tap` of the patches, whose filters are at byte `filters` of theirs.
  __device__ void load(int set, unsigned tap, unsigned filters, int step) {
    const unsigned part = step * Tile::SLICES * 32, from = tap + part;
#pragma unroll
    for (int m = 0; m < M; ++m) ptx::ldmatrix_x4(activation_[set][m], pixels_from_[m] + from);
#pragma unroll
    for (int n = 0; n < N / 2; ++n)
      ptx::ldmatrix_x4(filter_[set][n], filters_from_ + filters + n * 16 * Tile::PITCH + part);
  }

  __device__ void multiply(int set) {
#pragma unroll
    for (int i = 0; i < M; ++i)
#pragma unroll
      for (int j = 0; j < N; ++j)
        pyconvx::multiply(sum[i][j], activation_[set][i], filter_[set][j / 2][j % 2 * 2],
                          filter_[set][j / 2][j % 2 * 2 + 1], Element{});
  }

  // In which pixels and filters this warp's sums are, counted from the tile's first.
  __device__ static int warp_pixel() { return threadIdx.x / 32 % Tile::WARPS_M * WARP_PIXELS; }
  __device__ static int warp_filter() {
    return threadIdx.x / 32 / Tile::WARPS_M % Tile::WARPS_N * WARP_FILTERS;
  }
  __device__ static int warp_slice() { return threadIdx.x / 32 / (Tile::WARPS_M * Tile::WARPS_N); }

  // Pixel i of a lane, the first filter of its vector `vector`, and their sums.
  __device__ static int pixel(int i) { return warp_pixel() + i * 8 + threadIdx.x % 32 / 4; }
  __device__ static int filter(int vector) { return warp_filter() + threadIdx.x % 4 * V + vector * 4 * V; }
  __device__ void get(float (&x)[V], int i, int vector) const {
#pragma unroll
    for (int v = 0; v < V; ++v) x[v] = sum[i / 2][vector * V / 2 + v / 2][i % 2 * 2 + v % 2];
  }

  float sum[M][N][4] = {};

private:
  unsigned pixels_from_[M], filters_from_;  // in the first patch, and the first place for filters
  unsigned activation_[AHEAD ? 2 : 1][M][4], filter_[AHEAD ? 2 : 1][N / 2][4];
};

}  // namespace pyconvx
