// Binary floating-point formats that C++ has no type for, and the roundings of PTX.
#pragma once

#include <cmath>
#include <cstdint>

#ifdef __F16C__
#include <immintrin.h>
#endif

#include "types.h"

namespace pyconvx::emulator {

enum class Rounding : uint8_t { nearest_even, zero, down, up, nearest_away };

struct FloatFormat {
  int exponent_bits;
  int fraction_bits;
};
constexpr FloatFormat kHalf{5, 10}, kBfloat{8, 7}, kTf32{8, 10}, kSingle{8, 23};

// The bits of `value` in `format`, rounded once. NaN becomes the format's canonical NaN (all ones, sign
// clear).
uint32_t encode(double value, FloatFormat format, Rounding rounding = Rounding::nearest_even);

// a + b with an inexact result made odd, so that rounding it again to a format of at most 51 bits is exact.
double add_to_odd(double a, double b);

inline float half_to_float(uint16_t bits) {
#ifdef __F16C__
  return _cvtsh_ss(bits);
#else
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000) << 16, magnitude = bits & 0x7fff;
  if (magnitude >= 0x7c00) return bit_cast<float>(sign | 0x7f800000 | (magnitude & 0x3ff) << 13);
  const float scale = 0x1p112f;  // between the two exponents' biases; right for subnormal halves too
  return bit_cast<float>(sign | bit_cast<uint32_t>(bit_cast<float>(magnitude << 13) * scale));
#endif
}
inline float bfloat_to_float(uint16_t bits) {
  return bit_cast<float>(static_cast<uint32_t>(bits) << 16);
}

inline uint16_t float_to_half(float value) {
#ifdef __F16C__
  return value != value ? 0x7fff : _cvtss_sh(value, _MM_FROUND_TO_NEAREST_INT);
#else
  return static_cast<uint16_t>(encode(value, kHalf));
#endif
}
inline uint16_t float_to_bfloat(float value) {
  if (value != value) return 0x7fff;
  uint32_t bits = bit_cast<uint32_t>(value);
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

// Many at once, for the operands of matrix instructions; `count` is a multiple of 8.
inline void halves_to_floats(const uint16_t* in, float* out, int count) {
#ifdef __F16C__
  for (int k = 0; k < count; k += 8) {
    _mm256_storeu_ps(out + k, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(in + k))));
  }
#else
  for (int k = 0; k < count; ++k) out[k] = half_to_float(in[k]);
#endif
}

// .ftz: subnormal numbers count as zero of the same sign.
inline float flush_subnormal(float value) {
  return std::fabs(value) < 1.17549435e-38f ? std::copysign(0.0f, value) : value;
}

// Two 16-bit formats behind one face, for templates.
struct Half {
  static float decode(uint16_t bits) { return half_to_float(bits); }
  static uint16_t encode(float value) { return float_to_half(value); }
  static constexpr FloatFormat format = kHalf;
  static constexpr uint16_t one = 0x3c00;
};
struct Bfloat {
  static float decode(uint16_t bits) { return bfloat_to_float(bits); }
  static uint16_t encode(float value) { return float_to_bfloat(value); }
  static constexpr FloatFormat format = kBfloat;
  static constexpr uint16_t one = 0x3f80;
};

// PTX min and max: a NaN loses against a number, and -0 is smaller than +0.
template <class T>
inline T number_min(T a, T b) {
  if (a != a) return b;
  if (b != b) return a;
  if (a == b) return std::signbit(a) ? a : b;
  return a < b ? a : b;
}
template <class T>
inline T number_max(T a, T b) {
  if (a != a) return b;
  if (b != b) return a;
  if (a == b) return std::signbit(a) ? b : a;
  return a > b ? a : b;
}

}  // namespace pyconvx::emulator
