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

// ReLU and the rounding to a vector of elements. Rounding keeps the order, so 16-bit elements are compared
// behind it, in pairs. The floor without ReLU is -inf; NaN is kept.
template <class Element, int BYTES = sizeof(Element)>
class Floor {
  using Number = Accumulator<Element>;

public:
  __device__ explicit Floor(bool relu) : floor_(relu ? Number(0) : -Number(ptx::bits_to_f32(0x7f800000))) {}

  __device__ Number of(Number x) const { return larger_or_nan(x, floor_); }

  __device__ uint4 pack(Number (&x)[kVector<Element>]) const {
#pragma unroll
    for (int v = 0; v < kVector<Element>; ++v) x[v] = of(x[v]);
    return pyconvx::pack(x, Element{});
  }

private:
  Number floor_;
};

// 16 bits: two of them in a register.
__device__ inline unsigned minus_infinities(f16) {
  return 0xfc00fc00;
}
__device__ inline unsigned minus_infinities(bf16) {
  return 0xff80ff80;
}
__device__ inline unsigned larger_or_nan(unsigned x, unsigned y, f16) {
  return ptx::max_nan_f16x2(x, y);
}
__device__ inline unsigned larger_or_nan(unsigned x, unsigned y, bf16) {
  return ptx::max_nan_bf16x2(x, y);
}

template <class Element>
class Floor<Element, 2> {
public:
  __device__ explicit Floor(bool relu) : floor_(relu ? 0 : minus_infinities(Element{})) {}

  __device__ float of(float x) const { return floor_ ? x : larger_or_nan(x, 0.0f); }

  __device__ uint4 pack(const float (&x)[8]) const {
    const uint4 bits = pyconvx::pack(x, Element{});
    return {larger(bits.x), larger(bits.y), larger(bits.z), larger(bits.w)};
  }

private:
  __device__ unsigned larger(unsigned pair) const { return larger_or_nan(pair, floor_, Element{}); }

  unsigned floor_;  // a pair of them
};

// Kernels whose sums begin with the bias let it be the first of all there is to add only where nothing but
// ReLU follows, and outputs lie in order; elsewhere it comes where the formula has it.
__device__ inline bool bias_is_first(const Conv2dArguments& args) {
  return !args.scale && !args.shift && !args.residual && !args.spread;
}

__device__ inline long long spread_place(const Conv2dArguments& args, long long n, long long p, long long q) {
  return (n * args.spread_h + args.first_h + p * args.step_h) * args.spread_w + args.first_w +
         q * args.step_w;
}

template <class Element>
class Epilogue {
  static constexpr int V = kVector<Element>;
  using Number = Accumulator<Element>;

public:
  // For filters [first, first + V) of all, of which `count` exist. biased: sums have the bias already.
  __device__ Epilogue(const Conv2dArguments& args, int first, int count, bool biased = false)
      : args_(args), first_(first), count_(count) {
#pragma unroll
    for (int v = 0; v < V; ++v) {
      const bool exists = v < count;
      const int k = first + v;
      const Number bias =
          args.bias && exists && !biased ? widen(static_cast<const Element*>(args.bias)[k]) : Number(0);
      const Number shift = args.shift && exists ? static_cast<const Number*>(args.shift)[k] : Number(0);
      scale_[v] = args.scale && exists ? static_cast<const Number*>(args.scale)[k] : Number(1);
      offset_[v] = multiply_add(bias, scale_[v], shift);
    }
  }

  // The sums of output pixel (n P + p) Q + q.
  __device__ void store(long long pixel, Number (&x)[V]) const { store_at(place(pixel), x); }

  // The pixel of the output tensor that it is.
  __device__ long long place(long long pixel) const {
    if (!args_.spread) return pixel;
    const int m = static_cast<int>(pixel);
    const int n = args_.by_image(m), pq = m - n * args_.by_image.divisor;
    const int p = args_.by_q(pq), q = pq - p * args_.q;
    return spread_place(args_, n, p, q);
  }

  __device__ void store_at(long long place, Number (&x)[V]) const {
    const long long at = place * args_.k + first_;
    Element* output = static_cast<Element*>(args_.output) + at;
    const Element* residual = static_cast<const Element*>(args_.residual) + at;
    const Floor<Element> floor(args_.relu);
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
      *reinterpret_cast<uint4*>(output) = floor.pack(x);
    } else {
#pragma unroll
      for (int v = 0; v < V; ++v)
        if (v < count_) {
          if (args_.residual) x[v] += widen(residual[v]);
          output[v] = Narrow<Element>::from(floor.of(x[v]));
        }
    }
  }

private:
  const Conv2dArguments& args_;
  int first_, count_;
  Number scale_[V], offset_[V];
};

}  // namespace pyconvx
