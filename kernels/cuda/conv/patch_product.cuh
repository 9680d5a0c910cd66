// Convolution as a matrix product whose activations lie in a patch (patch.cuh): the loop over channel blocks
// and taps, and the filters' way into it. How a warp multiplies what is there: patch_tensor_core.cuh, and
// patch_ffma.cuh for float32 as IEEE has it.
//
// Order of summation: channel block by channel block, of 64 or 128 bytes of channels; in each, tap by tap, r
// first; of each tap, step by step: 32 bytes of channels on tensor cores, one channel after another
// elsewhere. Channels past the last one are zeros. Tiles have no say in this. Where warps share a block as
// SLICES of its channels, each sums up its own 32 bytes of every tap, and the slices are added in order.
//
// What is in flight: the filters of the next STAGES - 1 taps, and the next block's patch, a part of which
// goes with every tap. Filters stand in shared memory in rows as pixels have them, in an order that gives a
// lane the sums of neighbours.
//
// The loop makes ROUND taps at a time: one, or a whole line of the window, which is a row, or its only
// column. Then it need ask only once for each line whether the window is done; and if ROUND is also a
// multiple of STAGES, the places of the filters are constants.
#pragma once

#include "patch_ffma.cuh"
#include "patch_tensor_core.cuh"

namespace pyconvx {

// The filters of one tap after another: FILTERS rows of one channel block.
template <class Element, class Tile, int ROUND, int VECTOR>
class FilterSlices {
  using Warp = WarpProduct<Element, Tile>;
  static constexpr int BYTES = sizeof(Element), V = kVector<Element>, DEPTH = Tile::CHUNKS * V;
  static constexpr int ROWS = Tile::FILTERS / Tile::ROWS_AT_ONCE;  // that a thread copies
  static constexpr int STAGE = Tile::FILTERS * Tile::PITCH, LAST = (Tile::STAGES - 1) * STAGE;
  static constexpr bool CONSTANT = ROUND % Tile::STAGES == 0;
  // Does a tap of another round than the multiplied one's come next? Then it must be counted.
  static constexpr bool COUNTS = ROUND < Tile::STAGES;
  static_assert(ROWS > 0, "every thread copies whole chunks");

public:
  static constexpr int SHARED = Tile::STAGES * STAGE;  // bytes

  // Filters from `filter` of the group on, channels [first, end) of it. Rows past the last filter hold that
  // one: their sums are never stored.
  __device__ FilterSlices(const Conv2dArguments& args, int group, int filter, int first, int end,
                          unsigned shared)
      : taps_(args.r * args.s), tap_bytes_(args.group_channels * BYTES),
        block_jump_(ptx::keep((Tile::CHUNKS * V - taps_ * args.group_channels) * BYTES)),
        one_(args.patch.one) {
    const int channel = first + Tile::chunk() * V;
#pragma unroll
    for (int i = 0; i < ROWS; ++i) {
      int k = filter + Warp::filter_of_row(Tile::row()) + Warp::filter_of_row(i * Tile::ROWS_AT_ONCE);
      k = k < args.group_filters ? k : args.group_filters - 1;
      const long long row = static_cast<long long>(group) * args.group_filters + k;
      from_[i] = static_cast<const char*>(args.filter) + (row * args.reduction + channel) * BYTES;
    }
    left_ = end - channel;
    to_ = shared + Tile::row() * Tile::PITCH + Tile::chunk() * 16;
  }

  // The next tap, to the place that is free for it. Past the last block, zeros. `i` is its number in the
  // round, and `last` says whether the round is the window's last one: asked where it can be that.
  __device__ void copy_tap(int i, bool last) {
    const unsigned to = to_ + (CONSTANT ? i % Tile::STAGES * STAGE : write_);
#pragma unroll
    for (int row = 0; row < ROWS; ++row) {
      const char* from = from_[row] + static_cast<unsigned long long>(next_) * one_;
#pragma unroll
      for (int byte = 0; byte < 16; byte += VECTOR)
        copy<VECTOR>(to + row * Tile::ROWS_AT_ONCE * Tile::PITCH + byte, from + byte, byte / BYTES < left_);
    }
    write_ = write_ == LAST ? 0 : write_ + STAGE;
    next_ += tap_bytes_;
    if (COUNTS) last = ++tap_ == taps_;
    if (i == ROUND - 1 && last) {
      tap_ = 0;
      next_ += block_jump_;
      left_ -= DEPTH;
    }
  }

  // Where in the ring the tap is that is read now, number `i` in the round.
  __device__ unsigned reading(int i) const { return CONSTANT ? i % Tile::STAGES * STAGE : read_; }
  __device__ void next_reading() { read_ = read_ == LAST ? 0 : read_ + STAGE; }

private:
  const int taps_, tap_bytes_;
  const unsigned block_jump_;  // bytes from a block's end in the last tap to the next one's in the first
  const unsigned one_;
  const char* from_[ROWS];  // this thread's chunks of the first tap and block
  unsigned next_ = 0;       // bytes from there on
  int tap_ = 0;             // of the block
  int left_;                // channels from the chunk's first on
  unsigned to_;             // in the first place of the ring
  unsigned write_ = 0, read_ = 0;
};

template <class Element, class Tile, int ROUND, int COPIES, int VECTOR, bool MASKED>
class PatchProduct {
  using Filters = FilterSlices<Element, Tile, ROUND, VECTOR>;
  using Warp = WarpProduct<Element, Tile>;
  static constexpr int STEPS = Warp::STEPS;
  static constexpr bool AHEAD = Warp::AHEAD;      // are operands read across the barrier between taps?
  static constexpr int FIRST = Tile::STAGES - 1;  // taps on their way when the loop begins

public:
  // For the run of pixels from first_pixel on, a group's filters from `filter` on, and its channels from
  // `first` to `end`, both counted in the group.
  __device__ PatchProduct(const Conv2dArguments& args, int first_pixel, int group, int filter, int first,
                          int end, unsigned shared)
      : args_(args), taps_(args.r * args.s), pixels_(args, first_pixel, Tile::PIXELS),
        filters_(args, group, filter, first, end, shared),
        patch_(args, pixels_, group * args.group_channels + first, group * args.group_channels + end,
               shared + Filters::SHARED),
        warp(pixels_, first_pixel, shared + Filters::SHARED, shared) {}

  __device__ void multiply_all() {
    __syncthreads();
    patch_.copy_first(args_.patch.busy_passes);
#pragma unroll
    for (int i = 0; i < FIRST; ++i) {
      filters_.copy_tap(i % ROUND, false);
      ptx::cp_async_commit();
    }
    ptx::cp_async_wait<Tile::STAGES - 2>();
    if constexpr (MASKED) patch_.mask_first(args_.patch.busy_passes);
    __syncthreads();
    if (AHEAD) load_operands(0, 0, 0);
#pragma unroll 1
    for (int left = taps_ * args_.patch.blocks; left > 0; left -= ROUND) {
#pragma unroll
      for (int i = 0; i < ROUND; ++i)
#pragma unroll
        for (int step = 0; step < STEPS; ++step) {
          if (step == 0) {
            filters_.copy_tap((i + FIRST) % ROUND, tap_ + ROUND - i == taps_);
            patch_.copy_part(args_.patch.bytes - patch_read_);
            ptx::cp_async_commit();
          }
          if (AHEAD) {
            if (step == STEPS - 1) next_tap(i);
            load_operands((step + 1) % 2, step == STEPS - 1 ? (i + 1) % ROUND : i, (step + 1) % STEPS);
            warp.multiply(step % 2);
          } else {
            load_operands(0, i, step);
            warp.multiply(0);
            if (step == STEPS - 1) next_tap(i);
          }
        }
    }
    ptx::cp_async_wait<0>();
  }

  __device__ const PatchPixels& pixels() const { return pixels_; }

private:
  // Behind the barrier, the next tap is there for all to read, and all have read the one before the present
  // one (or the present one, if operands are read ahead), whose place is free.
  __device__ void next_tap(int i) {
    ptx::cp_async_wait<Tile::STAGES - 2>();
    if constexpr (MASKED) patch_.mask_part();
    __syncthreads();
    filters_.next_reading();
    ++tap_;
    const bool line_ends = ROUND > 1 ? i == ROUND - 1 : ++tap_of_line_ == args_.patch.taps_of_line;
    tap_place_ += line_ends ? args_.patch.line_step : args_.patch.tap_step;
    if (line_ends) tap_of_line_ = 0;
    if (i == ROUND - 1) {
      patch_.next_round();
      if (tap_ == taps_) {
        tap_ = tap_of_line_ = 0;
        patch_read_ = args_.patch.bytes - patch_read_;
        tap_place_ = patch_read_;
        patch_.next_block();
      }
    }
    patch_.read_entries((i + 1) % ROUND);
  }

  // Step `step` of the tap that is read now, number `i` in the round.
  __device__ void load_operands(int set, int i, int step) {
    warp.load(set, tap_place_, filters_.reading(i), step);
  }

  const Conv2dArguments& args_;
  const int taps_;
  const PatchPixels pixels_;
  Filters filters_;
  PatchCopies<Element, Tile, ROUND, COPIES, VECTOR, MASKED> patch_;

  unsigned patch_read_ = 0;  // bytes from the first patch to the present one
  unsigned tap_place_ = 0;   // the same to the present tap of a patch's first pixel
  int tap_ = 0, tap_of_line_ = 0;

public:
  Warp warp;  // what this warp has summed up
};

}  // namespace pyconvx
