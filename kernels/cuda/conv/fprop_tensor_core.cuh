// Convolution as a matrix product on tensor cores. The two matrices and their addresses: gather.cuh.
//
// Order of summation. A matrix instruction adds 16 products (8 in tf32) to each sum, those with j in [16 i,
// 16 i + 16), and i ascends. This is so in every tile, for every batch and vector length, on every device;
// slices that reach past the last j multiply zeros there. Hence all give the same bits.
//
// Shared memory. A slice's row is DEPTH elements = CHUNKS chunks of 16 bytes. Chunk i of row x stands at
// place i ^ swizzle(x), where swizzle(x) = x / (8 / CHUNKS) % CHUNKS, so that the 8 rows that ldmatrix reads
// at once, at equal i, cover all 32 banks, and so do the 8 chunks that 8 neighbouring threads write:
//
//   CHUNKS = 8   row 0  0 1 2 3 4 5 6 7      CHUNKS = 4   rows 0, 1  0 1 2 3  0 1 2 3
//                row 1  1 0 3 2 5 4 7 6                   rows 2, 3  1 0 3 2  1 0 3 2
//                row 2  2 3 0 1 6 7 4 5                   rows 4, 5  2 3 0 1  2 3 0 1
//                ...                                      ...
//
// Filters stand in their rows in the order of fragments.cuh.
//
// If the activations are a gradient that a ReLU masks (mask.cuh), each slice has a third part: the outputs of
// the ReLU, in rows as the activations have them.
#pragma once

#include "epilogue.cuh"
#include "fragments.cuh"
#include "gather.cuh"
#include "mask.cuh"

namespace pyconvx {

// Rows of 16-byte chunks in shared memory.
template <class Element, int DEPTH>
struct Slice {
  static constexpr int CHUNKS = DEPTH / kVector<Element>;
  static constexpr int PITCH = CHUNKS * 16;  // bytes
  static_assert(CHUNKS == 4 || CHUNKS == 8, "rows of 64 or 128 bytes");

  __device__ static constexpr unsigned at(int row, int chunk) {
    return row * PITCH + (chunk ^ row / (8 / CHUNKS) % CHUNKS) * 16;
  }
};

// VECTOR is the number of bytes that global memory can be read by: 16, 8 or 4, or 2 for 16-bit elements.
template <class Element, class Tile, int R, int S, int VECTOR, bool MASKED>
class TensorCoreProduct {
  using Rows = Slice<Element, Tile::DEPTH>;
  static constexpr int V = kVector<Element>, BYTES = sizeof(Element);
  static constexpr int ROWS_AT_ONCE = Tile::THREADS / Rows::CHUNKS;
  static constexpr int PIXEL_ROWS = Tile::PIXELS / ROWS_AT_ONCE;                // that a thread copies
  static constexpr int FILTER_ROWS = Tile::FILTERS / ROWS_AT_ONCE;              // likewise
  static constexpr int OUTPUTS = (Tile::PIXELS + Tile::FILTERS) * Rows::PITCH;  // of a ReLU, in a stage
  static constexpr int STAGE = OUTPUTS + MASKED * Tile::PIXELS * Rows::PITCH;   // bytes
  static constexpr int LAST_STAGE = (Tile::STAGES - 1) * STAGE;

  static constexpr int WARP_PIXELS = Tile::PIXELS / Tile::WARPS_M;
  static constexpr int WARP_FILTERS = Tile::FILTERS / Tile::WARPS_N;
  static constexpr int M = WARP_PIXELS / 16, N = WARP_FILTERS / 8;  // matrix instructions of a warp
  static constexpr int STEPS = Rows::CHUNKS / 2;                    // one after another, in a slice

  static_assert(ROWS_AT_ONCE % 8 == 0 && PIXEL_ROWS > 0 && FILTER_ROWS > 0,
                "every thread copies whole chunks");
  static_assert(WARP_PIXELS % 16 == 0 && WARP_FILTERS % (4 * V) == 0, "warps own whole vectors of outputs");
  static_assert(VECTOR % BYTES == 0 && VECTOR <= 16);

public:
  __device__ TensorCoreProduct(const Conv2dArguments& args, unsigned shared) : args_(args), tile_(args) {
    const int chunk = threadIdx.x % Rows::CHUNKS, row = threadIdx.x / Rows::CHUNKS;
    copies_to_ = shared + Rows::at(row, chunk);
    next_ = chunk * V;
#pragma unroll
    for (int i = 0; i < PIXEL_ROWS; ++i)
      rows_.start(args, i, tile_.pixel + row + i * ROWS_AT_ONCE, tile_.group);
    const int filter = filter_of_row<V>(row);
    filter_ = reinterpret_cast<const char*>(tile_.template filter_row<Element>(args, filter) + next_);
    filters_left_ = args.group_filters - tile_.filter - filter;
    if constexpr (MASKED) to_outputs_ = way_to_outputs(args.input, args.relu_output);

    const int lane = threadIdx.x % 32;
    pixels_from_ = shared + Rows::at(warp_pixel() + lane % 16, lane / 16);
    filters_from_ = shared + Tile::PIXELS * Rows::PITCH +
                    Rows::at(warp_filter() + lane / 16 * 8 + lane % 8, lane / 8 % 2);
  }

  // The pipeline: slices i + 1 .. i + STAGES - 1 are on their way while slice i is multiplied, and within a
  // slice the operands of the next step are read before those of this one are used. One barrier per slice:
  // behind it, slice i + 1 is there for all to read, and all have read slice i, whose place is free for slice
  // i + STAGES. Copies past the end of the reduction write zeros and read nothing, so that the loop needs no
  // special end.
  __device__ void multiply_all() {
#pragma unroll
    for (int stage = 0; stage < LAST_STAGE; stage += STAGE) copy_slice(stage);
    ptx::cp_async_wait<Tile::STAGES - 2>();
    if constexpr (MASKED) mask_slice(0);
    __syncthreads();
    unsigned read = 0, write = LAST_STAGE;
    load_operands(0, read, 0);
#pragma unroll 1
    for (int slices = (args_.reduction + Tile::DEPTH - 1) / Tile::DEPTH; slices > 0; --slices) {
#pragma unroll
      for (int step = 0; step < STEPS; ++step) {
        if (step == 0) {
          copy_slice(write);
          write = write == LAST_STAGE ? 0 : write + STAGE;
        }
        if (step == STEPS - 1) {
          ptx::cp_async_wait<Tile::STAGES - 2>();
          read = read == LAST_STAGE ? 0 : read + STAGE;
          if constexpr (MASKED) mask_slice(read);
          __syncthreads();
        }
        load_operands((step + 1) % 2, read, (step + 1) % STEPS);
#pragma unroll
        for (int i = 0; i < M; ++i)
#pragma unroll
          for (int j = 0; j < N; ++j)
            multiply(sum_[i][j], pixels_[step % 2][i], filters_[step % 2][j / 2][j % 2 * 2],
                     filters_[step % 2][j / 2][j % 2 * 2 + 1], Element{});
      }
    }
    ptx::cp_async_wait<0>();
  }

  __device__ void store_all() const {
    const int lane = threadIdx.x % 32;
    const int first_pixel = tile_.pixel + warp_pixel() + lane / 4;
    const int first_filter = tile_.filter + warp_filter() + lane % 4 * V;
#pragma unroll
    for (int vector = 0; vector < WARP_FILTERS / (4 * V); ++vector) {
      const int filter = first_filter + vector * 4 * V;
      const Epilogue<Element> epilogue(args_, tile_.group * args_.group_filters + filter,
                                       args_.group_filters - filter);
#pragma unroll
      for (int i = 0; i < 2 * M; ++i) {
        const int pixel = first_pixel + i * 8;
        if (pixel >= args_.pixels) continue;
        float x[V];
#pragma unroll
        for (int v = 0; v < V; ++v) x[v] = sum_[i / 2][vector * V / 2 + v / 2][i % 2 * 2 + v % 2];
        epilogue.store(pixel, x);
      }
    }
  }

private:
  __device__ static int warp_pixel() { return threadIdx.x / 32 % Tile::WARPS_M * WARP_PIXELS; }
  __device__ static int warp_filter() { return threadIdx.x / 32 / Tile::WARPS_M * WARP_FILTERS; }

  // This thread's chunks of the next slice, to the stage at byte `stage` of shared memory.
  __device__ void copy_slice(unsigned stage) {
#pragma unroll
    for (int byte = 0; byte < 16; byte += VECTOR) {
      const unsigned to = copies_to_ + stage + byte;
      const auto at = rows_.at(args_, next_ + byte / BYTES);
#pragma unroll
      for (int i = 0; i < PIXEL_ROWS; ++i) {
        copy<VECTOR>(to + i * ROWS_AT_ONCE * Rows::PITCH, rows_.address(i, at), rows_.inside(i, at));
        if constexpr (MASKED)
          copy<VECTOR>(to + OUTPUTS + i * ROWS_AT_ONCE * Rows::PITCH, rows_.address(i, at) + to_outputs_,
                       rows_.inside(i, at));
      }
#pragma unroll
      for (int i = 0; i < FILTER_ROWS; ++i) {
        constexpr int FIRST = Tile::PIXELS * Rows::PITCH;
        const int row = filter_of_row<V>(i * ROWS_AT_ONCE);  // relative to this thread's first
        const char* from = filter_ + static_cast<long long>(args_.reduction * BYTES) * row + byte;
        copy<VECTOR>(to + FIRST + i * ROWS_AT_ONCE * Rows::PITCH, from, at.exists && row < filters_left_);
      }
    }
    ptx::cp_async_commit();
    next_ += Tile::DEPTH;
    filter_ += Tile::DEPTH * BYTES;
  }

  // This thread's chunks of the slice at byte `stage`, which have arrived.
  __device__ void mask_slice(unsigned stage) const {
#pragma unroll
    for (int i = 0; i < PIXEL_ROWS; ++i) {
      const unsigned chunk = copies_to_ + stage + i * ROWS_AT_ONCE * Rows::PITCH;
      mask_in_place(chunk, chunk + OUTPUTS, Element{});
    }
  }

  // Chunks 2 step and 2 step + 1 of the slice at byte `stage`: where lanes read them in step 0, with the
  // step's bits flipped, whatever the row's swizzle is.
  __device__ void load_operands(int buffer, unsigned stage, int step) {
#pragma unroll
    for (int i = 0; i < M; ++i)
      ptx::ldmatrix_x4(pixels_[buffer][i], ((pixels_from_ + stage) ^ step * 32) + i * 16 * Rows::PITCH);
#pragma unroll
    for (int j = 0; j < N / 2; ++j)
      ptx::ldmatrix_x4(filters_[buffer][j], ((filters_from_ + stage) ^ step * 32) + j * 16 * Rows::PITCH);
  }

  const Conv2dArguments& args_;
  const BlockTile<Tile> tile_;

  // What this thread copies: chunks that begin with element next_ of its rows.
  int next_;
  unsigned copies_to_;  // in the first stage
  ActivationRows<Element, PIXEL_ROWS, R, S> rows_;
  const char* filter_;
  int filters_left_;
  long long to_outputs_;

  // What its warp multiplies.
  unsigned pixels_from_, filters_from_;  // in the first stage
  unsigned pixels_[2][M][4], filters_[2][N / 2][4];
  float sum_[M][N][4] = {};
};

template <class Element, class Tile, int R, int S, int VECTOR, bool MASKED = false>
__global__ void __launch_bounds__(Tile::THREADS)
    fprop_tensor_core(const __grid_constant__ Conv2dArguments arguments) {
  const Conv2dArguments& args = known(arguments);
  extern __shared__ __align__(128) unsigned char shared[];
  TensorCoreProduct<Element, Tile, R, S, VECTOR, MASKED> product(args, ptx::shared_address(shared));
  product.multiply_all();
  product.store_all();
}

}  // namespace pyconvx
