// wgrad without any trick: for float64, and for what the other kernels' index arithmetic is too narrow for.
//
// A thread sums one vector of a filter's elements, V neighbouring channels of one tap, over the pixels of one
// split, in 64-bit arithmetic throughout, and then the next one, a whole grid further. m ascends; taps
// outside the image are left out. The first vector of a filter sums the bias's gradient as well.
#pragma once

#include "wgrad.cuh"

namespace pyconvx {

template <class Element, bool MASKED = false>
__global__ void __launch_bounds__(256) wgrad_plain(const __grid_constant__ WgradArguments wgrad) {
  using Number = Accumulator<Element>;
  constexpr int V = kVector<Element>;
  const Conv2dArguments& args = wgrad.conv;
  const long long vectors = (args.group_channels + V - 1) / V;  // of a tap
  const long long of_filter = static_cast<long long>(args.r) * args.s * vectors,
                  of_split = args.k * of_filter;
  const long long pixels = static_cast<long long>(args.n) * args.p * args.q;

  for (long long i = blockIdx.x * 256ll + threadIdx.x; i < of_split * wgrad.splits; i += gridDim.x * 256ll) {
    const long long split = i / of_split, k = i % of_split / of_filter, in_filter = i % of_filter;
    const long long tap = in_filter / vectors, r = tap / args.s, s = tap % args.s;
    const int channel = static_cast<int>(in_filter % vectors) * V, left = args.group_channels - channel;
    const Element* input =
        static_cast<const Element*>(args.input) + k / args.group_filters * args.group_channels + channel;
    const Element* gradient = static_cast<const Element*>(wgrad.grad_output) + k;
    const Element* output = static_cast<const Element*>(args.relu_output) + k;
    const bool sums_bias = wgrad.bias_sums && in_filter == 0;

    Number sum[V] = {}, bias = 0;
    const long long end = min((split + 1) * wgrad.run, pixels);
    long long m = split * wgrad.run, n = m / args.q / args.p, p = m / args.q % args.p, q = m % args.q;
    for (; m < end; ++m) {
      const long long h = p * args.stride_h - args.pad_top + r * args.dilation_h;
      const long long w = q * args.stride_w - args.pad_left + s * args.dilation_w;
      const bool inside = h >= 0 && h < args.h && w >= 0 && w < args.w;
      if (inside || sums_bias) {
        const Number y = load_masked<MASKED>(gradient, output, m * args.k);
        if (sums_bias) bias += y;
        if (inside) {
          const Element* x = input + ((n * args.h + h) * args.w + w) * args.c;
#pragma unroll
          for (int v = 0; v < V; ++v)
            if (v < left) sum[v] = multiply_add(y, widen(x[v]), sum[v]);
        }
      }
      if (++q == args.q) {
        q = 0;
        if (++p == args.p) p = 0, ++n;
      }
    }
    Number* to = static_cast<Number*>(wgrad.sums) + split * wgrad.split_size +
                 (k * args.r * args.s + tap) * args.group_channels + channel;
#pragma unroll
    for (int v = 0; v < V; ++v)
      if (v < left) to[v] = sum[v];
    if (sums_bias) bias_sums<Number>(wgrad, static_cast<int>(split))[k] = bias;
  }
}

}  // namespace pyconvx
