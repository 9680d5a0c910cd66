// The gradient of max unpooling by offsets: every pooled value takes the gradient from where it was put,
// unless a later window in row-major order was put there too.
//
//   grad_input[n][p][q][c] = grad_output[n][h][w][c] where (h, w) is what indices[n][p][q][c] means
//
// A thread has the channels of one window. It reads the gradients of all taps, of which it takes one for each
// channel: a gradient's 16 bytes hold several channels, whose winners lie on different taps, so that there
// are few taps that none of them needs.
//
// Where windows overlap, the later ones that may lie over the same output are looked at first: those up to
// reach_h - 1 rows below and reach_w - 1 columns to the left and to the right. Window (p + i, q + j) has put
// there too if
//
//   r dilation_h = i stride_h + r' dilation_h,  s dilation_w = j stride_w + s' dilation_w
//
// for its own tap (r', s').
#pragma once

#include "unpool.cuh"

namespace pyconvx {

template <class Value, class Index, int V, bool WIDE>
class UnpoolingBackward {
  using Window = Offsets<Value, Index, V, WIDE>;
  static constexpr int K = Window::K, WORDS = Window::WORDS, BYTES = Window::BYTES;

public:
  __device__ explicit UnpoolingBackward(const UnpoolArguments& args)
      : args_(args), window_(args), p_(window_.at().row), q_(window_.at().column) {}

  // R x S taps without holes, a constant; 0 x 0: any window.
  template <int R, int S, bool OVERLAPPING>
  __device__ void run() const {
    unsigned code[K][V], out[K][WORDS] = {};
    window_.load(code, p_, q_);
    if (!window_.at().exists) return;
    window_.check(code, p_, q_);
    if constexpr (OVERLAPPING) drop_losers(code[0]);
#pragma unroll(R ? R : 1)
    for (int r = 0; r < (R ? R : args_.r); ++r)
#pragma unroll(S ? S : 1)
      for (int s = 0; s < (S ? S : args_.s); ++s) {
        const int h = p_ * args_.stride_h - args_.pad_top + r * args_.dilation_h;
        const int w = q_ * args_.stride_w - args_.pad_left + s * args_.dilation_w;
        const bool inside = static_cast<unsigned>(h) < static_cast<unsigned>(args_.h) &&
                            static_cast<unsigned>(w) < static_cast<unsigned>(args_.w);
#pragma unroll
        for (int k = 0; k < K; ++k) {
          if (!inside || !window_.exists(k)) continue;
          unsigned grad[WORDS];
          load_words<BYTES>(grad, static_cast<const Value*>(args_.from) + window_.plane(h, w, k));
          Window::pick(grad, grad, code[k], r * (R ? S : args_.s) + s);
#pragma unroll
          for (int j = 0; j < WORDS; ++j) out[k][j] |= grad[j];
        }
      }
#pragma unroll
    for (int k = 0; k < K; ++k)
      if (window_.exists(k))
        store_words<BYTES>(static_cast<Value*>(args_.to) + window_.pooled(p_, q_, k), out[k]);
  }

private:
  // Where a later window has put to the same place, the code becomes NOWHERE.
  __device__ void drop_losers(unsigned (&code)[V]) const {
    int down[V], across[V];
#pragma unroll
    for (int v = 0; v < V; ++v) place(code[v], down[v], across[v]);
    for (int i = 0; i < args_.reach_h; ++i)
      for (int j = i ? 1 - args_.reach_w : 1; j < args_.reach_w; ++j) {
        if (!window_.in_pooled(p_ + i, q_ + j)) continue;
        unsigned later[1][V];
        window_.load(later, p_ + i, q_ + j);
#pragma unroll
        for (int v = 0; v < V; ++v) {
          int later_down, later_across;
          place(later[0][v], later_down, later_across);
          if (down[v] == i * args_.stride_h + later_down && across[v] == j * args_.stride_w + later_across &&
              later[0][v] < static_cast<unsigned>(args_.r * args_.s))
            code[v] = Window::NOWHERE;
        }
      }
  }

  // How far from a window's first tap an offset is; anything if it is no tap's.
  __device__ void place(unsigned code, int& down, int& across) const {
    const int r = args_.by_s(code & 0x7fffffff), s = (code & 0x7fffffff) - r * args_.s;
    down = r * args_.dilation_h, across = s * args_.dilation_w;
  }

  const UnpoolArguments& args_;
  const Window window_;
  const int p_, q_;
};

template <class Value, class Index, int V, bool WIDE, int R, int S>
__global__ void __launch_bounds__(256) max_unpool_backward(const __grid_constant__ UnpoolArguments args) {
  UnpoolingBackward<Value, Index, V, WIDE>(args).template run<R, S, false>();
}

template <class Value, class Index, int V>
__global__ void __launch_bounds__(256)
    max_unpool_backward_overlapping(const __grid_constant__ UnpoolArguments args) {
  UnpoolingBackward<Value, Index, V, false>(args).template run<0, 0, true>();
}

}  // namespace pyconvx
