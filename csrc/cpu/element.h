// Elements of tensors: the two 16-bit floats, their conversions, and dispatch from the run-time enums.
#pragma once

#include "problem.h"

#include <cstring>
#include <limits>
#include <type_traits>

#ifdef __F16C__
#include <immintrin.h>
#endif

// Promises that a loop's iterations do not depend on each other, though its pointers may be equal: without it
// an in-place call would take the scalar copy of the loop.
#if defined(__clang__)
#define PYCONVX_INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#else
#define PYCONVX_INDEPENDENT _Pragma("GCC ivdep")
#endif

namespace pyconvx::cpu::PYCONVX_ISA {

struct bfloat16 {
  int16_t bits;
};

struct float16 {
  int16_t bits;
};

template <class T>
constexpr bool is_half = sizeof(T) == 2;

// Sums are taken in single precision at least, and rounded to T once.
template <class T>
using Accumulator = std::conditional_t<is_half<T>, float, T>;

// What is loaded, compared and stored: 16-bit floats are handled as their bits.
template <class T>
using Raw = std::conditional_t<is_half<T>, int16_t, T>;

// The integer as wide as T, so that comparing elements and selecting integers use the same vector lanes.
template <class T>
using Lane =
    std::conditional_t<sizeof(T) == 8, int64_t, std::conditional_t<sizeof(T) == 4, int32_t, int16_t>>;

template <class T>
constexpr Raw<T> infinity() {
  if constexpr (std::is_same_v<T, bfloat16>)
    return 0x7f80;
  else if constexpr (std::is_same_v<T, float16>)
    return 0x7c00;
  else
    return std::numeric_limits<T>::infinity();
}

template <class T>
constexpr Raw<T> lowest() {  // -inf
  if constexpr (is_half<T>)
    return static_cast<int16_t>(infinity<T>() | 0x8000);
  else
    return -infinity<T>();
}

template <class To, class From>
inline To bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

inline float widen(float x) {
  return x;
}
inline double widen(double x) {
  return x;
}

inline float widen(bfloat16 x) {
  return bit_cast<float>(static_cast<uint32_t>(static_cast<uint16_t>(x.bits)) << 16);
}

inline float widen(float16 x) {
#ifdef __F16C__
  return _cvtsh_ss(static_cast<uint16_t>(x.bits));
#else
  const uint32_t magnitude = static_cast<uint32_t>(x.bits & 0x7fff) << 13;
  const uint32_t sign = static_cast<uint32_t>(x.bits & 0x8000) << 16;
  // Scaling by 2^112 moves the exponent's bias, and normalises subnormal numbers on the way.
  const uint32_t finite = bit_cast<uint32_t>(bit_cast<float>(magnitude) * 0x1p112f);
  const uint32_t special = magnitude | 0x7f800000;
  return bit_cast<float>((magnitude >= 0x0f800000 ? special : finite) | sign);
#endif
}

template <class T>
inline T narrow(Accumulator<T> x) {
  return x;
}

template <>
inline bfloat16 narrow<bfloat16>(float x) {
  const uint32_t bits = bit_cast<uint32_t>(x);
  const uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;  // to nearest, ties to even
  const uint32_t quiet = (bits >> 16) | 0x40;  // rounding could turn a NaN into infinity
  return {static_cast<int16_t>(x != x ? quiet : rounded)};
}

template <>
inline float16 narrow<float16>(float x) {
  const uint32_t bits = bit_cast<uint32_t>(x), sign = bits & 0x80000000, magnitude = bits ^ sign;
  // Normal: move the bias and round to nearest even in integers; a carry into the exponent is right as it is.
  const uint32_t normal = (magnitude - 0x38000000 + 0x0fff + ((magnitude >> 13) & 1)) >> 13;
  // Subnormal: adding 0.5, whose last bit weighs 2^-24, lets the float adder round.
  const uint32_t subnormal = bit_cast<uint32_t>(bit_cast<float>(magnitude) + 0.5f) - 0x3f000000;
  const uint32_t special = magnitude > 0x7f800000 ? 0x7e00 | ((magnitude >> 13) & 0x1ff) : 0x7c00;
  const uint32_t finite = magnitude < 0x38800000 ? subnormal : normal;
  return {static_cast<int16_t>((magnitude >= 0x47800000 ? special : finite) | (sign >> 16))};
}

// The same for rows of elements.
template <class T>
inline void widen(int64_t count, const T* from, Accumulator<T>* to) {
  int64_t i = 0;
#ifdef __F16C__
  if constexpr (std::is_same_v<T, float16>)
    for (; i + 8 <= count; i += 8)
      _mm256_storeu_ps(to + i, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i))));
#endif
  for (; i < count; ++i) to[i] = widen(from[i]);
}

template <class T>
inline void narrow(int64_t count, const Accumulator<T>* from, T* to) {
  int64_t i = 0;
#ifdef __F16C__
  if constexpr (std::is_same_v<T, float16>)
    for (; i + 8 <= count; i += 8)
      _mm_storeu_si128(reinterpret_cast<__m128i*>(to + i),
                       _mm256_cvtps_ph(_mm256_loadu_ps(from + i), _MM_FROUND_TO_NEAREST_INT));
#endif
  for (; i < count; ++i) to[i] = narrow<T>(from[i]);
}

// Calls body with a value of the element's type, so that it can name the type.
template <class Body>
inline auto for_dtype(DType dtype, const Body& body) {
  switch (dtype) {
  case DType::f64:
    return body(double{});
  case DType::bf16:
    return body(bfloat16{});
  case DType::f16:
    return body(float16{});
  default:
    return body(float{});
  }
}

template <class Body>
inline auto for_index(IndexType index, const Body& body) {
  switch (index) {
  case IndexType::u8:
    return body(uint8_t{});
  case IndexType::i32:
    return body(int32_t{});
  default:
    return body(int64_t{});
  }
}

}  // namespace pyconvx::cpu::PYCONVX_ISA
