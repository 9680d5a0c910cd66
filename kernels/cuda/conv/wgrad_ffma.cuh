// wgrad in float32 as IEEE has it, on the FFMA pipe. The two matrices and their slices: wgrad.cuh.
//
// Order of summation: one fused multiply-add after another, with m ascending, in every tile. Products past
// the end of the split are 0 * 0 and change nothing.
//
// A thread owns 8 x 8 elements: two runs of 4 filters, 16 apart, by two runs of 4 columns, 32 apart; a warp
// owns 32 filters x 64 columns, its lanes 4 x 8 of them. Slices lie in shared memory with pixels as rows, as
// they do in global memory, and for each pixel a thread reads 2 + 2 vectors of 16 bytes for 64
// multiplications.
#pragma once

#include "wgrad.cuh"

namespace pyconvx {

template <class Tile, bool LINEAR, int VECTOR_Y, int VECTOR_X, bool BIAS, bool MASKED>
class WgradFfma {
  using Slices = WgradSlices<float, Tile, LINEAR, VECTOR_Y, VECTOR_X, MASKED>;
  static constexpr int LAST_STAGE = (Tile::STAGES - 1) * Slices::STAGE;
  static_assert(Tile::FILTERS == 32 * Tile::WARPS_M && Tile::COLUMNS == 64 * Tile::WARPS_N);

public:
  __device__ WgradFfma(const WgradArguments& args, const unsigned char* shared)
      : args_(args), block_(args), slices_(args, block_, ptx::shared_address(shared)), shared_(shared) {}

  // The pipeline of fprop_ffma.cuh. A table is made before the barrier behind which it is read.
  __device__ void multiply_all() {
    const bool sums_bias = BIAS && block_.column == 0 && args_.bias_sums;
    int slices = slices_.count();
    if constexpr (!LINEAR) __syncthreads();
#pragma unroll
    for (int stage = 0; stage < LAST_STAGE; stage += Slices::STAGE) slices_.copy_next(stage);
    slices_.load_outputs(Tile::STAGES - 1);
    int read = 0, write = LAST_STAGE;
    while (slices > 0) {
      slices_.make_table(Slices::OF_TABLE);
      slices_.turn_to_table();
      const int end = max(slices - Slices::OF_TABLE, 0);
#pragma unroll 1
      for (; slices > end; --slices) {
        ptx::cp_async_wait<Tile::STAGES - 2>();
        slices_.mask(read);
        __syncthreads();
        slices_.load_outputs(Tile::STAGES - 2);
        slices_.copy_next(write);
#pragma unroll
        for (int row = 0; row < Tile::DEPTH; ++row) multiply(read, row, sums_bias);
        read = read == LAST_STAGE ? 0 : read + Slices::STAGE;
        write = write == LAST_STAGE ? 0 : write + Slices::STAGE;
      }
    }
    ptx::cp_async_wait<0>();
  }

  __device__ void store_all() const {
    const Conv2dArguments& conv = args_.conv;
    const int first_filter = block_.filter * Tile::FILTERS + thread_filter();
    const int first_column = block_.column * Tile::COLUMNS + thread_column();
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const int filter = first_filter + i / 4 * 16 + i % 4;
      if (filter >= conv.group_filters) continue;
      const long long k = static_cast<long long>(block_.group) * conv.group_filters + filter;
      float* to = sums_of_filter<float>(args_, block_.split, k);
#pragma unroll
      for (int j = 0; j < 8; j += 4) {
        const int column = first_column + j * 8;
        if (args_.vector_sums) {
          const int element = element_of_column(args_, column);
          if (element >= 0)
            *reinterpret_cast<float4*>(to + element) = {sum_[i][j], sum_[i][j + 1], sum_[i][j + 2],
                                                        sum_[i][j + 3]};
        } else {
#pragma unroll
          for (int v = 0; v < 4; ++v)
            if (const int element = element_of_column(args_, column + v); element >= 0)
              to[element] = sum_[i][j + v];
        }
      }
      if (BIAS && block_.column == 0 && args_.bias_sums && thread_column() == 0)
        bias_sums<float>(args_, block_.split)[k] = bias_[i];
    }
  }

private:
  __device__ static int thread_filter() {
    return threadIdx.x / 32 % Tile::WARPS_M * 32 + threadIdx.x % 32 / 8 * 4;
  }
  __device__ static int thread_column() {
    return threadIdx.x / 32 / Tile::WARPS_M * 64 + threadIdx.x % 8 * 4;
  }

  __device__ void multiply(int stage, int row, bool sums_bias) {
    const unsigned char* y = shared_ + stage + row * Slices::Y_PITCH + thread_filter() * 4;
    const unsigned char* x = shared_ + stage + Slices::X_AT + row * Slices::X_PITCH + thread_column() * 4;
    float filters[8], columns[8];
    load(filters, 0, y);
    load(filters, 4, y + 16 * 4);
    load(columns, 0, x);
    load(columns, 4, x + 32 * 4);
#pragma unroll
    for (int i = 0; i < 8; ++i)
#pragma unroll
      for (int j = 0; j < 8; ++j) sum_[i][j] = multiply_add(filters[i], columns[j], sum_[i][j]);
    if (sums_bias)
#pragma unroll
      for (int i = 0; i < 8; ++i) bias_[i] += filters[i];
  }

  __device__ static void load(float (&to)[8], int at, const unsigned char* from) {
    const float4 x = *reinterpret_cast<const float4*>(from);
    to[at] = x.x;
    to[at + 1] = x.y;
    to[at + 2] = x.z;
    to[at + 3] = x.w;
  }

  const WgradArguments& args_;
  const WgradBlock block_;
  Slices slices_;
  const unsigned char* shared_;
  float sum_[8][8] = {};
  float bias_[8] = {};
};

template <class Tile, bool LINEAR, int VECTOR_Y, int VECTOR_X, bool BIAS, bool MASKED = false>
__global__ void __launch_bounds__(Tile::THREADS, Tile::THREADS == 256 ? 2 : 1)
    wgrad_ffma(const __grid_constant__ WgradArguments args) {
  extern __shared__ __align__(128) unsigned char shared[];
  WgradFfma<Tile, LINEAR, VECTOR_Y, VECTOR_X, BIAS, MASKED> product(args, shared);
  product.multiply_all();
  product.store_all();
}

}  // namespace pyconvx
