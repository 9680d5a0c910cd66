// The splits of wgrad's reduction added up in order, and rounded once.
#pragma once

#include "../device.cuh"
#include "arguments.cuh"

namespace pyconvx {

template <class Element>
__global__ void __launch_bounds__(256) wgrad_sum(const __grid_constant__ WgradSumArguments args) {
  using Number = Accumulator<Element>;
  const long long all = args.weights + args.biases;
  for (long long i = blockIdx.x * 256ll + threadIdx.x; i < all; i += gridDim.x * 256ll) {
    const bool is_bias = i >= args.weights;
    const Number* from =
        static_cast<const Number*>(args.sums) + (is_bias ? args.bias_at + i - args.weights : i);
    Number sum = 0;
    for (int split = 0; split < args.splits; ++split) {
      const Number part = from[split * args.split_size];
      sum = split ? sum + part : part;
    }
    Element* to = is_bias ? static_cast<Element*>(args.grad_bias) + i - args.weights
                          : static_cast<Element*>(args.grad_weight) + i;
    *to = Narrow<Element>::from(sum);
  }
}

}  // namespace pyconvx
