// The gradient of the filters as a matrix product without the matrices, whose reduction runs over output
// pixels:
//
//   grad_filter[k][j] = sum over m of grad_output[m][k] * activation[m][j]
//
// with m, k, j and activation as in gather.cuh: m = (n P + p) Q + q, j = (r S + s) C + c. Both matrices lie
// in memory with m as the slow index, so slices of them, DEPTH pixels by a tile of filters or columns j, are
// copied as they are.
//
// Again an activation's address is that of its pixel's window plus an offset(j), and again j has the bits of
// its row and its column of the window. But here the columns j that a thread copies are the same in every
// slice, and what changes is m. A pixel is copied from by many threads. So there is a table of pixels in
// shared memory, for which one thread divides m into n, p, q: 16 bytes, the window's address and, as bits,
// which of its rows and columns are inside the image. A copy then costs a read of the table, a test of bits,
// and an addition. A table has as many pixels as the block has threads, which are several slices; while they
// are copied by one table, the next one is made.
//
// Of the R rows of a window that begins at h, the first ceil(-h / dilation) are above the image, and those
// from ceil((H - h) / dilation) on are below. Columns likewise.
//
// Few channels. Taps of a row of the window lie side by side in memory, if there is one group and no
// dilation: S C elements in a run. Where all runs, and the image's rows, begin at the same bytes modulo a
// vector (a stride of 2 makes it 16 bytes for 4 channels, 4 bytes for 3), they are copied by vectors of any
// taps. Then the columns have another order than j: each row of the window has some more, so that vectors are
// whole,
//
//   column = r row_columns + lead + s C + c,
//
// with `lead` columns before the first that are other pixels', and others behind the last. Their products are
// not stored. No vector is across the edge of the image, so that bits of one of its taps tell of all. In all
// other cases row_columns = S C/groups, lead = 0, and a column is a j.
//
// A window of one tap that never leaves the image and has stride 1 needs none of it: activation[m] is pixel
// m.
//
// Kernels that are compiled to mask (mask.cuh) read the outputs that mask a slice's gradients into registers,
// each thread those of its own copies, a slice ahead; and mask its copies where they lie, after they have
// arrived and before others may read them.
//
// The reduction is split: block `split` sums pixels [split run, (split + 1) run) into sums of its own, in the
// accumulator's type, and wgrad_sum.cuh adds the splits up in order. Where there is but one split, and
// elements are accumulators, the sums are the gradient itself. No sum is ever added to by two blocks.
//
// Order of summation: m ascends within a split. Splits depend on the problem alone, so that every tile, run
// and device gives the same bits.
#pragma once

#include "gather.cuh"
#include "mask.cuh"

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

// Which of a filter's elements a column is; of those that are none, a negative number.
__device__ inline int element_of_column(const WgradArguments& args, int column) {
  const int of_row = args.conv.s * args.conv.group_channels, r = args.by_row_columns(column);
  const int i = column - r * args.by_row_columns.divisor - args.lead;
  return i >= 0 && i < of_row && r < args.conv.r ? r * of_row + i : -1;
}

// The first of 16 bytes' elements, as many as there are, VECTOR bytes at a time.
template <int VECTOR, int BYTES>
__device__ inline void load_vector(uint4& to, const char* from, int elements) {
  if constexpr (VECTOR == 16) {
    if (elements > 0) to = *reinterpret_cast<const uint4*>(from);
  } else {
    unsigned words[4] = {};
#pragma unroll
    for (int byte = 0; byte < 16; byte += VECTOR) {
      if (byte / BYTES >= elements) continue;
      if constexpr (VECTOR == 8) {
        const uint2 two = *reinterpret_cast<const uint2*>(from + byte);
        words[byte / 4] = two.x, words[byte / 4 + 1] = two.y;
      } else if constexpr (VECTOR == 4) {
        words[byte / 4] = *reinterpret_cast<const unsigned*>(from + byte);
      } else {
        words[byte / 4] |= static_cast<unsigned>(*reinterpret_cast<const unsigned short*>(from + byte))
                           << byte % 4 * 8;
      }
    }
    to = {words[0], words[1], words[2], words[3]};
  }
}

// The slices of a block, in shared memory: of each stage first DEPTH rows of gradients, then DEPTH rows of
// activations. A row's pitch is an odd multiple of 16 bytes for elements of 16 bits, for ldmatrix, and 8
// modulo 32 words for those of 32, so that 4 rows' elements side by side lie in 32 banks. Behind the stages
// lie two tables of pixels, and one of the tile's columns where these are copied one by one.
//
// LINEAR: one tap, stride 1, never outside. VECTOR_Y, VECTOR_X: bytes that gradients and activations can be
// read by.
template <class Element, class Tile, bool LINEAR, int VECTOR_Y, int VECTOR_X, bool MASKED>
class WgradSlices {
  static constexpr unsigned NOWHERE = ActivationRows<Element, 1, 0, 0>::NOWHERE;
  static constexpr int V = kVector<Element>, BYTES = sizeof(Element), PAD = BYTES == 2 ? 16 : 32;
  static constexpr int Y_CHUNKS = Tile::FILTERS / V, X_CHUNKS = Tile::COLUMNS / V;
  static constexpr int Y_AT_ONCE = Tile::THREADS / Y_CHUNKS, X_AT_ONCE = Tile::THREADS / X_CHUNKS;  // rows
  static constexpr int Y_COPIES = Tile::DEPTH / Y_AT_ONCE;
  static constexpr int PIXEL = 16, TABLE = Tile::THREADS * PIXEL, COLUMN = 8;  // bytes
  static_assert(Tile::DEPTH % Y_AT_ONCE == 0 && Tile::DEPTH % X_AT_ONCE == 0,
                "every thread copies whole chunks");

public:
  static constexpr int Y_PITCH = Tile::FILTERS * BYTES + PAD, X_PITCH = Tile::COLUMNS * BYTES + PAD;
  static constexpr int X_AT = Tile::DEPTH * Y_PITCH;  // in a stage
  static constexpr int STAGE = X_AT + Tile::DEPTH * X_PITCH;
  static constexpr int OF_TABLE = LINEAR ? 1 << 30 : Tile::THREADS / Tile::DEPTH;  // slices
  static_assert(OF_TABLE >= Tile::STAGES - 1, "the first table is that of the slices before the loop");

  __device__ WgradSlices(const WgradArguments& args, const WgradBlock& block, unsigned shared)
      : args_(args.conv), wgrad_(args) {
    const int y_chunk = threadIdx.x % Y_CHUNKS, y_row = threadIdx.x / Y_CHUNKS;
    const int x_chunk = threadIdx.x % X_CHUNKS, x_row = threadIdx.x / X_CHUNKS;
    const int first = static_cast<int>(block.split * args.run);
    end_ = static_cast<int>(min(first + args.run, static_cast<long long>(args_.pixels)));
    count_ = (end_ - first + Tile::DEPTH - 1) / Tile::DEPTH;
    y_left_ = end_ - first - y_row, x_left_ = end_ - first - x_row;
    y_to_ = shared + y_row * Y_PITCH + y_chunk * 16;
    x_to_ = shared + X_AT + x_row * X_PITCH + x_chunk * 16;
    const int filter = block.filter * Tile::FILTERS + y_chunk * V;
    filters_left_ = args_.group_filters - filter;
    y_ = static_cast<const char*>(args.grad_output) +
         ((static_cast<long long>(first) + y_row) * args_.k + block.group * args_.group_filters + filter) *
             BYTES;
    if constexpr (MASKED) to_outputs_ = way_to_outputs(args.grad_output, args_.relu_output);
    const int column = block.column * Tile::COLUMNS + x_chunk * V;
    columns_left_ = args_.reduction - column;
    x_ = static_cast<const char*>(args_.input) +
         static_cast<long long>(block.group) * args_.group_channels * BYTES;
    if constexpr (LINEAR) {
      x_ += ((static_cast<long long>(first) + x_row) * args_.c + column) * BYTES;
    } else {
      column_ = at(column);
      tables_ = shared + Tile::STAGES * STAGE;
      columns_from_ = tables_ + 2 * TABLE + x_chunk * COLUMN;
      if constexpr (VECTOR_X < 16) make_columns(block.column * Tile::COLUMNS);
      table_pixel_ = first + threadIdx.x;
      make_table(Tile::STAGES - 1);
      turn_to_table();
    }
  }

  // Slices that this block multiplies.
  __device__ int count() const { return count_; }

  // The next table, in the place of the one before the last. `slices` of it are used, and those behind them
  // are in the next one, too.
  __device__ void make_table(int slices) {
    if constexpr (!LINEAR) {
      const int m = table_pixel_;
      const unsigned n = args_.by_image(m), pq = m - n * args_.by_image.divisor;
      const int p = args_.by_q(pq), q = pq - p * args_.q;
      const int h = p * args_.stride_h - args_.pad_top, w = q * args_.stride_w - args_.pad_left;
      const char* window = x_ + n * wgrad_.x_image + static_cast<long long>(h) * wgrad_.x_row +
                           static_cast<long long>(w) * (args_.c * BYTES) - wgrad_.lead * BYTES;
      const auto address = reinterpret_cast<unsigned long long>(window);
      const unsigned rows = inside(h, args_.h, args_.r, args_.dilation_h, wgrad_.by_dilation_h);
      const unsigned columns = inside(w, args_.w, args_.s, args_.dilation_w, wgrad_.by_dilation_w);
      const unsigned exists = static_cast<unsigned>((m - end_) >> 31);  // all bits, or none past the end
      ptx::store_shared(tables_ + made_ + threadIdx.x * PIXEL,
                        uint4{static_cast<unsigned>(address), static_cast<unsigned>(address >> 32),
                              (rows | columns << args_.r) & exists, 0});
      table_pixel_ += slices * Tile::DEPTH;
      made_ ^= TABLE;
    }
  }

  // Copies go on with the table that was made last.
  __device__ void turn_to_table() {
    if constexpr (!LINEAR) pixels_from_ = tables_ + (made_ ^ TABLE) + threadIdx.x / X_CHUNKS * PIXEL;
  }

  // This thread's chunks of the next slice, to the stage at byte `stage`. Past the end, zeros.
  __device__ void copy_next(unsigned stage) {
    // Tables are read before anything is copied: between reads of shared memory and copies to it the compiler
    // puts three instructions that do nothing.
    uint4 pixels[LINEAR ? 1 : Tile::DEPTH / X_AT_ONCE];
    uint2 columns[16 / VECTOR_X] = {column_};
    if constexpr (!LINEAR) {
#pragma unroll
      for (int i = 0; i < Tile::DEPTH / X_AT_ONCE; ++i)
        pixels[i] = ptx::load_shared_16(pixels_from_ + i * X_AT_ONCE * PIXEL);
      if constexpr (VECTOR_X < 16)
#pragma unroll
        for (int i = 0; i < 16 / VECTOR_X; ++i)
          columns[i] = ptx::load_shared_pair(columns_from_ + i * (VECTOR_X / BYTES) * X_CHUNKS * COLUMN);
    }
#pragma unroll
    for (int i = 0; i < Y_COPIES; ++i) {
      const bool exists = i * Y_AT_ONCE < y_left_;
      const char* from = y_ + static_cast<long long>(args_.k) * (i * Y_AT_ONCE * BYTES);
#pragma unroll
      for (int byte = 0; byte < 16; byte += VECTOR_Y)
        copy<VECTOR_Y>(y_to_ + stage + i * Y_AT_ONCE * Y_PITCH + byte, from + byte,
                       exists && byte / BYTES < filters_left_);
    }
#pragma unroll
    for (int i = 0; i < Tile::DEPTH / X_AT_ONCE; ++i) {
      const unsigned to = x_to_ + stage + i * X_AT_ONCE * X_PITCH;
      if constexpr (LINEAR) {
        const bool exists = i * X_AT_ONCE < x_left_;
        const char* from = x_ + static_cast<long long>(args_.c) * (i * X_AT_ONCE * BYTES);
#pragma unroll
        for (int byte = 0; byte < 16; byte += VECTOR_X)
          copy<VECTOR_X>(to + byte, from + byte, exists && byte / BYTES < columns_left_);
      } else {
        const char* window =
            reinterpret_cast<const char*>(static_cast<unsigned long long>(pixels[i].y) << 32 | pixels[i].x);
#pragma unroll
        for (int byte = 0; byte < 16; byte += VECTOR_X) {
          const uint2 column = columns[byte / VECTOR_X];
          copy<VECTOR_X>(to + byte, ptx::mad_wide(column.x, args_.patch.one, window),
                         !(column.y & ~pixels[i].z));
        }
      }
    }
    ptx::cp_async_commit();
    y_left_ -= Tile::DEPTH, x_left_ -= Tile::DEPTH;
    y_ += static_cast<long long>(args_.k) * (Tile::DEPTH * BYTES);
    if constexpr (LINEAR)
      x_ += static_cast<long long>(args_.c) * (Tile::DEPTH * BYTES);
    else
      pixels_from_ += Tile::DEPTH * PIXEL;
  }

  // The outputs that mask this thread's gradients of an earlier slice than the next to be copied.
  __device__ void load_outputs(int earlier) {
    if constexpr (MASKED) {
#pragma unroll
      for (int i = 0; i < Y_COPIES; ++i) {
        const int row = i * Y_AT_ONCE - earlier * Tile::DEPTH;
        const char* from = y_ + to_outputs_ + static_cast<long long>(args_.k) * (row * BYTES);
        if (row < y_left_) load_vector<VECTOR_Y, BYTES>(outputs_[i], from, filters_left_);
      }
    }
  }

  // This thread's gradients in the stage at byte `stage`, which have arrived, by the outputs that it loaded.
  __device__ void mask(unsigned stage) const {
    if constexpr (MASKED) {
#pragma unroll
      for (int i = 0; i < Y_COPIES; ++i) {
        const unsigned at = y_to_ + stage + i * Y_AT_ONCE * Y_PITCH;
        ptx::store_shared(at, masked(ptx::load_shared_16(at), outputs_[i], Element{}));
      }
    }
  }

private:
  // The bits of the `taps` rows (or columns) under a window that begins at `first` of `size`.
  __device__ static unsigned inside(int first, int size, int taps, int dilation,
                                    const Division& by_dilation) {
    const int before = min(static_cast<int>(by_dilation(max(dilation - 1 - first, 0))), taps);
    const int until = min(static_cast<int>(by_dilation(max(size - first + dilation - 1, 0))), taps);
    return (1u << until) - (1u << before);
  }

  // A vector's first column: bytes from a window's first column, and bits.
  __device__ uint2 at(int column) const {
    const int r = wgrad_.by_row_columns(column), i = column - r * wgrad_.by_row_columns.divisor - wgrad_.lead;
    const int s = args_.by_channels(max(i, 0)), c = i - s * args_.group_channels;
    const unsigned offset = r * args_.row_step + s * args_.column_step + (c + wgrad_.lead) * BYTES;
    return {offset, r < args_.r && s < args_.s ? 1u << r | 1u << (args_.r + s) : NOWHERE};
  }

  // The columns of the tile. Those that neighbouring threads read at once lie side by side.
  __device__ void make_columns(int first) const {
    for (int i = threadIdx.x; i < Tile::COLUMNS; i += Tile::THREADS)
      ptx::store_shared(tables_ + 2 * TABLE + (i % V * X_CHUNKS + i / V) * COLUMN, at(first + i));
  }

  const Conv2dArguments& args_;
  const WgradArguments& wgrad_;
  int count_, end_;      // slices of the split, and the pixel behind them
  int y_left_, x_left_;  // pixels of it from this thread's first of the next slice on
  int filters_left_, columns_left_;
  unsigned y_to_, x_to_;  // in the first stage
  const char *y_, *x_;
  int table_pixel_;             // of the next table
  unsigned tables_, made_ = 0;  // where tables are, and in them that to be made next
  unsigned pixels_from_, columns_from_;
  uint2 column_;
  long long to_outputs_;  // from a gradient, in bytes
  uint4 outputs_[MASKED ? Y_COPIES : 1] = {};
};

}  // namespace pyconvx
