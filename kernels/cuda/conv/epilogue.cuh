// The end of every convolution kernel, in one place:
//
//   output = relu(sum * scale + (bias * scale + shift) + residual)
//
// in the accumulator's type, rounded to the element's once. What is absent is its neutral element, so that
// there is one way through the arithmetic: scale 1, bias and shift 0, and a floor of -inf where relu has one
// of 0.
//
// The unit of work is a vector: 16 bytes of output, which are V neighbouring filters of one pixel. A kernel
// arranges its sums such that each thread owns whole vectors; neighbouring threads' vectors then make up full
// 32-byte sectors, and no staging in shared memory is needed.
#pragma once

#include "../device.cuh"
#include "arguments.cuh"
#include "known_problem.cuh"

namespace pyconvx {

template <class Element>
class Epilogue {
  static constexpr int V = kVector<Element>;
  using Number = Accumulator<Element>;

public:
  // For filters [first, first + V) of all, of which `count` exist.
  __device__ Epilogue(const Conv2dArguments& args, int first, int count)
      : args_(args), first_(first), count_(count) {
#pragma unroll
    for (int v = 0; v < V; ++v) {
      const bool exists = v < count;
      const int k = first + v;
      const Number bias = args.bias && exists ? widen(static_cast<const Element*>(args.bias)[k]) : Number(0);
      const Number shift = args.shift && exists ? static_cast<const Number*>(args.shift)[k] : Number(0);
      scale_[v] = args.scale && exists ? static_cast<const Number*>(args.scale)[k] : Number(1);
      offset_[v] = multiply_add(bias, scale_[v], shift);
    }
  }

  __device__ void store(long long pixel, Number (&x)[V]) const {
    const long long at = pixel * args_.k + first_;
    Element* output = static_cast<Element*>(args_.output) + at;
    const Element* residual = static_cast<const Element*>(args_.residual) + at;
    const Number floor = args_.relu ? Number(0) : -Number(__int_as_float(0x7f800000));
#pragma unroll
    for (int v = 0; v < V; ++v) x[v] = multiply_add(x[v], scale_[v], offset_[v]);
    if (args_.vector_output) {
      if (count_ <= 0) return;
      if (args_.residual) {
        Number added[V];
        unpack(*reinterpret_cast<const uint4*>(residual), added, Element{});
#pragma unroll
        for (int v = 0; v < V; ++v) x[v] += added[v];
      }
#pragma unroll
      for (int v = 0; v < V; ++v) x[v] = larger_or_nan(x[v], floor);
      *reinterpret_cast<uint4*>(output) = pack(x, Element{});
    } else {
#pragma unroll
      for (int v = 0; v < V; ++v)
        if (v < count_) {
          if (args_.residual) x[v] += widen(residual[v]);
          output[v] = Narrow<Element>::from(larger_or_nan(x[v], floor));
        }
    }
  }

private:
  const Conv2dArguments& args_;
  int first_, count_;
  Number scale_[V], offset_[V];
};

}  // namespace pyconvx
