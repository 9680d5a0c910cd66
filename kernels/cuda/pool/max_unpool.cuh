// Max unpooling by offsets: pooled values go back to where their windows' winners stood, among zeros.
//
//   output[n][h][w][c] = input[n][p][q][c] where window (p, q) lies over (h, w) and its offset there is
//   indices[n][p][q][c]; of several such windows, the last in row-major order
//
// It is a gather: nothing is scattered or filled, and every output is written once, zeros included. The unit
// of work is a cell, stride_h x stride_w outputs that begin where window (p, q) does. Cells tile the plane,
// and so does a thread's work: it stores the vectors of one cell. There are cells without a window, to the
// right of the last and below it.
//
// Windows that do not overlap end in their cells. Then a thread reads the values and indices of its own
// window, once, and nothing else: the fewest bytes there are. Windows that overlap reach into the cells on
// the right and below; a thread looks at the reach_h x reach_w windows that may lie over an output, the last
// one first. An offset of window (p - i, q - j) means output (dh, dw) of the cell if
//
//   dh + i stride_h = r dilation_h,  dw + j stride_w = s dilation_w.
//
// In either case a thread checks the indices of its own window, and so each index is checked once.
#pragma once

#include "unpool.cuh"

namespace pyconvx {

template <class Value, class Index, int V, bool WIDE>
class Unpooling {
  using Window = Offsets<Value, Index, V, WIDE>;
  static constexpr int K = Window::K, WORDS = Window::WORDS, BYTES = Window::BYTES;

public:
  __device__ explicit Unpooling(const UnpoolArguments& args)
      : args_(args), window_(args), p_(window_.at().row), q_(window_.at().column) {}

  // R x S: windows are cells, of a size that is a constant; 0 x 0: they are smaller, with holes or without.
  template <int R, int S>
  __device__ void run_apart() const {
    unsigned code[K][V], value[K][WORDS] = {};
    load_own(code);
    if (!window_.at().exists) return;
    if (window_.in_pooled(p_, q_)) {
#pragma unroll
      for (int k = 0; k < K; ++k)
        if (window_.exists(k)) load_value(value[k], p_, q_, k);
    }
#pragma unroll(R ? R : 1)
    for (int dh = 0; dh < (R ? R : args_.stride_h); ++dh)
#pragma unroll(S ? S : 1)
      for (int dw = 0; dw < (S ? S : args_.stride_w); ++dw) {
        const unsigned tap = R ? dh * S + dw : tap_at(dh, dw);
#pragma unroll
        for (int k = 0; k < K; ++k) {
          unsigned out[WORDS];
          Window::pick(out, value[k], code[k], tap);
          store(out, dh, dw, k);
        }
      }
  }

  __device__ void run_overlapping() const {
    unsigned code[1][V];
    load_own(code);
    for (int dh = 0; dh < args_.stride_h; ++dh)
      for (int dw = 0; dw < args_.stride_w; ++dw) {
        unsigned out[WORDS] = {};
        bool found[V] = {};
        for (int i = 0; i < args_.reach_h; ++i)
          for (int j = 0; j < args_.reach_w; ++j) {
            const unsigned tap = inside(dh, dw) && window_.exists(0)
                                     ? tap_at(dh + i * args_.stride_h, dw + j * args_.stride_w)
                                     : Window::NO_TAP;
#pragma unroll
            for (int v = 0; v < V; ++v) code[0][v] = Window::NOWHERE;
            if (tap != Window::NO_TAP) window_.load(code, p_ - i, q_ - j);
            bool chosen[V], any = false;
#pragma unroll
            for (int v = 0; v < V; ++v) {
              chosen[v] = code[0][v] == tap && !found[v];
              found[v] |= chosen[v];
              any |= chosen[v];
            }
            unsigned value[WORDS] = {};
            if (any) load_value(value, p_ - i, q_ - j, 0);
#pragma unroll
            for (int k = 0; k < WORDS; ++k) out[k] |= value[k] & word_mask<sizeof(Value)>(chosen, k);
          }
        __syncwarp();  // lanes that had other windows to look at store together all the same
        store(out, dh, dw, 0);
      }
  }

private:
  __device__ void load_own(unsigned (&code)[K][V]) const {
    window_.load(code, p_, q_);
    if (window_.at().exists && window_.in_pooled(p_, q_)) window_.check(code, p_, q_);
  }

  __device__ void load_value(unsigned (&to)[WORDS], int p, int q, int k) const {
    load_words<BYTES>(to, static_cast<const Value*>(args_.from) + window_.pooled(p, q, k));
  }

  // The offset of what lies so far below and to the right of a window's first tap.
  __device__ unsigned tap_at(int down, int across) const {
    const int r = args_.by_dilation_h(down), s = args_.by_dilation_w(across);
    const bool on_tap = r * args_.dilation_h == down && s * args_.dilation_w == across;
    return on_tap && r < args_.r && s < args_.s ? r * args_.s + s : Window::NO_TAP;
  }

  __device__ int row(int dh) const { return p_ * args_.stride_h - args_.pad_top + dh; }
  __device__ int column(int dw) const { return q_ * args_.stride_w - args_.pad_left + dw; }
  __device__ bool inside(int dh, int dw) const {
    return static_cast<unsigned>(row(dh)) < static_cast<unsigned>(args_.h) &&
           static_cast<unsigned>(column(dw)) < static_cast<unsigned>(args_.w);
  }

  __device__ void store(const unsigned (&out)[WORDS], int dh, int dw, int k) const {
    if (inside(dh, dw) && window_.exists(k))
      store_words<BYTES>(static_cast<Value*>(args_.to) + window_.plane(row(dh), column(dw), k), out);
  }

  const UnpoolArguments& args_;
  const Window window_;
  const int p_, q_;
};

template <class Value, class Index, int V, bool WIDE, int R, int S>
__global__ void __launch_bounds__(256) max_unpool(const __grid_constant__ UnpoolArguments args) {
  Unpooling<Value, Index, V, WIDE>(args).template run_apart<R, S>();
}

template <class Value, class Index, int V>
__global__ void __launch_bounds__(256) max_unpool_overlapping(const __grid_constant__ UnpoolArguments args) {
  Unpooling<Value, Index, V, false>(args).run_overlapping();
}

}  // namespace pyconvx
