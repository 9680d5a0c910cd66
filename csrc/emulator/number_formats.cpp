#include "number_formats.h"

#include <algorithm>

namespace pyconvx::emulator {

uint32_t encode(double value, FloatFormat format, Rounding rounding) {
  const int bias = (1 << (format.exponent_bits - 1)) - 1;
  const uint32_t infinity = ((1u << format.exponent_bits) - 1) << format.fraction_bits;
  const bool negative = std::signbit(value);
  const uint32_t sign = static_cast<uint32_t>(negative) << (format.exponent_bits + format.fraction_bits);
  if (std::isnan(value)) return infinity | ((1u << format.fraction_bits) - 1);
  if (std::isinf(value)) return sign | infinity;
  if (value == 0) return sign;

  int exponent;
  const uint64_t significand = static_cast<uint64_t>(std::ldexp(std::frexp(std::fabs(value), &exponent), 53));
  const int scale = std::max(exponent - 1, 1 - bias);  // of the result; subnormals share the lowest
  const int dropped =
      scale - format.fraction_bits - (exponent - 53);  // low bits of the significand that are lost
  uint64_t kept = 0;
  int against_half = -1;  // the lost part compared with half a unit in the last place
  bool exact = false;
  if (dropped < 55) {  // beyond that all 53 bits lie below half a unit
    const uint64_t lost = significand & ((uint64_t(1) << dropped) - 1), half = uint64_t(1) << (dropped - 1);
    kept = significand >> dropped;
    against_half = lost < half ? -1 : lost > half;
    exact = lost == 0;
  }
  bool up = false;
  switch (rounding) {
  case Rounding::nearest_even:
    up = against_half > 0 || (against_half == 0 && (kept & 1));
    break;
  case Rounding::nearest_away:
    up = against_half >= 0;
    break;
  case Rounding::zero:
    break;
  case Rounding::down:
    up = negative && !exact;
    break;
  case Rounding::up:
    up = !negative && !exact;
    break;
  }
  // The leading one of `kept` adds itself to the exponent field, and so does a carry out of the fraction.
  const uint64_t bits =
      scale > bias ? infinity : (static_cast<uint64_t>(scale + bias - 1) << format.fraction_bits) + kept + up;
  if (bits < infinity) return sign | static_cast<uint32_t>(bits);
  const bool to_infinity = rounding == Rounding::nearest_even || rounding == Rounding::nearest_away ||
                           (rounding == Rounding::up && !negative) ||
                           (rounding == Rounding::down && negative);
  return sign | (to_infinity ? infinity : infinity - 1);
}

double add_to_odd(double a, double b) {
  const double sum = a + b;
  if (!std::isfinite(sum)) return sum;
  const double b_seen = sum - a;
  const double error = (a - (sum - b_seen)) + (b - b_seen);
  uint64_t bits = bit_cast<uint64_t>(sum);
  if (error == 0 || (bits & 1)) return sum;
  if (sum == 0) return error;
  bits += (error > 0) == (sum > 0) ? 1 : -1;
  return bit_cast<double>(bits);
}

}  // namespace pyconvx::emulator
