// Words that all kernels share: element types and their conversions, 16-byte vectors, division by a constant.
//
// One source for two compilers, nvcc and NVRTC: nothing is included from CUDA's or the standard library's
// headers, which NVRTC does not have.
#pragma once

#include "division.cuh"
#include "ptx.cuh"

namespace pyconvx {

// An element as it lies in memory. tf32 is stored as a float, of which the tensor cores ignore the lowest 13
// bits: operands are truncated, not rounded.
struct f16 {
  unsigned short bits;
};
struct bf16 {
  unsigned short bits;
};
struct tf32 {
  float value;
};
using f32 = float;
using f64 = double;

// What sums of elements are kept in.
template <class Element>
struct AccumulatorOf {
  using type = float;
};
template <>
struct AccumulatorOf<f64> {
  using type = double;
};
template <class Element>
using Accumulator = typename AccumulatorOf<Element>::type;

__device__ inline float widen(f16 x) {
  return ptx::cvt_f32_f16(x.bits);
}
__device__ inline float widen(bf16 x) {
  return ptx::bits_to_f32(static_cast<unsigned>(x.bits) << 16);
}
__device__ inline float widen(tf32 x) {
  return x.value;
}
__device__ inline float widen(f32 x) {
  return x;
}
__device__ inline double widen(f64 x) {
  return x;
}

template <class Element>
struct Narrow;  // to an element, rounded to nearest even
template <>
struct Narrow<f16> {
  __device__ static f16 from(float x) { return {ptx::cvt_rn_f16_f32(x)}; }
  __device__ static unsigned pair(float low, float high) { return ptx::cvt_rn_f16x2_f32(low, high); }
};
template <>
struct Narrow<bf16> {
  __device__ static bf16 from(float x) { return {ptx::cvt_rn_bf16_f32(x)}; }
  __device__ static unsigned pair(float low, float high) { return ptx::cvt_rn_bf16x2_f32(low, high); }
};
template <>
struct Narrow<tf32> {
  __device__ static tf32 from(float x) { return {x}; }
};
template <>
struct Narrow<f32> {
  __device__ static f32 from(float x) { return x; }
};
template <>
struct Narrow<f64> {
  __device__ static f64 from(double x) { return x; }
};

// x y + z rounded once, said explicitly: where the compiler fuses by itself, it may do so in one tile and not
// in another.
__device__ inline float multiply_add(float x, float y, float z) {
  return __fmaf_rn(x, y, z);
}
__device__ inline double multiply_add(double x, double y, double z) {
  return __fma_rn(x, y, z);
}

// The larger of two, or NaN if either is one, as torch's relu keeps it. (max and fmaxf drop NaN.)
__device__ inline float larger_or_nan(float x, float y) {
  return ptx::max_nan_f32(x, y);
}
__device__ inline double larger_or_nan(double x, double y) {
  return x < y ? y : x;
}  // y is a number here

// ---------------------------------------------------------------------------------------------------------
// 16 bytes: the widest access of one thread.

template <class Element>
inline constexpr int kVector = 16 / sizeof(Element);

__device__ inline void unpack(uint4 bits, float (&x)[8], f16) {
  const unsigned pair[4] = {bits.x, bits.y, bits.z, bits.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    x[2 * i] = ptx::cvt_f32_f16(static_cast<unsigned short>(pair[i]));
    x[2 * i + 1] = ptx::cvt_f32_f16(static_cast<unsigned short>(pair[i] >> 16));
  }
}

__device__ inline void unpack(uint4 bits, float (&x)[8], bf16) {
  const unsigned pair[4] = {bits.x, bits.y, bits.z, bits.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    x[2 * i] = ptx::bits_to_f32(pair[i] << 16);
    x[2 * i + 1] = ptx::bits_to_f32(pair[i] & 0xffff0000u);
  }
}

__device__ inline void unpack(uint4 bits, float (&x)[4], f32) {
  x[0] = ptx::bits_to_f32(bits.x);
  x[1] = ptx::bits_to_f32(bits.y);
  x[2] = ptx::bits_to_f32(bits.z);
  x[3] = ptx::bits_to_f32(bits.w);
}

__device__ inline void unpack(uint4 bits, float (&x)[4], tf32) {
  unpack(bits, x, f32{});
}

__device__ inline void unpack(uint4 bits, double (&x)[2], f64) {
  x[0] = ptx::bits_to_f64(bits.x, bits.y);
  x[1] = ptx::bits_to_f64(bits.z, bits.w);
}

__device__ inline uint4 pack(const float (&x)[8], f16) {
  return {ptx::cvt_rn_f16x2_f32(x[0], x[1]), ptx::cvt_rn_f16x2_f32(x[2], x[3]),
          ptx::cvt_rn_f16x2_f32(x[4], x[5]), ptx::cvt_rn_f16x2_f32(x[6], x[7])};
}

__device__ inline uint4 pack(const float (&x)[8], bf16) {
  return {ptx::cvt_rn_bf16x2_f32(x[0], x[1]), ptx::cvt_rn_bf16x2_f32(x[2], x[3]),
          ptx::cvt_rn_bf16x2_f32(x[4], x[5]), ptx::cvt_rn_bf16x2_f32(x[6], x[7])};
}

__device__ inline uint4 pack(const float (&x)[4], f32) {
  return {ptx::f32_to_bits(x[0]), ptx::f32_to_bits(x[1]), ptx::f32_to_bits(x[2]), ptx::f32_to_bits(x[3])};
}

__device__ inline uint4 pack(const float (&x)[4], tf32) {
  return pack(x, f32{});
}

__device__ inline uint4 pack(const double (&x)[2], f64) {
  const uint2 low = ptx::f64_to_bits(x[0]), high = ptx::f64_to_bits(x[1]);
  return {low.x, low.y, high.x, high.y};
}

}  // namespace pyconvx
