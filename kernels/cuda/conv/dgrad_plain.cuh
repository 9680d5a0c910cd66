// dgrad without any trick, for strides so large that a convolution for each of their rows and columns
// (dgrad_filter.cuh) would be too many.
//
// A thread computes one vector of it, V neighbouring channels of one input pixel, in 64-bit arithmetic,
// and then the next, a whole grid further. Sums run over r, s, k; taps that lead from no output are left out.
#pragma once

#include "../device.cuh"
#include "arguments.cuh"
#include "mask.cuh"

namespace pyconvx {

// The output row or column that tap `tap` leads from to `at`; -1: none.
__device__ inline long long output_of(long long at, long long tap, int pad, int dilation, int stride,
                                      int size) {
  const long long from = at + pad - tap * dilation;
  return from >= 0 && from % stride == 0 && from / stride < size ? from / stride : -1;
}

template <class Element, bool MASKED = false>
__global__ void __launch_bounds__(256) dgrad_plain(const __grid_constant__ DgradArguments dgrad) {
  using Number = Accumulator<Element>;
  constexpr int V = kVector<Element>;
  const Conv2dArguments& args = dgrad.conv;
  const long long group_vectors = (args.group_channels + V - 1) / V,
                  vectors = args.c / args.group_channels * group_vectors;
  const long long all = static_cast<long long>(args.n) * args.h * args.w * vectors;
  const long long filter_size = static_cast<long long>(args.r) * args.s * args.group_channels;

  for (long long i = blockIdx.x * 256ll + threadIdx.x; i < all; i += gridDim.x * 256ll) {
    const long long pixel = i / vectors, vector = i % vectors, group = vector / group_vectors;
    const long long n = pixel / args.w / args.h, h = pixel / args.w % args.h, w = pixel % args.w;
    const int channel = static_cast<int>(vector % group_vectors) * V, left = args.group_channels - channel;
    const Element* filters =
        static_cast<const Element*>(args.filter) + group * args.group_filters * filter_size + channel;
    const long long first = group * args.group_channels + channel;

    Number sum[V] = {};
    for (long long r = 0; r < args.r; ++r) {
      const long long p = output_of(h, r, args.pad_top, args.dilation_h, args.stride_h, args.p);
      if (p < 0) continue;
      for (long long s = 0; s < args.s; ++s) {
        const long long q = output_of(w, s, args.pad_left, args.dilation_w, args.stride_w, args.q);
        if (q < 0) continue;
        const long long at = ((n * args.p + p) * args.q + q) * args.k + group * args.group_filters;
        const Element* x = static_cast<const Element*>(dgrad.grad_output) + at;
        const Element* masks = static_cast<const Element*>(args.relu_output) + at;
        const Element* y = filters + (r * args.s + s) * args.group_channels;
        for (int k = 0; k < args.group_filters; ++k) {
          const Number gradient = load_masked<MASKED>(x, masks, k);
#pragma unroll
          for (int v = 0; v < V; ++v)
            if (v < left) sum[v] = multiply_add(gradient, widen(y[k * filter_size + v]), sum[v]);
        }
      }
    }
    Element* to = static_cast<Element*>(dgrad.grad_input) + pixel * args.c + first;
#pragma unroll
    for (int v = 0; v < V; ++v)
      if (v < left) {
        const Number bias = args.bias ? widen(static_cast<const Element*>(args.bias)[first + v]) : Number(0);
        to[v] = Narrow<Element>::from(sum[v] + bias);
      }
  }
}

}  // namespace pyconvx
