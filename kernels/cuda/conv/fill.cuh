// The outputs that no tap of a convolution reaches: the epilogue of zero sums, 16 bytes by 16 bytes.
//
// dgrad has them where the stride is larger than the window, and conv_transpose2d puts its bias there.
#pragma once

#include "epilogue.cuh"

namespace pyconvx {

template <class Element>
__global__ void __launch_bounds__(256) fill(const __grid_constant__ Conv2dArguments args) {
  constexpr int V = kVector<Element>;
  const int vectors = (args.k + V - 1) / V;
  const long long all = static_cast<long long>(args.n) * args.p * args.q * vectors;
  for (long long i = blockIdx.x * 256ll + threadIdx.x; i < all; i += gridDim.x * 256ll) {
    const long long pixel = i / vectors, row = pixel / args.q;
    const int first = static_cast<int>(i % vectors) * V;
    Accumulator<Element> zero[V] = {};
    Epilogue<Element>(args, first, args.k - first)
        .store_at(args.spread ? spread_place(args, row / args.p, row % args.p, pixel % args.q) : pixel, zero);
  }
}

}  // namespace pyconvx
