// wgrad of 3 x 3 windows, of stride 1 or 2, on tensor cores, with a patch of the input kept for all nine
// taps.
//
// The product is that of wgrad.cuh: filters by columns (tap, channel), summed over output pixels. A block
// owns 64 filters, all 9 taps and 32 channels, and walks over tiles of 8 x 8 output pixels. Of each tile it
// copies the gradients, 64 pixels of 64 filters, and the patch of input that the pixels' windows cover, 10 x
// 10 pixels of 32 channels (17 x 17 for stride 2), once; a gather would copy each pixel of the patch nine
// times.
//
// A matrix instruction sums 16 pixels: 2 neighbouring rows of 8. Its first operand, 16 filters of them, is
// the same for all taps and channels. Its second is a pair of 8 x 8 matrices, pixels by channels, one for
// each of the two rows; for pixel row p and tap (r, s) that is
//
//   M = the pixels of patch row p STRIDE + r, from column s on in steps of STRIDE.
//
// Columns of stride 2 are stored even ones first and odd ones behind, so that 8 pixels of a tap are
// neighbours in both cases. ldmatrix transposes on the way. With stride 1 rows p .. p + 3 at one s give the
// pairs of r = 0 and r = 2 by one ldmatrix; r = 1 reads its two again, because an operand is a pair of
// neighbouring registers and copies of registers cost more.
//
// A warp owns all 64 filters and 8 channels: 4 x 9 matrix instructions for 9 ldmatrix. Pixels are an odd
// multiple of 16 bytes apart in shared memory, so that 8 neighbours lie in all 32 banks wherever they begin.
// A thread's copies go to the same place in every tile, and come from addresses that move on with the tiles
// by constants.
//
// Outputs that mask the gradients (mask.cuh) are copied as the gradients are, behind the patch.
//
// Pixels of a tile beyond the output have gradients of 0. The input they would see is real, though, and 0
// times an infinity is not a number: tiles at the edge clear it in the registers.
//
// Order of summation: tiles of 8 x 8 pixels in order, in each pairs of rows, and 16 pixels at once.
#pragma once

#include "fragments.cuh"
#include "wgrad.cuh"

namespace pyconvx {

template <class Element, int STRIDE, int VECTOR_Y, int VECTOR_X, bool BIAS, bool MASKED>
class WgradPatch {
  static constexpr int TILE = 8, FILTERS = 64, CHANNELS = 32, THREADS = 128, STAGES = 3, V = 8;
  static constexpr int M = FILTERS / 16;
  static constexpr int ROWS = (TILE - 1) * STRIDE + 3, COLUMNS = ROWS;                    // of the patch
  static constexpr int HALF = (COLUMNS + 1) / 2, ROW = STRIDE == 1 ? COLUMNS : 2 * HALF;  // pixels
  static constexpr int Y_PITCH = FILTERS * 2 + 16, X_PITCH = CHANNELS * 2 + 16, X_AT = TILE * TILE * Y_PITCH;
  // Threads that copy a row of the patch: 4 chunks by 16 or 32 places, of which some are not needed.
  static constexpr int PLACES = 16 * STRIDE, Y_AT_ONCE = 2, X_AT_ONCE = THREADS / (4 * PLACES);
  static_assert(sizeof(Element) == 2 && ROWS % X_AT_ONCE == 0);

public:
  static constexpr int OUTPUTS_AT = X_AT + ROWS * ROW * X_PITCH;  // that mask the gradients: as they lie
  static constexpr int STAGE = OUTPUTS_AT + MASKED * X_AT, LAST_STAGE = (STAGES - 1) * STAGE;

  __device__ WgradPatch(const WgradArguments& args, unsigned shared) : args_(args), block_(args) {
    const Conv2dArguments& conv = args.conv;
    const int t = threadIdx.x, lane = t % 32, warp = t / 32;
    first_ = static_cast<int>(block_.split * args.run);
    left_ = static_cast<int>(min(args.run, static_cast<long long>(conv.tiles) - first_));
    tiles_ = left_;
    const int n = conv.by_tiles_of_image(first_), in_image = first_ - n * conv.by_tiles_of_image.divisor;
    row_ = conv.by_tiles_of_row(in_image), tile_ = in_image - row_ * conv.by_tiles_of_row.divisor;

    const int y_chunk = t % 8, filter = block_.filter * FILTERS + y_chunk * V;
    p_ = row_ * TILE + t / 64, q_ = tile_ * TILE + t / 8 % 8;
    y_to_ = shared + (t / 64 * TILE + t / 8 % 8) * Y_PITCH + y_chunk * 16;
    filters_left_ = conv.group_filters - filter;
    y_ = static_cast<const char*>(args.grad_output) +
         (((static_cast<long long>(n) * conv.p + p_) * conv.q + q_) * conv.k +
          block_.group * conv.group_filters + filter) *
             2;

    // Threads that write at once write two pixels, which are 4 apart, so that they don't meet in a bank.
    const int x_chunk = t % 4,
              place = t / 4 % 2 * 4 * STRIDE + t / 8 % (4 * STRIDE) + t / (32 * STRIDE) % 2 * 8 * STRIDE;
    const int x_row = t / (4 * PLACES), channel = block_.column * CHANNELS + x_chunk * V;
    h_ = row_ * TILE * STRIDE - conv.pad_top + x_row, w_ = tile_ * TILE * STRIDE - conv.pad_left + place;
    x_to_ = shared + X_AT + (x_row * ROW + (STRIDE == 1 ? place : place % 2 * HALF + place / 2)) * X_PITCH +
            x_chunk * 16;
    in_patch_ = place < COLUMNS;
    channels_left_ = conv.group_channels - channel;
    x_ = static_cast<const char*>(conv.input) +
         (((static_cast<long long>(n) * conv.h + h_) * conv.w + w_) * conv.c +
          block_.group * conv.group_channels + channel) *
             2;

    if constexpr (MASKED) to_outputs_ = way_to_outputs(args.grad_output, conv.relu_output);

    // Vectors past the last filter or channel are in no row.
    if (filters_left_ <= 0) p_ = 1 << 30;
    if (channels_left_ <= 0) h_ = 1 << 30;

    y_from_ = shared + (lane / 16 * 8 + lane % 8) * Y_PITCH + lane / 8 % 2 * 16;
    const int matrix = lane / 8;
    const unsigned x = shared + X_AT + lane % 8 * X_PITCH + warp * 16;
    if constexpr (STRIDE == 1) {
      x_from_ = x + matrix * ROW * X_PITCH;
      pairs_from_ = x + (matrix % 2 * ROW + matrix / 2) * X_PITCH;
    } else {
      x_from_ = x + (matrix % 2 * 2 * ROW + matrix / 2) * X_PITCH;
      pairs_from_ = x + ((matrix % 2 * 2 + matrix / 2) * ROW + HALF) * X_PITCH;
    }
  }

  // Tiles at the edge take a loop of their own, so that the others have no instruction for them.
  __device__ void multiply_all() {
    const Conv2dArguments& conv = args_.conv;
#pragma unroll
    for (int stage = 0; stage < LAST_STAGE; stage += STAGE) copy_next(stage);
    rows_ = conv.p - row_of(first_) * TILE, columns_ = conv.q - column_of(first_) * TILE;
    while (tiles_ > 0) {
#pragma unroll 1
      while (tiles_ > 0 && rows_ >= TILE && columns_ >= TILE) multiply_tile<false>();
#pragma unroll 1
      while (tiles_ > 0 && (rows_ < TILE || columns_ < TILE)) multiply_tile<true>();
    }
    ptx::cp_async_wait<0>();
  }

  __device__ void store_all() const {
    const Conv2dArguments& conv = args_.conv;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int channel = block_.column * CHANNELS + warp * 8 + lane % 4 * 2;
#pragma unroll
    for (int i = 0; i < 2 * M; ++i) {
      const int filter = block_.filter * FILTERS + i * 8 + lane / 4;
      if (filter >= conv.group_filters) continue;
      const long long k = static_cast<long long>(block_.group) * conv.group_filters + filter;
      float* to = sums_of_filter<float>(args_, block_.split, k) + channel;
#pragma unroll
      for (int tap = 0; tap < 9; ++tap, to += conv.group_channels) {
        const float x = sum_[tap / 3][tap % 3][i / 2][i % 2 * 2],
                    y = sum_[tap / 3][tap % 3][i / 2][i % 2 * 2 + 1];
        if (args_.vector_sums) {
          if (channel < conv.group_channels) *reinterpret_cast<float2*>(to) = {x, y};
        } else {
          if (channel < conv.group_channels) to[0] = x;
          if (channel + 1 < conv.group_channels) to[1] = y;
        }
      }
      // All columns of bias_ are the same.
      if (BIAS && block_.column == 0 && args_.bias_sums && warp == i / 2 && lane % 4 == 0)
        bias_sums<float>(args_, block_.split)[k] = bias_[i % 2 * 2];
    }
  }

private:
  __device__ int row_of(int tile) const {
    const Conv2dArguments& conv = args_.conv;
    return conv.by_tiles_of_row(tile - conv.by_tiles_of_image(tile) * conv.by_tiles_of_image.divisor);
  }
  __device__ int column_of(int tile) const {
    return tile - args_.conv.by_tiles_of_row(tile) * args_.conv.by_tiles_of_row.divisor;
  }

  // This thread's chunks of the next tile, to the stage at byte `stage`.
  __device__ void copy_next(unsigned stage) {
    const Conv2dArguments& conv = args_.conv;
    const bool y_exists = left_ > 0 && q_ < conv.q;
#pragma unroll
    for (int i = 0; i < TILE / Y_AT_ONCE; ++i) {
      const char* from = y_ + i * Y_AT_ONCE * args_.y_row;
#pragma unroll
      for (int byte = 0; byte < 16; byte += VECTOR_Y) {
        const unsigned to = y_to_ + stage + i * Y_AT_ONCE * TILE * Y_PITCH + byte;
        const bool exists =
            y_exists && (VECTOR_Y == 16 || byte / 2 < filters_left_) && p_ + i * Y_AT_ONCE < conv.p;
        copy<VECTOR_Y>(to, from + byte, exists);
        if constexpr (MASKED) copy<VECTOR_Y>(to + OUTPUTS_AT, from + to_outputs_ + byte, exists);
      }
    }
    const bool x_exists = left_ > 0 && static_cast<unsigned>(w_) < static_cast<unsigned>(conv.w);
#pragma unroll
    for (int i = 0; i < ROWS / X_AT_ONCE; ++i) {
      const char* from = x_ + static_cast<long long>(args_.x_row) * (i * X_AT_ONCE);
      const unsigned to = x_to_ + stage + i * X_AT_ONCE * ROW * X_PITCH;
      const bool inside =
          x_exists && static_cast<unsigned>(h_ + i * X_AT_ONCE) < static_cast<unsigned>(conv.h);
      if constexpr (VECTOR_X == 16) {
        ptx::cp_async_16_if(in_patch_, to, from, inside);
      } else if (in_patch_) {
#pragma unroll
        for (int byte = 0; byte < 16; byte += VECTOR_X)
          copy<VECTOR_X>(to + byte, from + byte, inside && byte / 2 < channels_left_);
      }
    }
    ptx::cp_async_commit();
    advance();
  }

  __device__ void advance() {
    const Conv2dArguments& conv = args_.conv;
    const int across = conv.by_tiles_of_row.divisor;
    --left_;
    ++tile_;
    q_ += TILE, w_ += TILE * STRIDE;
    y_ += args_.y_steps[0], x_ += args_.x_steps[0];
    const bool row_ends = tile_ == across;
    if (row_ends) {
      tile_ = 0;
      q_ -= across * TILE, w_ -= across * TILE * STRIDE;
      p_ += TILE, h_ += TILE * STRIDE;
      y_ += args_.y_steps[1], x_ += args_.x_steps[1];
      ++row_;
    }
    if (row_ == args_.rows_of_tiles) {
      row_ = 0;
      p_ -= args_.rows_of_tiles * TILE, h_ -= args_.rows_of_tiles * TILE * STRIDE;
      y_ += args_.y_steps[2], x_ += args_.x_steps[2];
    }
  }

  // The pipeline: two tiles are on their way while one is multiplied. Behind the one barrier this tile is
  // there for all to read, and all have read the one before, whose place the next copies take.
  template <bool PARTIAL>
  __device__ void multiply_tile() {
    ptx::cp_async_wait<STAGES - 2>();
    if constexpr (MASKED) {
#pragma unroll
      for (int i = 0; i < TILE / Y_AT_ONCE; ++i) {
        const unsigned at = y_to_ + read_ + i * Y_AT_ONCE * TILE * Y_PITCH;
        mask_in_place(at, at + OUTPUTS_AT, Element{});
      }
    }
    __syncthreads();
    copy_next(write_);
#pragma unroll
    for (int step = 0; step < TILE / 2; ++step) multiply_step<PARTIAL>(step);
    --tiles_;
    columns_ -= TILE;
    if (columns_ <= 0) {
      columns_ = args_.conv.q;
      rows_ -= TILE;
      if (rows_ <= 0) rows_ = args_.conv.p;
    }
    read_ = read_ == LAST_STAGE ? 0 : read_ + STAGE;
    write_ = write_ == LAST_STAGE ? 0 : write_ + STAGE;
  }

  // Pixel rows 2 step and 2 step + 1.
  template <bool PARTIAL>
  __device__ void multiply_step(int step) {
    unsigned y[M][4], x[3][3][2];  // x by tap, of either row
#pragma unroll
    for (int i = 0; i < M; ++i)
      ptx::ldmatrix_x4_trans(y[i], y_from_ + read_ + step * 2 * TILE * Y_PITCH + i * 32);
    const unsigned from = x_from_ + read_ + step * 2 * STRIDE * ROW * X_PITCH;
    const unsigned pairs_from = pairs_from_ + read_ + step * 2 * STRIDE * ROW * X_PITCH;
    unsigned four[4];
    if constexpr (STRIDE == 1) {
#pragma unroll
      for (int s = 0; s < 3; ++s) {
        ptx::ldmatrix_x4_trans(four, from + s * X_PITCH);
        put(x[0][s], four[0], four[1]);
        put(x[2][s], four[2], four[3]);
      }
      ptx::ldmatrix_x4_trans(four, pairs_from + ROW * X_PITCH);
      put(x[1][0], four[0], four[1]);
      put(x[1][1], four[2], four[3]);
      ptx::ldmatrix_x2_trans(x[1][2][0], x[1][2][1], pairs_from + (ROW + 2) * X_PITCH);
    } else {
#pragma unroll
      for (int r = 0; r < 3; ++r) {
        ptx::ldmatrix_x4_trans(four, from + r * ROW * X_PITCH);
        put(x[r][0], four[0], four[1]);
        put(x[r][2], four[2], four[3]);
      }
      ptx::ldmatrix_x4_trans(four, pairs_from);
      put(x[0][1], four[0], four[1]);
      put(x[1][1], four[2], four[3]);
      ptx::ldmatrix_x2_trans(x[2][1][0], x[2][1][1], pairs_from + 2 * ROW * X_PITCH);
    }
    if constexpr (PARTIAL) {
      // A register holds pixels 2 (l % 4) and the next one.
      const int pixel = threadIdx.x % 4 * 2;
      const unsigned mask = (pixel < columns_ ? 0xffffu : 0) | (pixel + 1 < columns_ ? 0xffff0000u : 0);
#pragma unroll
      for (int row = 0; row < 2; ++row)
#pragma unroll
        for (int tap = 0; tap < 9; ++tap) x[tap / 3][tap % 3][row] &= step * 2 + row < rows_ ? mask : 0;
    }
#pragma unroll
    for (int tap = 0; tap < 9; ++tap)
#pragma unroll
      for (int i = 0; i < M; ++i)
        multiply(sum_[tap / 3][tap % 3][i], y[i], x[tap / 3][tap % 3][0], x[tap / 3][tap % 3][1], Element{});
    if (BIAS && block_.column == 0 && args_.bias_sums) {
      // Warps hold the same filters, and share them out. Reading 16 of them again costs less than choosing
      // registers.
      ptx::ldmatrix_x4_trans(four, y_from_ + read_ + step * 2 * TILE * Y_PITCH + threadIdx.x / 32 * 32);
      multiply(bias_, four, ones(Element{}), ones(Element{}), Element{});
    }
  }

  __device__ static void put(unsigned (&pair)[2], unsigned first, unsigned second) {
    pair[0] = first;
    pair[1] = second;
  }

  const WgradArguments& args_;
  const WgradBlock block_;
  int first_, left_, tiles_;  // tiles of the split: the first, and those not copied and not multiplied yet
  int rows_, columns_;        // of the next to be multiplied to the end of the output
  unsigned read_ = 0, write_ = LAST_STAGE;
  int tile_, row_;      // the next one's place in its image
  int p_, q_, h_, w_;   // what this thread copies of it first
  const char *y_, *x_;  // and where that is
  int filters_left_, channels_left_;
  bool in_patch_;
  unsigned y_to_, x_to_, y_from_, x_from_, pairs_from_;  // in the first stage
  long long to_outputs_;                                 // from a gradient, in bytes
  float sum_[3][3][M][4] = {};
  float bias_[4] = {};
};

template <class Element, int STRIDE, int VECTOR_Y, int VECTOR_X, bool BIAS, bool MASKED = false>
__global__ void __launch_bounds__(128) wgrad_patch(const __grid_constant__ WgradArguments args) {
  extern __shared__ __align__(128) unsigned char shared[];
  WgradPatch<Element, STRIDE, VECTOR_Y, VECTOR_X, BIAS, MASKED> product(args, ptx::shared_address(shared));
  product.multiply_all();
  product.store_all();
}

}  // namespace pyconvx
