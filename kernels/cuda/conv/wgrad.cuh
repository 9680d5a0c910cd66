// The gradient of the filters as a matrix product without the matrices, whose reduction runs over output
// pixels:
//
//   grad_filter[k][j] = sum over m of grad_output[m][k] * activation[m][j]
//
// with m, k, j and activation as in gather.cuh: m = (n P + p) Q + q, j = (r S + s) C + c. Both matrices lie
// in memory with m as the slow index, so slices of them, DEPTH pixels by a tile of filters or columns j, are
// copied as they are. Column j of a slice belongs to one tap and channel: what it adds to a pixel's address,
// and how far it moves the pixel, are the same in every slice and made once. What changes is m: for each
// pixel that it copies, a thread divides m into n, p, q, and asks whether the tap is inside the image.
//
// A window of one tap that never leaves the image and has stride 1 needs none of it: activation[m] is pixel
// m.
//
// The reduction is split: block `split` sums pixels [split run, (split + 1) run) into sums of its own, in the
// accumulator's type, and wgrad_sum.cuh adds the splits up in order. Where there is but one split, and
// elements are accumulators, the sums are the gradient itself. No sum is ever added to by two blocks.
//
// Order of summation: m ascends within a split. Splits depend on the problem alone, so that every tile, run
// and device gives the same bits.
#pragma once

#include "gather.cuh"

namespace pyconvx {

// A block computes FILTERS x COLUMNS elements of the gradient with WARPS_M x WARPS_N warps, DEPTH pixels at a
// time, and has STAGES such slices in flight or in use.
template <int FILTERS_, int COLUMNS_, int DEPTH_, int WARPS_M_, int WARPS_N_, int STAGES_>
struct WgradTile {
  static constexpr int FILTERS = FILTERS_, COLUMNS = COLUMNS_, DEPTH = DEPTH_;
  static constexpr int WARPS_M = WARPS_M_, WARPS_N = WARPS_N_, STAGES = STAGES_;
  static constexpr int THREADS = 32 * WARPS_M * WARPS_N;
};

// Which tile of which split this block computes. Blocks that follow each other share their pixels.
struct WgradBlock {
  int split, group, filter, column;  // tiles of filters and columns, counted inside the group

  __device__ explicit WgradBlock(const WgradArguments& args) {
    split = args.by_tiles(blockIdx.x);
    const int tile = blockIdx.x - split * args.by_tiles.divisor;
    group = args.by_group_tiles(tile);
    const int in_group = tile - group * args.by_group_tiles.divisor;
    filter = args.by_column_tiles(in_group);
    column = in_group - filter * args.by_column_tiles.divisor;
  }
};

// Where the sums of filter k (of all) begin.
template <class Number>
__device__ inline Number* sums_of_filter(const WgradArguments& args, int split, long long k) {
  return static_cast<Number*>(args.sums) + split * args.split_size + k * args.conv.reduction;
}

template <class Number>
__device__ inline Number* bias_sums(const WgradArguments& args, int split) {
  return static_cast<Number*>(args.bias_sums) + split * args.split_size;
}

// The slices of a block, in shared memory: of each stage first DEPTH rows of gradients, then DEPTH rows of
// activations. A row's pitch is an odd multiple of 16 bytes for elements of 16 bits, for ldmatrix, and 8
// modulo 32 words for those of 32, so that 4 rows' elements side by side lie in 32 banks.
//
// LINEAR: one tap, stride 1, never outside. VECTOR_Y, VECTOR_X: bytes that gradients and activations can be
// read by.
template <class Element, class Tile, bool LINEAR, int VECTOR_Y, int VECTOR_X>
class WgradSlices {
  static constexpr int V = kVector<Element>, BYTES = sizeof(Element), PAD = BYTES == 2 ? 16 : 32;
  static constexpr int Y_CHUNKS = Tile::FILTERS / V, X_CHUNKS = Tile::COLUMNS / V;
  static constexpr int Y_AT_ONCE = Tile::THREADS / Y_CHUNKS, X_AT_ONCE = Tile::THREADS / X_CHUNKS;  // rows
  static_assert(Tile::DEPTH % Y_AT_ONCE == 0 && Tile::DEPTH % X_AT_ONCE == 0,
                "every thread copies whole chunks");

public:
  static constexpr int Y_PITCH = Tile::FILTERS * BYTES + PAD, X_PITCH = Tile::COLUMNS * BYTES + PAD;
  static constexpr int X_AT = Tile::DEPTH * Y_PITCH;  // in a stage
  static constexpr int STAGE = X_AT + Tile::DEPTH * X_PITCH;

  __device__ WgradSlices(const WgradArguments& args, const WgradBlock& block, unsigned shared)
      : args_(args.conv) {
    const int y_chunk = threadIdx.x % Y_CHUNKS, y_row = threadIdx.x / Y_CHUNKS;
    const int x_chunk = threadIdx.x % X_CHUNKS, x_row = threadIdx.x / X_CHUNKS;
    const int first = static_cast<int>(block.split * args.run);
    const int end = static_cast<int>(min(first + args.run, static_cast<long long>(args_.pixels)));
    left_ = end - first;
    y_row_ = y_row, x_row_ = x_row;
    y_to_ = shared + y_row * Y_PITCH + y_chunk * 16;
    x_to_ = shared + X_AT + x_row * X_PITCH + x_chunk * 16;
    const int filter = block.filter * Tile::FILTERS + y_chunk * V;
    filters_left_ = args_.group_filters - filter;
    y_ = static_cast<const char*>(args.grad_output) +
         ((static_cast<long long>(first) + y_row) * args_.k + block.group * args_.group_filters + filter) *
             BYTES;
    column_ = block.column * Tile::COLUMNS + x_chunk * V;
    x_ = static_cast<const char*>(args_.input) +
         static_cast<long long>(block.group) * args_.group_channels * BYTES;
    if constexpr (LINEAR)
      x_ += ((static_cast<long long>(first) + x_row) * args_.c + column_) * BYTES;
    else
      at_ = at(column_);
    pixel_ = first + x_row;
  }

  // Slices that this block multiplies.
  __device__ int count() const { return (left_ + Tile::DEPTH - 1) / Tile::DEPTH; }

  // This thread's chunks of the next slice, to the stage at byte `stage`. Past the end, zeros.
  __device__ void copy_next(unsigned stage) {
#pragma unroll
    for (int i = 0; i < Tile::DEPTH / Y_AT_ONCE; ++i) {
      const bool exists = y_row_ + i * Y_AT_ONCE < left_;
      const char* from = y_ + static_cast<long long>(args_.k) * (i * Y_AT_ONCE * BYTES);
#pragma unroll
      for (int byte = 0; byte < 16; byte += VECTOR_Y)
        copy<VECTOR_Y>(y_to_ + stage + i * Y_AT_ONCE * Y_PITCH + byte, from + byte,
                       exists && byte / BYTES < filters_left_);
    }
#pragma unroll
    for (int i = 0; i < Tile::DEPTH / X_AT_ONCE; ++i) {
      const bool exists = x_row_ + i * X_AT_ONCE < left_;
      const unsigned to = x_to_ + stage + i * X_AT_ONCE * X_PITCH;
      if constexpr (LINEAR) {
        const char* from = x_ + static_cast<long long>(args_.c) * (i * X_AT_ONCE * BYTES);
#pragma unroll
        for (int byte = 0; byte < 16; byte += VECTOR_X)
          copy<VECTOR_X>(to + byte, from + byte, exists && column_ + byte / BYTES < args_.reduction);
      } else {
        const int m = pixel_ + i * X_AT_ONCE;
        const int n = args_.by_image(m), pq = m - n * args_.by_image.divisor;
        const int p = args_.by_q(pq), q = pq - p * args_.q;
        const int h = p * args_.stride_h, w = q * args_.stride_w;
        const long long pixel = (static_cast<long long>(n) * args_.h + h) * args_.w + w;
        const char* from = x_ + pixel * (args_.c * BYTES);
#pragma unroll
        for (int byte = 0; byte < 16; byte += VECTOR_X) {
          const Column column = byte ? at(column_ + byte / BYTES) : at_;
          const bool inside = static_cast<unsigned>(h + column.down) < static_cast<unsigned>(args_.h) &&
                              static_cast<unsigned>(w + column.right) < static_cast<unsigned>(args_.w);
          copy<VECTOR_X>(to + byte, from + column.offset, exists && inside);
        }
      }
    }
    ptx::cp_async_commit();
    left_ -= Tile::DEPTH;
    pixel_ += Tile::DEPTH;
    y_ += static_cast<long long>(args_.k) * (Tile::DEPTH * BYTES);
    if constexpr (LINEAR) x_ += static_cast<long long>(args_.c) * (Tile::DEPTH * BYTES);
  }

private:
  // Column j: from the pixel at (p stride_h, q stride_w) so many rows down, columns right, and bytes.
  struct Column {
    int down, right;
    long long offset;
  };

  __device__ Column at(int j) const {
    const int tap = args_.by_channels(j), c = j - tap * args_.group_channels;
    const int r = args_.by_s(tap), s = tap - r * args_.s;
    // Past the last column, a row above all images.
    const int down = j < args_.reduction ? r * args_.dilation_h - args_.pad_top : 1 << 31;
    const int right = s * args_.dilation_w - args_.pad_left;
    const long long pixel = static_cast<long long>(down) * args_.w + right;
    return {down, right, (pixel * args_.c + c) * BYTES};
  }

  const Conv2dArguments& args_;
  int left_;  // pixels of the split from the next slice on
  int pixel_, column_;
  int y_row_, x_row_, filters_left_;
  unsigned y_to_, x_to_;  // in the first stage
  const char *y_, *x_;
  Column at_;
};

}  // namespace pyconvx
