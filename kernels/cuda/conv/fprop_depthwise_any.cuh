// Depthwise convolution by any window, with one or several filters a channel ("multiplier" K / C). Common
// windows of one filter a channel have a kernel of their own, fprop_depthwise.cuh.
//
//   output[n][p][q][k] = sum over r, s of input[n][h][w][k / multiplier] * filter[k][r][s]
//
// A thread owns V neighbouring channels, 16 bytes, of RUN neighbouring outputs of a row, and reads its inputs
// from global memory, tap by tap. A block owns VECTORS vectors of channels and 256 / VECTORS runs;
// neighbouring threads own neighbouring vectors. Filters are put into shared memory at the start, widened, as
// [r][s][channel of the block].
//
// Order of summation: that of fprop_depthwise.cuh, and so are the bits.
#pragma once

#include "mask.cuh"
#include "pixel_tiles.cuh"

namespace pyconvx {

// WIDE: the multiplier is 1 and 16-byte accesses are right.
template <class Element, bool WIDE, bool MASKED>
class DepthwiseAny {
  static constexpr int V = kVector<Element>, VECTORS = 4, RUN = 4, THREADS = 256;
  static constexpr int CHANNELS = VECTORS * V;  // of a block

public:
  __device__ DepthwiseAny(const Conv2dArguments& args, float* filters) : args_(args), filters_(filters) {
    const int run_block = args.by_filter_tiles(blockIdx.x);
    first_ = (blockIdx.x - run_block * args.by_filter_tiles.divisor) * CHANNELS;
    k_ = first_ + threadIdx.x % VECTORS * V;
    run_ = run_block * (THREADS / VECTORS) + threadIdx.x / VECTORS;
  }

  __device__ void run() {
    copy_filters();
    __syncthreads();
    if (run_ >= args_.tiles || k_ >= args_.k) return;
    const auto [n, p, q] = pixel_tile<1, RUN>(args_, run_);
    const int top = p * args_.stride_h - args_.pad_top, left = q * args_.stride_w - args_.pad_left;
    const long long image = static_cast<long long>(n) * args_.h;
    start();
    for (int r = 0; r < args_.r; ++r) {
      const int h = top + r * args_.dilation_h;
      const bool inside = h >= 0 && h < args_.h;
      add_row(static_cast<const Element*>(args_.input) + (image + h) * args_.w * args_.c, left, inside, r);
    }
    const Epilogue<Element> epilogue(args_, k_, args_.k - k_, bias_is_first(args_));
    const long long pixel = (static_cast<long long>(n) * args_.p + p) * args_.q + q;
#pragma unroll
    for (int j = 0; j < RUN; ++j)
      if (q + j < args_.q) epilogue.store(pixel + j, sum_[j]);
  }

private:
  __device__ void start() {
    const Element* bias = static_cast<const Element*>(args_.bias);
#pragma unroll
    for (int v = 0; v < V; ++v) {
      const float first = bias && bias_is_first(args_) && k_ + v < args_.k ? widen(bias[k_ + v]) : 0.0f;
#pragma unroll
      for (int j = 0; j < RUN; ++j) sum_[j][v] = first;
    }
  }

  __device__ void copy_filters() const {
    const int taps = args_.r * args_.s, channel = threadIdx.x % CHANNELS;
    const bool exists = first_ + channel < args_.k;
    const Element* from =
        static_cast<const Element*>(args_.filter) + static_cast<long long>(first_ + channel) * taps;
    for (int tap = threadIdx.x / CHANNELS; tap < taps; tap += THREADS / CHANNELS)
      filters_[tap * CHANNELS + channel] = exists ? widen(from[tap]) : 0.0f;
  }

  __device__ void add_row(const Element* row, int left, bool inside, int r) {
#pragma unroll 1
    for (int s = 0; s < args_.s; ++s) {
      float filter[V];
      load_filter(filter, r * args_.s + s);
#pragma unroll
      for (int j = 0; j < RUN; ++j) {
        float x[V];
        load_input(x, row, left + j * args_.stride_w + s * args_.dilation_w, inside);
        add(sum_[j], x, filter);
      }
    }
  }

  __device__ void load_filter(float (&filter)[V], int tap) const {
    const float* from = filters_ + tap * CHANNELS + threadIdx.x % VECTORS * V;
#pragma unroll
    for (int v = 0; v < V; v += 4) {
      const float4 four = *reinterpret_cast<const float4*>(from + v);
      filter[v] = four.x;
      filter[v + 1] = four.y;
      filter[v + 2] = four.z;
      filter[v + 3] = four.w;
    }
  }

  __device__ void load_input(float (&x)[V], const Element* row, int w, bool row_inside) const {
    const bool inside = row_inside && w >= 0 && w < args_.w;
    const Element* pixel = row + static_cast<long long>(w) * args_.c;
    if constexpr (WIDE) {
      uint4 bits = {};
      if (inside) bits = *reinterpret_cast<const uint4*>(pixel + k_);
      if constexpr (MASKED)
        if (inside) bits = masked(bits, *reinterpret_cast<const uint4*>(masks_of(pixel) + k_), Element{});
      unpack(bits, x, Element{});
    } else {
#pragma unroll
      for (int v = 0; v < V; ++v)
        x[v] = inside && k_ + v < args_.k
                   ? load_masked<MASKED>(pixel, masks_of(pixel), args_.by_multiplier(k_ + v))
                   : 0.0f;
    }
  }

  __device__ const Element* masks_of(const Element* pixel) const {
    return static_cast<const Element*>(args_.relu_output) +
           (pixel - static_cast<const Element*>(args_.input));
  }

  __device__ static void add(float (&sum)[V], const float (&x)[V], const float (&filter)[V]) {
#pragma unroll
    for (int v = 0; v < V; ++v) sum[v] = multiply_add(x[v], filter[v], sum[v]);
  }

  const Conv2dArguments& args_;
  float* filters_;
  int first_, k_;  // the block's and the thread's first filter
  int run_;
  float sum_[RUN][V];
};

template <class Element, bool WIDE, bool MASKED = false>
__global__ void __launch_bounds__(256)
    fprop_depthwise_any(const __grid_constant__ Conv2dArguments arguments) {
  const Conv2dArguments& args = known(arguments);
  extern __shared__ __align__(128) unsigned char shared[];
  DepthwiseAny<Element, WIDE, MASKED>(args, reinterpret_cast<float*>(shared)).run();
}

}  // namespace pyconvx
