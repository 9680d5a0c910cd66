// Convolution of an input of 1 to 4 channels by any window, on tensor cores. The common windows have a kernel
// of their own, fprop_few_channels.cuh.
//
// A gather would fetch 2 to 8 bytes at a time here. Instead a block copies the patch of input that its 8 x 16
// output pixels see, once, and finds all operands in it; and it keeps its filters while it walks over many
// tiles.
//
// Shared memory. The patch: rows of pixels of 4 channels each, those past C being zeros; tile pixel (p, q)
// and tap (r, s) meet at row p stride_h + r dilation_h, column q stride_w + s dilation_w. Filters: for each
// its R rows of S x 4 elements, zeros past C and past S up to whole matrix instructions; the pitch of a
// filter is an odd multiple of 16 bytes, so that ldmatrix reads 8 of them from all 32 banks.
//
// Reduction: r by r, in the order 0, stride_h, 2 stride_h .. 1, stride_h + 1 .. ; and in each row of the
// window, matrix instruction by matrix instruction, TAPS taps of 4 channels, 32 bytes: 4 taps of 16-bit
// elements, 2 of tf32. In 16 bits, if the pad is odd, tap 0 is the second of the row's first instruction.
// Lane l supplies 4 bytes of each half of it, from pixels l / 4 and l / 4 + 8 of a row of 16: bytes 4 (l % 4)
// of the half's 16, which is one tap, or one of two. Neighbouring taps needn't lie side by side in the patch
// (dilation), so lanes read them by 4 bytes rather than by ldmatrix. What is no tap meets filter zeros, but
// the patch has other pixels there: an infinity among them would make a NaN, so they are replaced: by zeros,
// and one of them by a pixel whose first channel is 1. Its filter is the bias, if nothing but ReLU follows.
//
// Order of summation: that of the reduction above, which is that of fprop_few_channels.cuh, and so are the
// bits.
#pragma once

#include "fragments.cuh"
#include "gather.cuh"
#include "mask.cuh"
#include "pixel_tiles.cuh"

namespace pyconvx {

template <class Element, int FILTERS, int VECTOR, bool MASKED>
class FewChannels {
  static constexpr int TILE_P = 8, TILE_Q = 16, THREADS = 128;
  static constexpr int V = kVector<Element>, BYTES = sizeof(Element), PIXEL = 4 * BYTES;
  static constexpr int TAPS = 32 / PIXEL;  // of a matrix instruction
  static constexpr int M = 2;              // matrix instructions of a warp: two rows of 16 pixels,
  static constexpr int N = FILTERS / 8;    // all filters

public:
  __device__ FewChannels(const Conv2dArguments& args, unsigned shared) : args_(args), filters_(shared) {
    const int filter_tile = blockIdx.x % args.by_filter_tiles.divisor;
    first_filter_ = filter_tile * FILTERS;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    patches_ = filters_ + FILTERS * filter_pitch();
    filters_from_ = filters_ + (lane / 16 * 8 + lane % 8) * filter_pitch() + lane / 8 % 2 * 16;
    // Both in bytes of a patch: the lane's first pixel, and its place in a half of the matrix instruction.
    pixels_from_ = warp * M * args_.stride_h * row_pitch() + lane / 4 * args_.stride_w * PIXEL +
                   lane % 4 * 4 / PIXEL * args_.dilation_w * PIXEL + lane % 4 * 4 % PIXEL;
    lane_tap_ = lane % 4 * 4 / PIXEL;
    one_ = lane % 4 * 4 % PIXEL == 0 ? one_and_zero(Element{}) : 0;
  }

  // One patch is multiplied while the next one is on its way.
  __device__ void run() {
    const int step = gridDim.x / args_.by_filter_tiles.divisor;
    int tile = blockIdx.x / args_.by_filter_tiles.divisor;
    unsigned patch = patches_, next = patches_ + patch_bytes();
    clear();
    __syncthreads();
    copy_filters();
    start();
    if (tile < args_.tiles) copy_patch(patch, tile);
    for (; tile < args_.tiles; tile += step) {
      ptx::cp_async_wait<0>();
      if constexpr (MASKED) mask_patch(patch);
      __syncthreads();
      if (tile + step < args_.tiles) copy_patch(next, tile + step);
      multiply_patch(patch);
      store(tile);
      const unsigned done = patch;
      patch = next;
      next = done;
    }
  }

private:
  // What is no tap in front of a row's taps, and which that is no tap stands for the bias.
  __device__ int front() const { return BYTES == 2 ? args_.pad_left % 2 : 0; }
  __device__ int tap_of_ones() const { return front() ? -1 : args_.s; }
  __device__ bool has_tap_of_ones() const { return BYTES == 2 && (front() || args_.s % 2); }
  __device__ bool biased() const { return bias_is_first(args_) && (BYTES == 4 || has_tap_of_ones()); }

  // Sizes that the plan computes as well: any_shared_bytes in csrc/plan/conv/fprop_few_channels.cpp.
  __device__ int steps_of_row() const { return (front() + args_.s + TAPS - 1) / TAPS; }
  __device__ int filter_pitch() const { return (args_.r * steps_of_row() * 2 | 1) * 16; }
  __device__ int patch_rows() const {
    return (TILE_P - 1) * args_.stride_h + (args_.r - 1) * args_.dilation_h + 1;
  }
  __device__ int patch_columns() const {
    return (TILE_Q - 1) * args_.stride_w + (args_.s - 1) * args_.dilation_w + 1;
  }
  __device__ int row_pitch() const { return patch_columns() * PIXEL; }
  __device__ int patch_bytes() const { return (patch_rows() * row_pitch() + 15) / 16 * 16; }

  // The zeros past C and S, which nothing overwrites.
  __device__ void clear() const {
    const int vectors = (FILTERS * filter_pitch() + (2 + MASKED) * patch_bytes()) / 16;
    for (int i = threadIdx.x; i < vectors; i += THREADS) ptx::store_shared(filters_ + i * 16, uint4{});
  }

  // A warp copies filters, 32 elements of one at a time.
  __device__ void copy_filters() const {
    for (int row = threadIdx.x / 32; row < FILTERS; row += THREADS / 32) {
      const int filter = first_filter_ + filter_of_row<V>(row);
      if (filter >= args_.k) continue;
      const Element* from =
          static_cast<const Element*>(args_.filter) + static_cast<long long>(filter) * args_.reduction;
      const unsigned to = filters_ + row * filter_pitch() + front() * PIXEL;
      for (int j = threadIdx.x % 32; j < args_.reduction; j += 32) {
        const int tap = args_.by_channels(j), c = j - tap * args_.c, r = args_.by_s(tap),
                  s = tap - r * args_.s;
        copy<BYTES>(to + r * steps_of_row() * 32 + s * PIXEL + c * BYTES, from + j, true);
      }
      if (has_tap_of_ones() && biased() && args_.bias && threadIdx.x % 32 == 0)
        copy<BYTES>(to + tap_of_ones() * PIXEL, static_cast<const Element*>(args_.bias) + filter, true);
    }
    ptx::cp_async_commit();
  }

  // What sums begin with.
  __device__ void start() {
#pragma unroll
    for (int j = 0; j < N; ++j)
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        const int filter = first_filter_ + j / (V / 2) * 4 * V + threadIdx.x % 4 * V + j % (V / 2) * 2 + e;
        const bool exists = BYTES == 4 && biased() && args_.bias && filter < args_.k;
        start_[j][e] = exists ? widen(static_cast<const Element*>(args_.bias)[filter]) : 0.0f;
      }
  }

  __device__ void copy_patch(unsigned patch, int tile) const {
    const PixelTile at = pixel_tile<TILE_P, TILE_Q>(args_, tile);
    const int top = at.p * args_.stride_h - args_.pad_top, left = at.q * args_.stride_w - args_.pad_left;
    const Element* image =
        static_cast<const Element*>(args_.input) + static_cast<long long>(at.n) * args_.h * args_.w * args_.c;
    for (int i = threadIdx.x; i < patch_rows() * patch_columns(); i += THREADS) {
      const int row = i / patch_columns(), column = i % patch_columns(), h = top + row, w = left + column;
      const bool inside = h >= 0 && h < args_.h && w >= 0 && w < args_.w;
      const Element* pixel = image + (static_cast<long long>(h) * args_.w + w) * args_.c;
      const unsigned to = patch + row * row_pitch() + column * PIXEL;
#pragma unroll
      for (int byte = 0; byte < PIXEL; byte += VECTOR)
        if (byte < args_.c * BYTES) {
          copy<VECTOR>(to + byte, pixel + byte / BYTES, inside);
          if constexpr (MASKED)
            copy<VECTOR>(outputs() + (to - patch) + byte,
                         reinterpret_cast<const char*>(pixel) + byte +
                             way_to_outputs(args_.input, args_.relu_output),
                         inside);
        }
    }
    ptx::cp_async_commit();
  }

  // The outputs of a ReLU that mask the patch that is on its way, or has just arrived.
  __device__ unsigned outputs() const { return patches_ + 2 * patch_bytes(); }

  // What this thread has copied.
  __device__ void mask_patch(unsigned patch) const {
    for (int i = threadIdx.x; i < patch_rows() * patch_columns(); i += THREADS)
#pragma unroll
      for (int byte = 0; byte < PIXEL; byte += 4) {
        const unsigned at = i * PIXEL + byte, x = ptx::load_shared(patch + at);
        ptx::store_shared(patch + at, masked_word(x, ptx::load_shared(outputs() + at), Element{}));
      }
  }

  __device__ void multiply_patch(unsigned patch) {
#pragma unroll
    for (int i = 0; i < M; ++i)
#pragma unroll
      for (int j = 0; j < N; ++j)
#pragma unroll
        for (int x = 0; x < 4; ++x) sum_[i][j][x] = start_[j][x % 2];
    for (int phase = 0; phase < args_.stride_h && phase < args_.r; ++phase)
      for (int r = phase; r < args_.r; r += args_.stride_h) {
        const unsigned row = patch + pixels_from_ + r * args_.dilation_h * row_pitch();
        unsigned filters_from = filters_from_ + r * steps_of_row() * 32;
        for (int s = -front(); s < args_.s; s += TAPS, filters_from += 32) step(row, s, filters_from);
      }
  }

  // Taps s .. s + TAPS - 1 of a row of the window.
  __device__ void step(unsigned row, int s, unsigned filters_from) {
    unsigned pixels[M][4], filters[N / 2][4];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int tap = s + half * TAPS / 2;
      const bool exists = static_cast<unsigned>(tap + lane_tap_) < static_cast<unsigned>(args_.s);
      const unsigned absent = has_tap_of_ones() && tap + lane_tap_ == tap_of_ones() ? one_ : 0;
#pragma unroll
      for (int i = 0; i < M; ++i)
#pragma unroll
        for (int eight = 0; eight < 2; ++eight) {
          const unsigned from = row + tap * args_.dilation_w * PIXEL + i * args_.stride_h * row_pitch() +
                                eight * 8 * args_.stride_w * PIXEL;
          pixels[i][half * 2 + eight] = exists ? ptx::load_shared(from) : absent;
        }
    }
#pragma unroll
    for (int j = 0; j < N / 2; ++j) ptx::ldmatrix_x4(filters[j], filters_from + j * 16 * filter_pitch());
#pragma unroll
    for (int i = 0; i < M; ++i)
#pragma unroll
      for (int j = 0; j < N; ++j)
        multiply(sum_[i][j], pixels[i], filters[j / 2][j % 2 * 2], filters[j / 2][j % 2 * 2 + 1], Element{});
  }

  __device__ void store(int tile) const {
    store_rows<Element>(args_, pixel_tile<TILE_P, TILE_Q>(args_, tile), threadIdx.x / 32 * M,
                        first_filter_ + threadIdx.x % 4 * V, sum_, biased(),
                        [](int half) { return threadIdx.x % 32 / 4 + half * 8; });
  }

  const Conv2dArguments& args_;
  int first_filter_;
  unsigned filters_, patches_;  // in shared memory
  unsigned filters_from_, pixels_from_;
  int lane_tap_;
  unsigned one_;
  float start_[N][2];
  float sum_[M][N][4];
};

template <class Element, int FILTERS, int VECTOR, bool MASKED = false>
__global__ void __launch_bounds__(128, 2)
    fprop_few_channels_any(const __grid_constant__ Conv2dArguments arguments) {
  const Conv2dArguments& args = known(arguments);
  extern __shared__ __align__(128) unsigned char shared[];
  FewChannels<Element, FILTERS, VECTOR, MASKED>(args, ptx::shared_address(shared)).run();
}

}  // namespace pyconvx
