// wgrad on tensor cores. The two matrices and their slices: wgrad.cuh.
//
// A matrix instruction wants its first operand as 16 filters by 16 pixels (8 in tf32) and its second as
// pixels by 8 columns, and both lie with pixels as rows. Elements of 16 bits are transposed by ldmatrix on
// their way to the registers. Those of 32 bits are read one by one: lane l takes filter (or column) l / 4 of
// pixel l % 4, and l % 4 + 4, of 32 different banks.
//
// Order of summation: a matrix instruction adds the products of pixels [16 i, 16 i + 16) of the split, and i
// ascends, in every tile.
//
// The gradient of the bias is the product of grad_output with a column of ones: a further matrix instruction
// for each 16 filters, in the blocks of the first columns. Warps side by side in the columns hold the same
// filters, and share them out.
#pragma once

#include "fragments.cuh"
#include "wgrad.cuh"

namespace pyconvx {

template <class Element, class Tile, bool LINEAR, int VECTOR_Y, int VECTOR_X, bool BIAS, bool MASKED>
class WgradTensorCore {
  using Slices = WgradSlices<Element, Tile, LINEAR, VECTOR_Y, VECTOR_X, MASKED>;
  static constexpr int BYTES = sizeof(Element), LAST_STAGE = (Tile::STAGES - 1) * Slices::STAGE;
  static constexpr int WARP_FILTERS = Tile::FILTERS / Tile::WARPS_M,
                       WARP_COLUMNS = Tile::COLUMNS / Tile::WARPS_N;
  static constexpr int M = WARP_FILTERS / 16, N = WARP_COLUMNS / 8;  // matrix instructions of a warp
  static constexpr int STEP = 32 / BYTES;                            // pixels of one of them
  static constexpr int STEPS = Tile::DEPTH / STEP, OWN = M / Tile::WARPS_N;
  static_assert(WARP_FILTERS % 16 == 0 && M % Tile::WARPS_N == 0 && WARP_COLUMNS % 16 == 0 &&
                Tile::DEPTH % STEP == 0);

public:
  __device__ WgradTensorCore(const WgradArguments& args, unsigned shared)
      : args_(args), block_(args), slices_(args, block_, shared) {
    const int lane = threadIdx.x % 32;
    if constexpr (BYTES == 2) {
      y_from_ =
          shared + (lane / 16 * 8 + lane % 8) * Slices::Y_PITCH + (warp_filter() + lane / 8 % 2 * 8) * 2;
      x_from_ = shared + Slices::X_AT + (lane / 8 % 2 * 8 + lane % 8) * Slices::X_PITCH +
                (warp_column() + lane / 16 * 8) * 2;
    } else {
      y_from_ = shared + lane % 4 * Slices::Y_PITCH + (warp_filter() + lane / 4) * 4;
      x_from_ = shared + Slices::X_AT + lane % 4 * Slices::X_PITCH + (warp_column() + lane / 4) * 4;
    }
  }

  // The pipeline of fprop_tensor_core.cuh. The slices that are copied while those of one table are multiplied
  // have a table of their own; during that, the one behind it is made.
  __device__ void multiply_all() {
    const bool sums_bias = BIAS && block_.column == 0 && args_.bias_sums;
    int slices = slices_.count();
    if constexpr (!LINEAR) {
      slices_.make_table(Slices::OF_TABLE);
      __syncthreads();
    }
#pragma unroll
    for (int stage = 0; stage < LAST_STAGE; stage += Slices::STAGE) slices_.copy_next(stage);
    slices_.load_outputs(Tile::STAGES - 1);
    ptx::cp_async_wait<Tile::STAGES - 2>();
    slices_.mask(0);
    __syncthreads();
    slices_.load_outputs(Tile::STAGES - 2);
    unsigned read = 0, write = LAST_STAGE;
    load_operands(0, read, 0);
    while (slices > 0) {
      slices_.turn_to_table();
      slices_.make_table(Slices::OF_TABLE);
      const int end = max(slices - Slices::OF_TABLE, 0);
#pragma unroll 1
      for (; slices > end; --slices) {
#pragma unroll
        for (int step = 0; step < STEPS; ++step) {
          if (sums_bias) add_to_bias(read, step);
          if (step == 0) {
            slices_.copy_next(write);
            write = write == LAST_STAGE ? 0 : write + Slices::STAGE;
          }
          if (step == STEPS - 1) {
            read = read == LAST_STAGE ? 0 : read + Slices::STAGE;
            ptx::cp_async_wait<Tile::STAGES - 2>();
            slices_.mask(read);
            __syncthreads();
            slices_.load_outputs(Tile::STAGES - 2);
          }
          load_operands((step + 1) % 2, read, (step + 1) % STEPS);
#pragma unroll
          for (int i = 0; i < M; ++i)
#pragma unroll
            for (int j = 0; j < N; ++j)
              multiply(sum_[i][j], y_[step % 2][i], x_[step % 2][j / 2][j % 2 * 2],
                       x_[step % 2][j / 2][j % 2 * 2 + 1], Element{});
        }
      }
    }
    ptx::cp_async_wait<0>();
  }

  __device__ void store_all() const {
    const Conv2dArguments& conv = args_.conv;
    const int lane = threadIdx.x % 32;
    const int first_filter = block_.filter * Tile::FILTERS + warp_filter() + lane / 4;
    const int first_column = block_.column * Tile::COLUMNS + warp_column() + lane % 4 * 2;
#pragma unroll
    for (int i = 0; i < 2 * M; ++i) {
      const int filter = first_filter + i * 8;
      if (filter >= conv.group_filters) continue;
      float* to = sums_of_filter<float>(args_, block_.split,
                                        static_cast<long long>(block_.group) * conv.group_filters + filter);
#pragma unroll
      for (int j = 0; j < N; ++j) {
        const int column = first_column + j * 8;
        const float x = sum_[i / 2][j][i % 2 * 2], y = sum_[i / 2][j][i % 2 * 2 + 1];
        const int element = element_of_column(args_, column);
        if (args_.vector_sums) {
          if (element >= 0) *reinterpret_cast<float2*>(to + element) = {x, y};
        } else {
          const int next = element_of_column(args_, column + 1);
          if (element >= 0) to[element] = x;
          if (next >= 0) to[next] = y;
        }
      }
    }
    if (BIAS && block_.column == 0 && args_.bias_sums) store_bias();
  }

private:
  __device__ static int warp_m() { return threadIdx.x / 32 % Tile::WARPS_M; }
  __device__ static int warp_n() { return threadIdx.x / 32 / Tile::WARPS_M; }
  __device__ static int warp_filter() { return warp_m() * WARP_FILTERS; }
  __device__ static int warp_column() { return warp_n() * WARP_COLUMNS; }

  __device__ void load_operands(int buffer, unsigned stage, int step) {
    const unsigned y = y_from_ + stage + step * STEP * Slices::Y_PITCH;
    const unsigned x = x_from_ + stage + step * STEP * Slices::X_PITCH;
#pragma unroll
    for (int i = 0; i < M; ++i) load_gradients(y_[buffer][i], y + i * 16 * BYTES);
    if constexpr (BYTES == 2) {
#pragma unroll
      for (int j = 0; j < N / 2; ++j) ptx::ldmatrix_x4_trans(x_[buffer][j], x + j * 32);
    } else {
#pragma unroll
      for (int j = 0; j < N; ++j)
#pragma unroll
        for (int e = 0; e < 2; ++e)
          x_[buffer][j / 2][j % 2 * 2 + e] = ptx::load_shared(x + e * 4 * Slices::X_PITCH + j * 32);
    }
  }

  // Of 16 filters.
  __device__ static void load_gradients(unsigned (&to)[4], unsigned from) {
    if constexpr (BYTES == 2) {
      ptx::ldmatrix_x4_trans(to, from);
    } else {
#pragma unroll
      for (int e = 0; e < 4; ++e)
        to[e] = ptx::load_shared(from + e / 2 * 4 * Slices::Y_PITCH + e % 2 * 8 * 4);
    }
  }

  // Warps side by side share their filters out. Reading them again costs less than choosing registers.
  __device__ void add_to_bias(unsigned stage, int step) {
    const unsigned y = y_from_ + stage + step * STEP * Slices::Y_PITCH;
#pragma unroll
    for (int i = 0; i < OWN; ++i) {
      unsigned gradients[4];
      load_gradients(gradients, y + (i * Tile::WARPS_N + warp_n()) * 16 * BYTES);
      multiply(bias_[i], gradients, ones(Element{}), ones(Element{}), Element{});
    }
  }

  // All columns of bias_ are the same: lanes of the first one write.
  __device__ void store_bias() const {
    const Conv2dArguments& conv = args_.conv;
    const int lane = threadIdx.x % 32;
    float* to = bias_sums<float>(args_, block_.split) + block_.group * conv.group_filters;
#pragma unroll
    for (int i = 0; i < 2 * M; ++i) {
      const int filter = block_.filter * Tile::FILTERS + warp_filter() + i * 8 + lane / 4;
      if (lane % 4 == 0 && i / 2 % Tile::WARPS_N == warp_n() && filter < conv.group_filters)
        to[filter] = bias_[i / 2 / Tile::WARPS_N][i % 2 * 2];
    }
  }

  const WgradArguments& args_;
  const WgradBlock block_;
  Slices slices_;
  unsigned y_from_, x_from_;  // in the first stage
  unsigned y_[2][M][4], x_[2][N / 2][4];
  float sum_[M][N][4] = {};
  float bias_[BIAS ? OWN : 1][4] = {};
};

template <class Element, class Tile, bool LINEAR, int VECTOR_Y, int VECTOR_X, bool BIAS, bool MASKED = false>
__global__ void __launch_bounds__(Tile::THREADS)
    wgrad_tensor_core(const __grid_constant__ WgradArguments args) {
  extern __shared__ __align__(128) unsigned char shared[];
  WgradTensorCore<Element, Tile, LINEAR, VECTOR_Y, VECTOR_X, BIAS, MASKED> product(
      args, ptx::shared_address(shared));
  product.multiply_all();
  product.store_all();
}

}  // namespace pyconvx
