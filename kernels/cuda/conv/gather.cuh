// The two sides of a convolution as a matrix product without the matrix ("implicit GEMM"):
//
//   output[m][k] = sum over j of activation[m][j] * filter[k][j]
//
// m is an output pixel, m = (n P + p) Q + q; k is a filter; j runs over a filter's elements as they lie in
// memory, j = (r S + s) C + c. So filter[k][j] is element j of row k of a plain matrix, and activation[m][j]
// is
//
//   input[n][p stride_h - pad_top + r dilation_h][q stride_w - pad_left + s dilation_w][c]
//
// or 0 outside the image. Its address splits into a part that depends on m alone, that of the window's first
// tap (which may lie outside the image and is then never read), and a part that depends on j alone,
//
//   offset(j) = r row_step + s column_step + c sizeof(element).
//
// The first is a 64-bit pointer for each row, made once; the second a 31-bit offset, made once for all rows
// that a thread copies elements j of.
//
// Is tap (r, s) of pixel m inside the image? A window is a rectangle, so it is if neither its row r nor its
// column s is outside. Each row m has, made once, one bit for each of the R rows and S columns, set if that
// is outside; each j has the two bits of its r and s; and the tap is inside if they have no bit in common.
// That takes R + S <= 31, and leaves bit 31, which is set in every m, to those j that are past the end of the
// reduction.
//
// With groups, C is the number of channels in a group, and a tile lies inside one group.
#pragma once

#include "../device.cuh"
#include "arguments.cuh"

namespace pyconvx {

// A block computes PIXELS x FILTERS outputs with WARPS_M x WARPS_N warps, DEPTH elements of the reduction at
// a time, and has STAGES such slices in flight or in use.
template <int PIXELS_, int FILTERS_, int DEPTH_, int WARPS_M_, int WARPS_N_, int STAGES_>
struct Tile {
  static constexpr int PIXELS = PIXELS_, FILTERS = FILTERS_, DEPTH = DEPTH_;
  static constexpr int WARPS_M = WARPS_M_, WARPS_N = WARPS_N_, STAGES = STAGES_;
  static constexpr int THREADS = 32 * WARPS_M * WARPS_N;
};

// Which tile this block computes. Blocks that follow each other share their pixels as long as there are
// filters left, so that activations come from DRAM once and all filters stay in L2.
template <class Tile>
struct BlockTile {
  int group, pixel, filter;  // the first of each; filters counted inside the group

  __device__ explicit BlockTile(const Conv2dArguments& args) {
    const int pixel_tile = args.by_filter_tiles(blockIdx.x);
    const int filter_tile = blockIdx.x - pixel_tile * args.by_filter_tiles.divisor;
    group = args.by_group_tiles(filter_tile);
    pixel = pixel_tile * Tile::PIXELS;
    filter = (filter_tile - group * args.by_group_tiles.divisor) * Tile::FILTERS;
  }

  // The address of a filter's first element.
  template <class Element>
  __device__ const Element* filter_row(const Conv2dArguments& args, int row) const {
    const long long k = static_cast<long long>(group) * args.group_filters + filter + row;
    return static_cast<const Element*>(args.filter) + k * args.reduction;
  }
};

// From global to shared memory, or zeros if not `valid`: then the address may be any. VECTOR bytes.
template <int VECTOR>
__device__ inline void copy(unsigned shared, const void* global, bool valid) {
  if constexpr (VECTOR >= 4) {
    ptx::cp_async<VECTOR>(shared, global, valid);
  } else {  // cp.async moves no less than 4 bytes
    ptx::store_shared(shared,
                      valid ? *static_cast<const unsigned short*>(global) : static_cast<unsigned short>(0));
  }
}

// The rows m of the activation matrix that one thread copies from. R x S taps; 0 x 0: known at run time only.
// 1 x 1 stands for a window that is never outside the image, for which there is nothing to ask.
template <class Element, int ROWS, int R, int S>
class ActivationRows {
  static constexpr int BYTES = sizeof(Element);

public:
  static constexpr unsigned NOWHERE = 1u << 31;

  // Element j of every row: where it is, relative to the row, and its bits.
  struct At {
    int offset;
    bool exists;  // is j in the reduction?
    unsigned bits;
  };

  // Rows past the last pixel read the last one again: their sums are never stored.
  __device__ void start(const Conv2dArguments& args, int i, int m, int group) {
    m = m < args.pixels ? m : args.pixels - 1;
    const int n = args.by_image(m), pq = m - n * args.p * args.q;
    const int p = args.by_q(pq), q = pq - p * args.q;
    const int h = p * args.stride_h - args.pad_top, w = q * args.stride_w - args.pad_left;
    const long long pixel = (static_cast<long long>(n) * args.h + h) * args.w + w;
    row_[i] = static_cast<const char*>(args.input) + (pixel * args.c + group * args.group_channels) * BYTES;
    outside_[i] = NOWHERE;
    for (int r = 0; r < taps_h(args); ++r) outside_[i] |= outside(h + r * args.dilation_h, args.h) << r;
    for (int s = 0; s < taps_w(args); ++s)
      outside_[i] |= outside(w + s * args.dilation_w, args.w) << (taps_h(args) + s);
  }

  __device__ static At at(const Conv2dArguments& args, int j) {
    const int tap = R * S == 1 ? 0 : args.by_channels(j), c = j - tap * args.group_channels;
    const int r = S == 0 ? args.by_s(tap) : tap / taps_w(args), s = tap - r * taps_w(args);
    const bool exists = j < args.reduction;
    // Unsigned, since past the end of the reduction it may wrap around.
    const unsigned offset = r * args.row_step + s * args.column_step + c * BYTES;
    return {static_cast<int>(offset), exists, exists ? 1u << r | 1u << (taps_h(args) + s) : NOWHERE};
  }

  __device__ const char* address(int i, const At& at) const { return row_[i] + at.offset; }

  // Is it an element of the image?
  __device__ bool inside(int i, const At& at) const {
    return R * S == 1 ? at.exists : !(outside_[i] & at.bits);
  }

private:
  __device__ static int taps_h(const Conv2dArguments& args) { return R ? R : args.r; }
  __device__ static int taps_w(const Conv2dArguments& args) { return S ? S : args.s; }
  __device__ static unsigned outside(int x, int size) {
    return static_cast<unsigned>(x) >= static_cast<unsigned>(size);
  }

  const char* row_[ROWS];
  unsigned outside_[ROWS];
};

}  // namespace pyconvx
