// wgrad of a depthwise convolution: every filter meets one channel, k / multiplier.
//
//   grad_filter[k][r][s] = sum over n, p, q of grad_output[n][p][q][k] * input[n][h][w][k / multiplier]
//
// No matrix product is in it; the time goes into moving bytes. A thread owns V neighbouring filters, 16
// bytes, and TAPS neighbouring taps (r, s0 + i) of a row of the window. It walks along rows of output: where
// TAPS > 1 the STRIDE is a constant and the dilation 1, and the input columns under the taps move on through
// its registers, so that each is read once per row. A block owns VECTORS vectors, 256 / VECTORS walkers, and
// the rows (n, p) of one split.
//
// Order of summation: a walker's rows are those of the split that are 256 / VECTORS apart, in order, and
// pixels from left to right; walkers of a warp are added up in a tree, and warps one after another. Nothing
// of it depends on more than the problem.
#pragma once

#include "wgrad.cuh"

namespace pyconvx {

// WIDE: the multiplier is 1 and 16-byte accesses are right.
template <class Element, int TAPS, int STRIDE, bool WIDE, bool BIAS, bool MASKED>
class WgradDepthwise {
  static constexpr int V = kVector<Element>, VECTORS = 4, THREADS = 256, WALKERS = THREADS / VECTORS;
  static constexpr int CHANNELS = VECTORS * V, WARPS = THREADS / 32;

public:
  __device__ explicit WgradDepthwise(const WgradArguments& args) : args_(args), conv_(args.conv) {
    // Tiles of filters in by_column_tiles, groups of taps in by_group_tiles, and both in by_tiles.
    split_ = args.by_tiles(blockIdx.x);
    const int tile = blockIdx.x - split_ * args.by_tiles.divisor;
    const int taps = args.by_column_tiles(tile);
    k_ = (tile - taps * args.by_column_tiles.divisor) * CHANNELS + threadIdx.x % VECTORS * V;
    const int in_row = (conv_.s + TAPS - 1) / TAPS;
    to_outputs_ =
        MASKED ? way_to_outputs(args.grad_output, conv_.relu_output) / static_cast<long long>(sizeof(Element))
               : 0;
    r_ = taps / in_row, s_ = taps % in_row * TAPS;
  }

  __device__ void sum_all() {
    const long long rows = static_cast<long long>(conv_.n) * conv_.p, first = split_ * args_.run;
    const long long end = min(first + args_.run, rows);
    if (k_ < conv_.k)
      for (long long row = first + threadIdx.x / VECTORS; row < end; row += WALKERS) {
        const long long n = row / conv_.p;
        const int h =
            static_cast<int>(row - n * conv_.p) * conv_.stride_h - conv_.pad_top + r_ * conv_.dilation_h;
        const bool inside = h >= 0 && h < conv_.h;
        if (inside || sums_bias()) walk(row, (n * conv_.h + h) * conv_.w, inside);
      }
  }

  // Walkers are 4 lanes apart in a warp.
  __device__ void store_all(float (&shared)[WARPS][CHANNELS]) {
#pragma unroll
    for (int i = 0; i < TAPS; ++i) {
      add_up(sum_[i], shared);
      const int k = first_filter() + threadIdx.x;
      if (threadIdx.x < CHANNELS && k < conv_.k)
        sums_of_filter<float>(args_, split_, k)[r_ * conv_.s + s_ + i] = total(shared);
      __syncthreads();
    }
    if (sums_bias()) {
      add_up(bias_, shared);
      const int k = first_filter() + threadIdx.x;
      if (threadIdx.x < CHANNELS && k < conv_.k) bias_sums<float>(args_, split_)[k] = total(shared);
    }
  }

private:
  __device__ int first_filter() const { return k_ - threadIdx.x % VECTORS * V; }
  __device__ bool sums_bias() const { return BIAS && r_ == 0 && s_ == 0 && args_.bias_sums; }

  __device__ void add_up(float (&x)[V], float (&shared)[WARPS][CHANNELS]) const {
#pragma unroll
    for (int v = 0; v < V; ++v) {
      float sum = x[v];
#pragma unroll
      for (int lanes = VECTORS; lanes < 32; lanes *= 2) sum += __shfl_xor_sync(~0u, sum, lanes);
      if (threadIdx.x % 32 < VECTORS) shared[threadIdx.x / 32][threadIdx.x % VECTORS * V + v] = sum;
    }
    __syncthreads();
  }
  __device__ static float total(const float (&shared)[WARPS][CHANNELS]) {
    float sum = shared[0][threadIdx.x];
#pragma unroll
    for (int warp = 1; warp < WARPS; ++warp) sum += shared[warp][threadIdx.x];
    return sum;
  }

  // Row `row` of all output rows, and the input row that begins with pixel `pixel` of all.
  __device__ void walk(long long row, long long pixel, bool inside) {
    const Element* gradient = static_cast<const Element*>(args_.grad_output) + row * conv_.q * conv_.k + k_;
    const int left = s_ * conv_.dilation_w - conv_.pad_left;
    float x[TAPS][V];
#pragma unroll
    for (int i = STRIDE; i < TAPS; ++i) load_input(x[i], pixel, left + i - STRIDE, inside);
#pragma unroll 1
    for (int q = 0; q < conv_.q; ++q, gradient += conv_.k) {
#pragma unroll
      for (int i = 0; i < TAPS; ++i) {
        if (i + STRIDE < TAPS && STRIDE > 0) {
#pragma unroll
          for (int v = 0; v < V; ++v) x[i][v] = x[i + STRIDE < TAPS ? i + STRIDE : i][v];
        } else {
          load_input(x[i], pixel, q * conv_.stride_w + left + i, inside);
        }
      }
      float y[V];
      load_gradient(y, gradient);
#pragma unroll
      for (int v = 0; v < V; ++v) {
#pragma unroll
        for (int i = 0; i < TAPS; ++i) sum_[i][v] = multiply_add(y[v], x[i][v], sum_[i][v]);
        if (sums_bias()) bias_[v] += y[v];
      }
    }
  }

  __device__ void load_gradient(float (&y)[V], const Element* from) const {
    const Element* output = from + to_outputs_;
    if constexpr (WIDE) {
      uint4 bits = *reinterpret_cast<const uint4*>(from);
      if constexpr (MASKED) bits = masked(bits, *reinterpret_cast<const uint4*>(output), Element{});
      unpack(bits, y, Element{});
    } else {
#pragma unroll
      for (int v = 0; v < V; ++v) y[v] = k_ + v < conv_.k ? load_masked<MASKED>(from, output, v) : 0.0f;
    }
  }

  __device__ void load_input(float (&x)[V], long long row, int w, bool row_inside) const {
    const bool inside = row_inside && w >= 0 && w < conv_.w;
    const Element* pixel = static_cast<const Element*>(conv_.input) + (row + w) * conv_.c;
    if constexpr (WIDE) {
      uint4 bits = {};
      if (inside) bits = *reinterpret_cast<const uint4*>(pixel + k_);
      unpack(bits, x, Element{});
    } else {
#pragma unroll
      for (int v = 0; v < V; ++v)
        x[v] = inside && k_ + v < conv_.k ? widen(pixel[conv_.by_multiplier(k_ + v)]) : 0.0f;
    }
  }

  const WgradArguments& args_;
  const Conv2dArguments& conv_;
  int split_, k_, r_, s_;
  long long to_outputs_;  // from a gradient, in elements
  float sum_[TAPS][V] = {};
  float bias_[V] = {};
};

template <class Element, int TAPS, int STRIDE, bool WIDE, bool BIAS, bool MASKED = false>
__global__ void __launch_bounds__(256) wgrad_depthwise(const __grid_constant__ WgradArguments args) {
  __shared__ float shared[8][4 * kVector<Element>];
  WgradDepthwise<Element, TAPS, STRIDE, WIDE, BIAS, MASKED> product(args);
  product.sum_all();
  product.store_all(shared);
}

}  // namespace pyconvx
