// What a warp multiplies of a patch (patch.cuh) and of filters beside it, in float32 as IEEE has it.
//
// A row is 16 channels of a pixel or of a filter, and a thread reads 4 channels at once: 16 bytes of each of
// its 8 pixels, which it keeps, and of one after another of its 8 filters. Those 8 + 8 reads feed 8 x 8 x 4
// multiplications, as many for each as if operands were transposed, so that nothing need be: a sum takes its
// 4 channels in order, and the 8 pixels' sums stand between one and the next.
//
// A warp owns 32 pixels x 64 filters, its lanes 4 x 8 of them: lane l pixels l / 8 + 4 i and, of each 32
// filters, the 4 neighbours from 4 (l mod 8) on, which are a vector of outputs. The 8 lanes that read at once
// have one pixel in common and 8 filters in 8 rows that follow each other; rows being an odd number of chunks
// apart, those lie in different banks. So row 8 i + x (x < 8, i < 4) of each 32 holds filter 4 x + i of them.
#pragma once

#include "patch.cuh"

namespace pyconvx {

template <class Element, class Tile>
class WarpProduct;

template <class Tile>
class WarpProduct<f32, Tile> {
  static constexpr int V = kVector<f32>;
  static_assert(Tile::PIXELS == 32 * Tile::WARPS_M && Tile::FILTERS == 64 * Tile::WARPS_N &&
                Tile::SLICES == 1);

public:
  static constexpr int STEPS = Tile::CHUNKS;
  static constexpr bool AHEAD = false;  // the order is left to the compiler, which knows the registers
  static constexpr int PIXELS = 8, FILTERS = 8;  // of a thread
  static constexpr int VECTORS = FILTERS / V;

  __device__ static constexpr int filter_of_row(int row) {
    return row - row % 32 + 4 * (row % 8) + row / 8 % 4;
  }

  __device__ WarpProduct(const PatchPixels& pixels, int first_pixel, unsigned patch, unsigned filters) {
#pragma unroll
    for (int i = 0; i < PIXELS; ++i)
      pixels_from_[i] = ptx::keep(patch + pixels.place(first_pixel + pixel(i), Tile::PITCH));
    filters_from_ = ptx::keep(filters + (warp_filter() + threadIdx.x % 8) * Tile::PITCH);
  }

  __device__ void load(int, unsigned tap, unsigned filters, int step) {
#pragma unroll
    for (int i = 0; i < PIXELS; ++i) ptx::load_shared(pixels_[i], pixels_from_[i] + tap + step * 16);
    filters_ = filters_from_ + filters + step * 16;
  }

  __device__ void multiply(int) {
#pragma unroll
    for (int k = 0; k < FILTERS; ++k) {
      float filter[4];
      ptx::load_shared(filter, filters_ + k * 8 * Tile::PITCH);
#pragma unroll
      for (int c = 0; c < 4; ++c)
#pragma unroll
        for (int i = 0; i < PIXELS; ++i) sum_[i][k] = multiply_add(pixels_[i][c], filter[c], sum_[i][k]);
    }
  }

  __device__ static int pixel(int i) {
    return threadIdx.x / 32 % Tile::WARPS_M * 32 + i * 4 + threadIdx.x % 32 / 8;
  }
  __device__ static int filter(int vector) { return warp_filter() + vector * 32 + threadIdx.x % 8 * V; }
  __device__ void get(float (&x)[V], int i, int vector) const {
#pragma unroll
    for (int v = 0; v < V; ++v) x[v] = sum_[i][vector * V + v];
  }

private:
  __device__ static int warp_filter() { return threadIdx.x / 32 / Tile::WARPS_M * 64; }

  unsigned pixels_from_[PIXELS], filters_from_;  // in the first patch, and the first place for filters
  unsigned filters_;                             // of the step
  float pixels_[PIXELS][4];
  float sum_[PIXELS][FILTERS] = {};
};

}  // namespace pyconvx
