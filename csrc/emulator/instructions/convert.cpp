// cvt: between integers of all sizes and floating-point formats, with every rounding; cvt.pack; two floats to
// a pair of halves. Every source format fits into a double or a 64-bit integer, so one rounding is all that
// ever happens.
#include <cfenv>
#include <cmath>

#include "lane_ops.h"

namespace pyconvx::emulator {

namespace {

uint64_t sign_extended(uint64_t bits, Type type) {
  switch (type) {
  case Type::s8:
    return static_cast<uint64_t>(static_cast<int8_t>(bits));
  case Type::s16:
    return static_cast<uint64_t>(static_cast<int16_t>(bits));
  case Type::s32:
    return static_cast<uint64_t>(static_cast<int32_t>(bits));
  case Type::b8:
  case Type::u8:
    return static_cast<uint8_t>(bits);
  case Type::b16:
  case Type::u16:
    return static_cast<uint16_t>(bits);
  case Type::b32:
  case Type::u32:
    return static_cast<uint32_t>(bits);
  default:
    return bits;
  }
}

double round_to_integer(double x, Rounding r) {
  switch (r) {
  case Rounding::zero:
    return std::trunc(x);
  case Rounding::down:
    return std::floor(x);
  case Rounding::up:
    return std::ceil(x);
  default:
    return std::nearbyint(x);
  }
}

double decode_float(uint64_t bits, Type type, bool flush) {
  switch (type) {
  case Type::f16:
    return half_to_float(static_cast<uint16_t>(bits));
  case Type::bf16:
    return bfloat_to_float(static_cast<uint16_t>(bits));
  case Type::f64:
    return bit_cast<double>(bits);
  default: {
    const float value = bit_cast<float>(static_cast<uint32_t>(bits));
    return flush ? flush_subnormal(value) : value;
  }
  }
}

uint64_t encode_float(double value, Type type, const Instruction& i) {
  if (i.relu && !(value > 0) && value == value) value = 0;
  if (i.saturate) value = value != value ? 0 : value < 0 ? 0 : value > 1 ? 1 : value;
  switch (type) {
  case Type::f16:
    return encode(value, kHalf, i.rounding);
  case Type::bf16:
    return encode(value, kBfloat, i.rounding);
  case Type::tf32: {  // an f32 whose low 13 fraction bits are zero
    const uint32_t bits = encode(value, kTf32, i.rounding);
    return (bits & 0x3ffff) << 13 | (bits >> 18 & 1) << 31;
  }
  case Type::f32: {
    const uint32_t bits = encode(value, kSingle, i.rounding);
    return i.flush ? bit_cast<uint32_t>(flush_subnormal(bit_cast<float>(bits))) : bits;
  }
  default:
    return bit_cast<uint64_t>(value);
  }
}

// Out of range goes to the nearest end, NaN to zero.
uint64_t float_to_integer(double value, Type type, Rounding r) {
  if (value != value) return 0;
  value = round_to_integer(value, r);
  const int bits = 8 * static_cast<int>(bytes_of(type));
  if (is_signed(type)) {
    const double end = std::ldexp(1.0, bits - 1);
    if (value >= end) return (uint64_t(1) << (bits - 1)) - 1;
    return static_cast<uint64_t>(static_cast<int64_t>(value < -end ? -end : value));
  }
  if (value >= std::ldexp(1.0, bits)) return bits == 64 ? ~uint64_t(0) : (uint64_t(1) << bits) - 1;
  return value < 0 ? 0 : static_cast<uint64_t>(value);
}

uint64_t integer_to_float(uint64_t value, bool is_signed_source, Type type, const Instruction& i) {
  if (type == Type::f64) {
    std::fesetround(i.rounding == Rounding::zero   ? FE_TOWARDZERO
                    : i.rounding == Rounding::down ? FE_DOWNWARD
                    : i.rounding == Rounding::up   ? FE_UPWARD
                                                   : FE_TONEAREST);
    volatile uint64_t v = value;
    volatile double result =
        is_signed_source ? static_cast<double>(static_cast<int64_t>(v)) : static_cast<double>(v);
    std::fesetround(FE_TONEAREST);
    return bit_cast<uint64_t>(static_cast<double>(result));
  }
  // 64 bits do not fit a double: the sum of the exact halves, made odd, rounds as the integer would.
  const uint64_t low = value & 0xffff, high = value - low;
  const double upper =
      is_signed_source ? static_cast<double>(static_cast<int64_t>(high)) : static_cast<double>(high);
  return encode_float(add_to_odd(upper, static_cast<double>(low)), type, i);
}

uint64_t saturate_integer(uint64_t value, Type from, Type to) {
  const int bits = 8 * static_cast<int>(bytes_of(to));
  const __int128 x =
      is_signed(from) ? static_cast<__int128>(static_cast<int64_t>(value)) : static_cast<__int128>(value);
  const __int128 one = 1;
  const __int128 low = is_signed(to) ? -(one << (bits - 1)) : 0,
                 high = is_signed(to) ? (one << (bits - 1)) - 1 : (one << bits) - 1;
  return static_cast<uint64_t>(x < low ? low : x > high ? high : x);
}

enum Mode : uint8_t { kPlain, kToIntegralFloat };  // cvt.rni.f32.f32 rounds to an integer that stays a float

void convert(Warp& w, const Instruction& i, LaneMask active) {
  const Type to = i.type, from = i.other_type;
  for_lanes(active, [&](int l) {
    const uint64_t source = w.get(i.source[0], i.source_size[0], l);
    uint64_t result;
    if (is_float(from)) {
      double value = decode_float(source, from, i.flush);
      if (!is_float(to)) {
        result = float_to_integer(value, to, i.rounding);
      } else {
        if (i.mode == kToIntegralFloat) value = round_to_integer(value, i.rounding);
        result = encode_float(value, to, i);
      }
    } else {
      const uint64_t value = sign_extended(source, from);
      if (is_float(to))
        result = integer_to_float(value, is_signed(from), to, i);
      else
        result = sign_extended(i.saturate ? saturate_integer(value, from, to) : value, to);
    }
    w.put(i.destination[0], i.destination_size[0], l, result);
  });
}

// The frequent ones without detours.
constexpr auto half_to_single = [](uint16_t a) { return half_to_float(a); };
constexpr auto bfloat_to_single = [](uint16_t a) { return bfloat_to_float(a); };
constexpr auto single_to_half = [](float a) { return float_to_half(a); };
constexpr auto single_to_bfloat = [](float a) { return float_to_bfloat(a); };
constexpr auto resized = [](auto a) { return a; };  // the destination's type does it

// cvt.rn.f16x2.f32 d, a, b: a goes to the upper half.
template <class Format>
void convert_pair(Warp& w, const Instruction& i, LaneMask active) {
  uint32_t* d = w.lanes<uint32_t>(i.destination[0]);
  const float *a = w.lanes<float>(i.source[0]), *b = w.lanes<float>(i.source[1]);
  for_lanes(active, [&](int l) {
    auto one = [&](float x) -> uint32_t {
      if (i.relu && x <= 0) x = 0;
      return i.rounding == Rounding::nearest_even ? Format::encode(x) : encode(x, Format::format, i.rounding);
    };
    d[l] = one(b[l]) | one(a[l]) << 16;
  });
}

// cvt.pack.sat.u8.s32.b32 d, a, b, c: a and b become the low elements, c's low bits move up.
void convert_pack(Warp& w, const Instruction& i, LaneMask active) {
  const int bits = 8 * static_cast<int>(bytes_of(i.type));
  const uint64_t mask = (uint64_t(1) << bits) - 1;
  uint32_t* d = w.lanes<uint32_t>(i.destination[0]);
  const int32_t *a = w.lanes<int32_t>(i.source[0]), *b = w.lanes<int32_t>(i.source[1]);
  const uint32_t* c = i.sources > 2 ? w.lanes<uint32_t>(i.source[2]) : nullptr;
  for_lanes(active, [&](int l) {
    auto one = [&](int32_t x) {
      return saturate_integer(static_cast<uint64_t>(int64_t(x)), Type::s32, i.type) & mask;
    };
    const uint64_t rest = c ? uint64_t(c[l]) << 2 * bits : 0;
    d[l] = static_cast<uint32_t>(rest | one(a[l]) << bits | one(b[l]));
  });
}

Handler fast_handler(const Instruction& i) {
  const uint32_t out = i.destination_size[0], in = i.source_size[0];
  if (i.saturate || i.relu || i.flush || i.mode == kToIntegralFloat || i.rounding != Rounding::nearest_even)
    return nullptr;
  if (i.type == Type::f32 && i.other_type == Type::f16 && in == 2)
    return lanes1<float, uint16_t, half_to_single>;
  if (i.type == Type::f32 && i.other_type == Type::bf16 && in == 2)
    return lanes1<float, uint16_t, bfloat_to_single>;
  if (i.type == Type::f16 && i.other_type == Type::f32 && out == 2)
    return lanes1<uint16_t, float, single_to_half>;
  if (i.type == Type::bf16 && i.other_type == Type::f32 && out == 2)
    return lanes1<uint16_t, float, single_to_bfloat>;
  if (i.type == Type::s64 && i.other_type == Type::s32 && in == 4) return lanes1<int64_t, int32_t, resized>;
  if (i.type == Type::u64 && i.other_type == Type::u32 && in == 4) return lanes1<uint64_t, uint32_t, resized>;
  if (i.type == Type::u32 && i.other_type == Type::u64 && out == 4)
    return lanes1<uint32_t, uint64_t, resized>;
  return nullptr;
}

bool decode_pack(Decoder& d) {
  if (!d.take("sat")) d.unsupported("cvt.pack without .sat");
  d.out().type = d.take_type();
  if (d.take_type() != Type::s32) d.unsupported("cvt.pack from another type than s32");
  if (d.next_type() != Type::none) d.take_type();  // of c
  d.destination(d.operand(0), Type::b32);
  for (size_t k = 1; k < d.operand_count(); ++k) d.source(d.operand(k), Type::b32);
  const uint32_t bytes = bytes_of(d.out().type);
  d.run(bytes <= 2 && d.operand_count() == (bytes == 2 ? 3 : 4) ? convert_pack : nullptr);
  return true;
}

bool decode_cvt(Decoder& d) {
  Instruction& i = d.out();
  if (d.take("pack")) return decode_pack(d);
  const bool integral = d.has("rni") || d.has("rzi") || d.has("rmi") || d.has("rpi");
  i.rounding = d.take_rounding(integral);
  i.flush = d.take("ftz");
  i.saturate = d.take("sat");
  i.relu = d.take("relu");
  i.type = d.take_type();
  i.other_type = d.take_type();
  if (i.type == Type::f16x2 || i.type == Type::bf16x2) {
    d.expect_operands(3);
    if (i.other_type != Type::f32 || i.saturate) d.unsupported("only from f32, without .sat");
    d.destination(d.operand(0), Type::b32);
    d.source(d.operand(1), Type::f32);
    d.source(d.operand(2), Type::f32);
    d.run(i.type == Type::f16x2 ? convert_pair<Half> : convert_pair<Bfloat>);
    return true;
  }
  if (i.other_type == Type::f16x2 || i.other_type == Type::bf16x2 || i.other_type == Type::tf32)
    d.unsupported("this source type");
  if (is_float(i.other_type) && !is_float(i.type) && !integral)
    d.unsupported("float to integer needs a rounding");
  d.expect_operands(2);
  d.destination(d.operand(0), i.type, Decoder::at_least);
  d.source(d.operand(1), i.other_type, Decoder::at_least);
  i.mode = integral ? kToIntegralFloat : kPlain;
  const Handler fast = fast_handler(i);
  d.run(fast ? fast : convert);
  return true;
}

}  // namespace

void add_convert(InstructionSet& set) {
  set.add("cvt", decode_cvt);
}

}  // namespace pyconvx::emulator
