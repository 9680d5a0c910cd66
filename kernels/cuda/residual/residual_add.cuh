// The end of a residual block, and its gradient: element by element, in one pass over memory.
//
//   output = relu(x + residual), or x + residual
//   grad_input = 0 where output <= 0, else grad_output (a NaN output passes the gradient on)
//
// The sum is formed in the accumulator's type and rounded once. For the gradient it is enough to know where
// the output, as it was rounded, is not <= 0: one bit. A forward pass that is asked to writes that mask
// beside the output, and the backward pass reads an eighth of a byte for each element instead of the element.
#pragma once

#include "strip.cuh"

namespace pyconvx {

template <class Element, int V, bool RELU, bool MASK>
__global__ void __launch_bounds__(256) residual_add(const __grid_constant__ ElementwiseArguments args) {
  using Part = Strip<Element, V>;
  using Number = Accumulator<Element>;
  const Part strip(args);
  unsigned bits[Part::K];
#pragma unroll
  for (int k = 0; k < Part::K; ++k) {
    unsigned x[Part::WORDS], residual[Part::WORDS], output[Part::WORDS];
    strip.load(x, args.x, k);
    strip.load(residual, args.other, k);
    Number one[V], other[V];
    widen_words<Element>(one, x);
    widen_words<Element>(other, residual);
#pragma unroll
    for (int v = 0; v < V; ++v) {
      one[v] += other[v];
      if (RELU) one[v] = one[v] <= 0 ? Number(0) : one[v];
    }
    narrow_words<Element>(output, one);
    strip.store(output, k);
    if constexpr (MASK) {
      widen_words<Element>(one, output);
      bits[k] = 0;
#pragma unroll
      for (int v = 0; v < V; ++v) bits[k] |= one[v] <= 0 ? 0u : 1u << v;
    }
  }
  if constexpr (MASK) strip.store_mask(bits);
}

template <class Element, int V>
__global__ void __launch_bounds__(256) relu_backward_mask(const __grid_constant__ ElementwiseArguments args) {
  using Part = Strip<Element, V>;
  const Part strip(args);
  unsigned bits[Part::K];
  strip.load_mask(bits);
#pragma unroll
  for (int k = 0; k < Part::K; ++k) {
    unsigned grad[Part::WORDS];
    strip.load(grad, args.x, k);
    Part::keep(grad, bits[k]);
    strip.store(grad, k);
  }
}

template <class Element, int V>
__global__ void __launch_bounds__(256) relu_backward(const __grid_constant__ ElementwiseArguments args) {
  using Part = Strip<Element, V>;
  const Part strip(args);
#pragma unroll
  for (int k = 0; k < Part::K; ++k) {
    unsigned grad[Part::WORDS], output[Part::WORDS];
    strip.load(grad, args.x, k);
    strip.load(output, args.other, k);
    Accumulator<Element> y[V];
    widen_words<Element>(y, output);
    unsigned bits = 0;
#pragma unroll
    for (int v = 0; v < V; ++v) bits |= y[v] <= 0 ? 0u : 1u << v;
    Part::keep(grad, bits);
    strip.store(grad, k);
  }
}

}  // namespace pyconvx
