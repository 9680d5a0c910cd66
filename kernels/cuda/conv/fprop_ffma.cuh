// Convolution in float32 as IEEE has it, on the FFMA pipe. The two matrices and their addresses: gather.cuh.
//
// Order of summation: one fused multiply-add after another, with j ascending, in every tile and for every
// batch. Products past the last j are 0 * 0 and change nothing.
//
// A thread owns 8 x 8 outputs: two runs of 4 pixels, 16 apart, by two runs of 4 filters, 32 apart; a warp
// owns 32 pixels x 64 filters, its lanes 4 x 8 of them. For each j a thread reads 2 + 2 vectors of 16 bytes
// for 64 multiplications, of which lanes in a row read the same pixels and lanes in a column the same
// filters.
//
// Shared memory therefore holds slices with j as the slow index: [DEPTH][PIXELS + 4], [DEPTH][FILTERS + 4].
// Copies are transposing and by the element: thread t copies element t % 8 of rows t / 8, t / 8 + THREADS / 8
// ... Eight neighbouring threads read 32 contiguous bytes, and a warp writes 8 x 4 elements to all 32 banks,
// because the pitch is 4 modulo 32. By the element means that any number of channels takes the same way.
#pragma once

#include "epilogue.cuh"
#include "gather.cuh"
#include "mask.cuh"

namespace pyconvx {

template <class Tile, bool MASKED>
class FfmaProduct {
  static constexpr int DEPTH = Tile::DEPTH;
  static constexpr int ROWS_AT_ONCE = Tile::THREADS / DEPTH;
  static constexpr int PIXEL_ROWS = Tile::PIXELS / ROWS_AT_ONCE, FILTER_ROWS = Tile::FILTERS / ROWS_AT_ONCE;
  static constexpr int PIXEL_PITCH = Tile::PIXELS + 4, FILTER_PITCH = Tile::FILTERS + 4;
  static constexpr int OUTPUTS = DEPTH * (PIXEL_PITCH + FILTER_PITCH);  // of a ReLU, in a stage
  static constexpr int STAGE = OUTPUTS + MASKED * DEPTH * PIXEL_PITCH;  // floats
  static constexpr int LAST_STAGE = (Tile::STAGES - 1) * STAGE;
  static_assert(DEPTH == 8 && Tile::PIXELS == 32 * Tile::WARPS_M && Tile::FILTERS == 64 * Tile::WARPS_N);

public:
  __device__ FfmaProduct(const Conv2dArguments& args, float* shared)
      : args_(args), tile_(args), shared_(shared) {
    const int row = threadIdx.x / DEPTH;
    next_ = threadIdx.x % DEPTH;
    copies_to_ = ptx::shared_address(shared + next_ * PIXEL_PITCH + row);
    filters_to_ = ptx::shared_address(shared + DEPTH * PIXEL_PITCH + next_ * FILTER_PITCH + row);
#pragma unroll
    for (int i = 0; i < PIXEL_ROWS; ++i)
      rows_.start(args, i, tile_.pixel + row + i * ROWS_AT_ONCE, tile_.group);
    filter_ = tile_.template filter_row<float>(args, row) + next_;
    filters_left_ = args.group_filters - tile_.filter - row;
    if constexpr (MASKED) to_outputs_ = way_to_outputs(args.input, args.relu_output);
  }

  // The pipeline: slices i + 1 .. i + STAGES - 1 are on their way while slice i is multiplied. Behind the one
  // barrier, slice i is there for all to read, and all have read slice i - 1, whose place the next copies
  // take. The order in which operands are read ahead is left to the compiler, which knows how many registers
  // there are.
  __device__ void multiply_all() {
#pragma unroll
    for (int stage = 0; stage < LAST_STAGE; stage += STAGE) copy_slice(stage);
    int read = 0, write = LAST_STAGE;
#pragma unroll 1
    for (int slices = (args_.reduction + DEPTH - 1) / DEPTH; slices > 0; --slices) {
      ptx::cp_async_wait<Tile::STAGES - 2>();
      if constexpr (MASKED) mask_slice(read);
      __syncthreads();
      copy_slice(write);
#pragma unroll
      for (int j = 0; j < DEPTH; ++j) multiply(read, j);
      read = read == LAST_STAGE ? 0 : read + STAGE;
      write = write == LAST_STAGE ? 0 : write + STAGE;
    }
    ptx::cp_async_wait<0>();
  }

  __device__ void store_all() const {
    const int first_pixel = tile_.pixel + thread_pixel(), first_filter = tile_.filter + thread_filter();
#pragma unroll
    for (int j = 0; j < 8; j += 4) {
      const int filter = first_filter + j * 8;
      const Epilogue<float> epilogue(args_, tile_.group * args_.group_filters + filter,
                                     args_.group_filters - filter);
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const int pixel = first_pixel + i / 4 * 16 + i % 4;
        if (pixel >= args_.pixels) continue;
        float x[4];
#pragma unroll
        for (int v = 0; v < 4; ++v) x[v] = sum_[i][j + v];
        epilogue.store(pixel, x);
      }
    }
  }

private:
  __device__ static int thread_pixel() {
    return threadIdx.x / 32 % Tile::WARPS_M * 32 + threadIdx.x % 32 / 8 * 4;
  }
  __device__ static int thread_filter() {
    return threadIdx.x / 32 / Tile::WARPS_M * 64 + threadIdx.x % 8 * 4;
  }

  __device__ void copy_slice(int stage) {
    // `keep`, lest the compiler carries next_ times what it is divided by along, in two more registers.
    const auto at = rows_.at(args_, ptx::keep(next_));
#pragma unroll
    for (int i = 0; i < PIXEL_ROWS; ++i) {
      const unsigned to = copies_to_ + (stage + i * ROWS_AT_ONCE) * 4;
      copy<4>(to, rows_.address(i, at), rows_.inside(i, at));
      if constexpr (MASKED)
        copy<4>(to + OUTPUTS * 4, rows_.address(i, at) + to_outputs_, rows_.inside(i, at));
    }
#pragma unroll
    for (int i = 0; i < FILTER_ROWS; ++i) {
      const int row = i * ROWS_AT_ONCE;
      copy<4>(filters_to_ + (stage + row) * 4, filter_ + static_cast<long long>(args_.reduction) * row,
              at.exists && row < filters_left_);
    }
    ptx::cp_async_commit();
    next_ += DEPTH;
    filter_ += DEPTH;
  }

  // This thread's elements of the slice at float `stage`, which have arrived.
  __device__ void mask_slice(int stage) const {
#pragma unroll
    for (int i = 0; i < PIXEL_ROWS; ++i) {
      const unsigned at = copies_to_ + (stage + i * ROWS_AT_ONCE) * 4;
      ptx::store_shared(at, masked_word(ptx::load_shared(at), ptx::load_shared(at + OUTPUTS * 4), f32{}));
    }
  }

  __device__ void multiply(int stage, int j) {
    const float* from = shared_ + stage + j * PIXEL_PITCH + thread_pixel();
    const float* filters_from = shared_ + stage + DEPTH * PIXEL_PITCH + j * FILTER_PITCH + thread_filter();
    float pixels[8], filters[8];
    load(pixels, 0, from);
    load(pixels, 4, from + 16);
    load(filters, 0, filters_from);
    load(filters, 4, filters_from + 32);
#pragma unroll
    for (int i = 0; i < 8; ++i)
#pragma unroll
      for (int k = 0; k < 8; ++k) sum_[i][k] = multiply_add(pixels[i], filters[k], sum_[i][k]);
  }

  __device__ static void load(float (&to)[8], int at, const float* from) {
    const float4 x = *reinterpret_cast<const float4*>(from);
    to[at] = x.x;
    to[at + 1] = x.y;
    to[at + 2] = x.z;
    to[at + 3] = x.w;
  }

  const Conv2dArguments& args_;
  const BlockTile<Tile> tile_;
  const float* shared_;

  // What this thread copies: element next_ of its rows.
  int next_;
  unsigned copies_to_, filters_to_;  // in the first stage
  ActivationRows<float, PIXEL_ROWS, 0, 0> rows_;
  const float* filter_;
  int filters_left_;
  long long to_outputs_;

  float sum_[8][8] = {};
};

// Two blocks of 256 threads share an SM's registers if a thread takes at most 128.
template <class Tile, bool MASKED = false>
__global__ void __launch_bounds__(Tile::THREADS, Tile::THREADS == 256 ? 2 : 1)
    fprop_ffma(const __grid_constant__ Conv2dArguments arguments) {
  const Conv2dArguments& args = known(arguments);
  extern __shared__ __align__(128) unsigned char shared[];
  FfmaProduct<Tile, MASKED> product(args, reinterpret_cast<float*>(shared));
  product.multiply_all();
  product.store_all();
}

}  // namespace pyconvx
