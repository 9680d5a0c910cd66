// Convolution without any trick: for float64, and for what the other kernels' index arithmetic is too narrow
// for.
//
// A thread computes one vector of outputs, V neighbouring filters of one pixel, in 64-bit arithmetic
// throughout, and then the next one, a whole grid further. Sums run over r, s, c in this order; taps outside
// the image are left out.
#pragma once

#include "epilogue.cuh"
#include "mask.cuh"

namespace pyconvx {

template <class Element, bool MASKED = false>
__global__ void __launch_bounds__(256) fprop_plain(const __grid_constant__ Conv2dArguments arguments) {
  const Conv2dArguments& args = known(arguments);
  using Number = Accumulator<Element>;
  constexpr int V = kVector<Element>;
  const long long group_vectors = (args.group_filters + V - 1) / V,
                  vectors = args.k / args.group_filters * group_vectors;
  const long long all = static_cast<long long>(args.n) * args.p * args.q * vectors;
  const long long reduction = static_cast<long long>(args.r) * args.s * args.group_channels;

  for (long long i = blockIdx.x * 256ll + threadIdx.x; i < all; i += gridDim.x * 256ll) {
    const long long pixel = i / vectors, vector = i % vectors, group = vector / group_vectors;
    const long long n = pixel / args.q / args.p, p = pixel / args.q % args.p, q = pixel % args.q;
    const int filter = static_cast<int>(vector % group_vectors) * V;  // in the group
    const int left = args.group_filters - filter;
    const long long first = group * args.group_filters + filter;
    const Element* image =
        static_cast<const Element*>(args.input) + n * args.h * args.w * args.c + group * args.group_channels;
    const Element* filters = static_cast<const Element*>(args.filter) + first * reduction;

    Number sum[V] = {};
    for (long long r = 0; r < args.r; ++r)
      for (long long s = 0; s < args.s; ++s) {
        const long long h = p * args.stride_h - args.pad_top + r * args.dilation_h;
        const long long w = q * args.stride_w - args.pad_left + s * args.dilation_w;
        if (h < 0 || h >= args.h || w < 0 || w >= args.w) continue;
        const Element* x = image + (h * args.w + w) * args.c;
        const Element* masks =
            static_cast<const Element*>(args.relu_output) + (x - static_cast<const Element*>(args.input));
        const Element* y = filters + (r * args.s + s) * args.group_channels;
        for (int c = 0; c < args.group_channels; ++c) {
          const Number activation = load_masked<MASKED>(x, masks, c);
#pragma unroll
          for (int v = 0; v < V; ++v)
            if (v < left) sum[v] = multiply_add(activation, widen(y[v * reduction + c]), sum[v]);
        }
      }
    Epilogue<Element>(args, static_cast<int>(first), left)
        .store_at(args.spread ? spread_place(args, n, p, q) : pixel, sum);
  }
}

}  // namespace pyconvx
