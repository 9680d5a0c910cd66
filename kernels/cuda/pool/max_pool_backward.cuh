// The gradient of max pooling, as a gather: every pixel asks the windows over it whether it won them.
//
//   grad_input[n][h][w][c] = sum of grad_output[n][p][q][c] over the windows (p, q) with
//
//     h = p stride_h - pad_top + r dilation_h,  w = q stride_w - pad_left + s dilation_w
//
// for some tap (r, s) of which index[n][p][q][c] is the offset r S + s, or h W + w the position. So each
// gradient is written once, there is nothing to fill with zeros, and no two threads share a sum. Sums are
// taken in f32 (f64 in f64), from 0 on in row-major order of the windows, and rounded once; where no windows
// overlap, gradients are moved as they are.
//
// With RELU, the input was relu'd as it was pooled, and the output says which windows pass a gradient on:
// those where it is above 0, or NaN. The others are taken for windows that nobody has won.
//
// A thread owns V neighbouring channels, as the forward pass has them. Where the window is a constant, it
// owns blocks of STRIDE x STRIDE pixels, of which block (m, n) begins where window (m, n) does: COLUMNS
// blocks of a row, `rows` down. A row of windows m reaches R rows of pixels, STRIDE m - pad_top + r. Those of
// r < STRIDE are then complete, and the sums of the others are carried on to the next row of windows, so that
// each window is read once a thread.
#pragma once

#include "gradient_sum.cuh"
#include "winners.cuh"

namespace pyconvx {

// R x S taps, the same stride in both directions, no dilation.
template <class Element, class Index, int BYTES, int R, int S, int STRIDE, bool RELU>
class MaxPoolBackward {
  static_assert(R == S && R >= STRIDE);
  static constexpr int V = BYTES / sizeof(Element), COLUMNS = 2;
  static constexpr int REACH = (R - 1) / STRIDE;  // rows of windows above that reach into a row of blocks
  static constexpr int SHARED = R - STRIDE;       // rows of pixels that a window shares with the one below
  static constexpr int WINDOWS = COLUMNS + REACH, PIXELS = COLUMNS * STRIDE;
  static constexpr bool FLAT = sizeof(Index) == 8;
  using Sum = GradientSum<Element, BYTES, REACH == 0>;
  using Gradients = unsigned[WINDOWS][kWords<BYTES>];
  using Codes = unsigned[WINDOWS][V];

public:
  __device__ explicit MaxPoolBackward(const MaxPoolArguments& args)
      : args_(args), at_(place_of(args.sweep, blockIdx.x * blockDim.x + threadIdx.x)),
        m_(at_.row * args.rows), q_(at_.column * COLUMNS - REACH),
        left_(at_.column * PIXELS - args.pad_left) {}

  __device__ void run() {
#pragma unroll
    for (int r = 0; r < SHARED; ++r)
#pragma unroll
      for (int x = 0; x < PIXELS; ++x) carried_[r][x].clear();
#pragma unroll 1
    for (int i = -REACH; i < args_.rows; ++i) {
      Gradients gradient;
      Codes code;
      load(gradient, code, m_ + i);
#pragma unroll
      for (int r = 0; r < R; ++r) {
        Sum sum[PIXELS];
#pragma unroll
        for (int x = 0; x < PIXELS; ++x)
          if (r < SHARED)
            sum[x] = carried_[r < SHARED ? r : 0][x];
          else
            sum[x].clear();
        const int h = (m_ + i) * STRIDE - args_.pad_top + r;
        add(sum, gradient, code, h, r);
        if (r < STRIDE) {
          if (i >= 0 && at_.exists && h >= 0 && h < args_.h) store(sum, h);
        } else {
#pragma unroll
          for (int x = 0; x < PIXELS; ++x) carried_[r < STRIDE ? 0 : r - STRIDE][x] = sum[x];
        }
      }
    }
  }

private:
  // Row p of the windows that reach the thread's columns.
  __device__ void load(Gradients& gradient, Codes& code, int p) const {
    const long long place =
        ((static_cast<long long>(at_.image) * args_.p + p) * args_.q + q_) * args_.c + at_.chunk * V;
    bool here[WINDOWS];
#pragma unroll
    for (int j = 0; j < WINDOWS; ++j) {
      here[j] = at_.exists && p >= 0 && p < args_.p && q_ + j >= 0 && q_ + j < args_.q;
#pragma unroll
      for (int i = 0; i < kWords<BYTES>; ++i) gradient[j][i] = 0;
      if (here[j])
        load_words<BYTES>(gradient[j], static_cast<const Element*>(args_.from) + place +
                                           static_cast<long long>(j) * args_.c);
    }
    Winners<Index, V, BYTES, WINDOWS>::load(code, static_cast<const Index*>(args_.indices) + place, args_.c,
                                            here, args_.exchange_indices);
    if constexpr (RELU) {
#pragma unroll
      for (int j = 0; j < WINDOWS; ++j) {
        unsigned output[kWords<BYTES>] = {};
        if (here[j])
          load_words<BYTES>(output, static_cast<const Element*>(args_.pooled) + place +
                                        static_cast<long long>(j) * args_.c);
#pragma unroll
        for (int v = 0; v < V; ++v)
          code[j][v] = is_closed<Element>(rank_of<Element>(output, v)) ? ~0u : code[j][v];
      }
    }
  }

  // Adds to row h of pixels what it won as row r of the windows.
  __device__ void add(Sum (&sum)[PIXELS], const Gradients& gradient, const Codes& code, int h, int r) const {
#pragma unroll
    for (int j = 0; j < WINDOWS; ++j)
#pragma unroll
      for (int s = 0; s < S; ++s) {
        const int x = (j - REACH) * STRIDE + s;
        if (x >= 0 && x < PIXELS)
          sum[x < 0 || x >= PIXELS ? 0 : x].add(gradient[j], code[j],
                                                FLAT ? h * args_.w + left_ + x : r * S + s);
      }
  }

  __device__ void store(const Sum (&sum)[PIXELS], int h) const {
    Element* to = static_cast<Element*>(args_.to) +
                  ((static_cast<long long>(at_.image) * args_.h + h) * args_.w + left_) * args_.c +
                  at_.chunk * V;
#pragma unroll
    for (int x = 0; x < PIXELS; ++x)
      if (left_ + x >= 0 && left_ + x < args_.w) sum[x].store(to + static_cast<long long>(x) * args_.c);
  }

  const MaxPoolArguments& args_;
  Place at_;
  int m_, q_, left_;  // the first row of blocks, column of windows and column of pixels
  Sum carried_[SHARED > 0 ? SHARED : 1][PIXELS];
};

// Any window: a thread owns one pixel. Code is an unsigned integer that tells all of the plane's positions
// apart.
template <class Element, class Index, int BYTES, class Code>
class MaxPoolBackwardAny {
  static constexpr int V = BYTES / sizeof(Element);
  static constexpr bool FLAT = sizeof(Index) == 8;
  using Sum = GradientSum<Element, BYTES, false>;

public:
  __device__ explicit MaxPoolBackwardAny(const MaxPoolArguments& args)
      : args_(args), at_(place_of(args.sweep, blockIdx.x * blockDim.x + threadIdx.x)) {}

  __device__ void run() const {
    if (!at_.exists) return;
    const int h = at_.row, w = at_.column;
    const int extent_h = (args_.r - 1) * args_.dilation_h + 1,
              extent_w = (args_.s - 1) * args_.dilation_w + 1;
    const int below = h + args_.pad_top, right = w + args_.pad_left;  // of the padded image's corner
    const int end_p = end_window(below, args_.by_stride_h, args_.p);
    const int end_q = end_window(right, args_.by_stride_w, args_.q);
    const int first_q = first_window(right, extent_w, args_.by_stride_w);
    Sum sum;
    sum.clear();
#pragma unroll 1
    for (int p = first_window(below, extent_h, args_.by_stride_h); p < end_p; ++p) {
      const int down = below - p * args_.stride_h, r = args_.by_dilation_h(down);
      if (r * args_.dilation_h != down) continue;
#pragma unroll 1
      for (int q = first_q; q < end_q; ++q) {
        const int across = right - q * args_.stride_w, s = args_.by_dilation_w(across);
        if (s * args_.dilation_w == across)
          add(sum, p, q, FLAT ? static_cast<Code>(h) * args_.w + w : static_cast<Code>(r) * args_.s + s);
      }
    }
    sum.store(static_cast<Element*>(args_.to) +
              ((static_cast<long long>(at_.image) * args_.h + h) * args_.w + w) * args_.c + at_.chunk * V);
  }

private:
  __device__ void add(Sum& sum, int p, int q, Code tap) const {
    const long long place =
        ((static_cast<long long>(at_.image) * args_.p + p) * args_.q + q) * args_.c + at_.chunk * V;
    const Index* indices = static_cast<const Index*>(args_.indices) + place;
    unsigned won[V], gradient[kWords<BYTES>];
#pragma unroll
    for (int v = 0; v < V; ++v) won[v] = static_cast<Code>(indices[v]) == tap;
    load_words<BYTES>(gradient, static_cast<const Element*>(args_.from) + place);
    if (args_.pooled) {
      unsigned output[kWords<BYTES>];
      load_words<BYTES>(output, static_cast<const Element*>(args_.pooled) + place);
#pragma unroll
      for (int v = 0; v < V; ++v) won[v] &= !is_closed<Element>(rank_of<Element>(output, v));
    }
    sum.add(gradient, won, 1);
  }

  const MaxPoolArguments& args_;
  Place at_;
};

template <class Element, class Index, int BYTES, int R, int S, int STRIDE, bool RELU>
__global__ void __launch_bounds__(256) max_pool_backward(const __grid_constant__ MaxPoolArguments args) {
  MaxPoolBackward<Element, Index, BYTES, R, S, STRIDE, RELU>(args).run();
}

template <class Element, class Index, int BYTES, class Code>
__global__ void __launch_bounds__(256) max_pool_backward_any(const __grid_constant__ MaxPoolArguments args) {
  MaxPoolBackwardAny<Element, Index, BYTES, Code>(args).run();
}

}  // namespace pyconvx
