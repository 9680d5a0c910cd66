// Integer arithmetic. Everything wraps modulo 2^n, computed on unsigned numbers because C++ leaves signed
// overflow open.
#include <algorithm>
#include <limits>
#include <type_traits>

#include "lane_ops.h"

namespace pyconvx::emulator {

namespace {

using Wide = unsigned __int128;

// Twice as wide, of the same signedness.
template <class T>
struct Twice;
template <>
struct Twice<uint16_t> {
  using type = uint32_t;
};
template <>
struct Twice<int16_t> {
  using type = int32_t;
};
template <>
struct Twice<uint32_t> {
  using type = uint64_t;
};
template <>
struct Twice<int32_t> {
  using type = int64_t;
};
template <>
struct Twice<uint64_t> {
  using type = unsigned __int128;
};
template <>
struct Twice<int64_t> {
  using type = __int128;
};
template <class T>
using twice = typename Twice<T>::type;

template <class T>
T wrap_add(T a, T b) {
  return static_cast<T>(static_cast<uint64_t>(a) + static_cast<uint64_t>(b));
}
template <class T>
T wrap_sub(T a, T b) {
  return static_cast<T>(static_cast<uint64_t>(a) - static_cast<uint64_t>(b));
}
template <class T>
T low(T a, T b) {
  return static_cast<T>(static_cast<uint64_t>(a) * static_cast<uint64_t>(b));
}
template <class T>
T high(T a, T b) {
  return static_cast<T>(static_cast<twice<T>>(a) * b >> 8 * sizeof(T));
}

constexpr auto add = [](auto a, auto b) { return wrap_add(a, b); };
constexpr auto subtract = [](auto a, auto b) { return wrap_sub(a, b); };
constexpr auto multiply_low = [](auto a, auto b) { return low(a, b); };
constexpr auto multiply_high = [](auto a, auto b) { return high(a, b); };
constexpr auto mad_low = [](auto a, auto b, auto c) { return wrap_add(low(a, b), c); };
constexpr auto mad_high = [](auto a, auto b, auto c) { return wrap_add(high(a, b), c); };
constexpr auto minimum = [](auto a, auto b) { return std::min(a, b); };
constexpr auto maximum = [](auto a, auto b) { return std::max(a, b); };
constexpr auto negate = [](auto a) { return wrap_sub(decltype(a)(0), a); };
constexpr auto absolute = [](auto a) { return a < 0 ? negate(a) : a; };
constexpr auto absolute_difference = [](auto a, auto b, auto c) {
  return wrap_add(a > b ? wrap_sub(a, b) : wrap_sub(b, a), c);
};

// Division by zero is left open by PTX; chips return all ones. The lowest number over -1 overflows in C++.
constexpr auto divide = [](auto a, auto b) {
  using T = decltype(a);
  if (b == 0) return static_cast<T>(~T(0));
  return std::is_signed_v<T> && b == T(-1) ? negate(a) : static_cast<T>(a / b);
};
constexpr auto remainder_of = [](auto a, auto b) {
  using T = decltype(a);
  if (b == 0) return a;
  return std::is_signed_v<T> && b == T(-1) ? T(0) : static_cast<T>(a % b);
};

constexpr auto add_saturated = [](int32_t a, int32_t b) {
  return std::clamp<int64_t>(int64_t(a) + b, INT32_MIN, INT32_MAX);
};
constexpr auto subtract_saturated = [](int32_t a, int32_t b) {
  return std::clamp<int64_t>(int64_t(a) - b, INT32_MIN, INT32_MAX);
};

// Two 16-bit numbers in a register.
template <class T, const auto& op>
constexpr auto pair_of = [](uint32_t a, uint32_t b) {
  const auto low_half = static_cast<uint16_t>(op(static_cast<T>(a), static_cast<T>(b)));
  const auto high_half = static_cast<uint16_t>(op(static_cast<T>(a >> 16), static_cast<T>(b >> 16)));
  return low_half | static_cast<uint32_t>(high_half) << 16;
};

constexpr auto multiply_wide = [](auto a, auto b) { return static_cast<twice<decltype(a)>>(a) * b; };
constexpr auto mad_wide = [](auto a, auto b, auto c) {
  return wrap_add(static_cast<decltype(c)>(static_cast<decltype(c)>(a) * b), c);
};

// 24-bit products: the operands' upper eight bits do not count.
constexpr auto multiply24 = [](auto a, auto b) {
  const auto trim = [](auto x) -> int64_t {
    if (std::is_signed_v<decltype(x)>) return static_cast<int32_t>(static_cast<uint32_t>(x) << 8) >> 8;
    return x & 0xffffff;
  };
  return static_cast<decltype(a)>(trim(a) * trim(b));
};
constexpr auto mad24 = [](auto a, auto b, auto c) { return wrap_add(multiply24(a, b), c); };

// Dot products of bytes, added to a 32-bit number.
template <class A, class B>
constexpr auto dot_bytes = [](uint32_t a, uint32_t b, uint32_t c) {
  for (int k = 0; k < 32; k += 8) c += static_cast<uint32_t>(static_cast<A>(a >> k) * static_cast<B>(b >> k));
  return c;
};

// add.cc, addc and their like: the carry is one bit a lane.
enum CarryMode : uint8_t { kSubtract = 1, kCarryIn = 2, kCarryOut = 4, kMultiply = 8, kHighPart = 16 };

template <class T>
void carry_arithmetic(Warp& w, const Instruction& i, LaneMask active) {
  T* d = w.lanes<T>(i.destination[0]);
  const T *a = w.lanes<T>(i.source[0]), *b = w.lanes<T>(i.source[1]);
  const T* c = i.mode & kMultiply ? w.lanes<T>(i.source[2]) : nullptr;
  LaneMask out = 0;
  for_lanes(active, [&](int l) {
    const Wide carry = i.mode & kCarryIn ? w.carry >> l & 1 : 0;
    Wide x = a[l], y = b[l];
    if (c) {
      x = static_cast<Wide>(a[l]) * b[l];
      x = i.mode & kHighPart ? x >> 8 * sizeof(T) : static_cast<Wide>(static_cast<T>(x));
      y = c[l];
    }
    const Wide sum = i.mode & kSubtract ? x - y - carry : x + y + carry;
    d[l] = static_cast<T>(sum);
    out |= static_cast<LaneMask>(sum >> 8 * sizeof(T) & 1) << l;
  });
  if (i.mode & kCarryOut) w.carry = (w.carry & ~active) | out;
}

bool decode_carry(Decoder& d, uint8_t mode) {
  if (d.take("cc")) mode |= kCarryOut;
  if (mode & kMultiply) {
    if (d.take("hi"))
      mode |= kHighPart;
    else
      d.take("lo");
  }
  const Type t = d.take_type();
  if ((mode & kHighPart) && is_signed(t)) d.unsupported("signed high product with carry");
  d.values(1, mode & kMultiply ? 3 : 2, t);
  d.out().mode = mode;
  d.run(bytes_of(t) == 4   ? carry_arithmetic<uint32_t>
        : bytes_of(t) == 8 ? carry_arithmetic<uint64_t>
                           : nullptr);
  return true;
}

bool decode_add_sub(Decoder& d) {
  if (is_float(d.next_type())) return false;
  const bool adds = d.mnemonic() == "add";
  if (d.has("cc")) return decode_carry(d, adds ? 0 : kSubtract);
  if (d.take("u16x2") || d.take("s16x2")) {
    d.values(1, 2, Type::b32);
    d.run(adds ? binary<uint32_t, pair_of<uint16_t, add>> : binary<uint32_t, pair_of<uint16_t, subtract>>);
    return true;
  }
  const bool saturated = d.take("sat");
  const Type t = d.take_type();
  d.values(1, 2, t);
  if (!saturated)
    d.run(adds ? integer_binary<add>(t) : integer_binary<subtract>(t));
  else if (t != Type::s32)
    d.unsupported(".sat for this type");
  else
    d.run(adds ? binary<int32_t, add_saturated> : binary<int32_t, subtract_saturated>);
  return true;
}

// mul.wide and mad.wide give twice as many bits as they take.
Type wide_type(Decoder& d, Type t) {
  if (bytes_of(t) == 2) return Type::b32;
  if (bytes_of(t) == 4) return Type::b64;
  d.unsupported("a wide product of this type");
}

bool decode_mul(Decoder& d) {
  if (is_float(d.next_type())) return false;
  const bool wide = d.take("wide"), hi = d.take("hi");
  d.take("lo");
  const Type t = d.take_type();
  if (!wide) {
    d.values(1, 2, t);
    d.run(hi ? integer_binary<multiply_high>(t) : integer_binary<multiply_low>(t));
    return true;
  }
  d.expect_operands(3);
  d.destination(d.operand(0), wide_type(d, t));
  d.source(d.operand(1), t);
  d.source(d.operand(2), t);
  d.run(for_integer(t, [](auto x) {
    using T = decltype(x);
    return Handler{lanes2<twice<T>, T, T, multiply_wide>};
  }));
  return true;
}

bool decode_mad(Decoder& d) {
  if (is_float(d.next_type())) return false;
  if (d.has("cc")) return decode_carry(d, kMultiply);
  const bool wide = d.take("wide"), hi = d.take("hi");
  d.take("lo");
  const Type t = d.take_type();
  if (!wide) {
    d.values(1, 3, t);
    d.run(hi ? integer_ternary<mad_high>(t) : integer_ternary<mad_low>(t));
    return true;
  }
  d.expect_operands(4);
  d.destination(d.operand(0), wide_type(d, t));
  d.source(d.operand(1), t);
  d.source(d.operand(2), t);
  d.source(d.operand(3), wide_type(d, t));
  d.run(for_integer(t, [](auto x) {
    using T = decltype(x);
    return Handler{lanes3<twice<T>, T, T, twice<T>, mad_wide>};
  }));
  return true;
}

bool decode_mul24(Decoder& d) {
  const bool mad = d.mnemonic() == "mad24";
  if (!d.take("lo")) d.unsupported("only the low part");
  const Type t = d.take_type();
  if (t != Type::u32 && t != Type::s32) d.unsupported("only for u32 and s32");
  d.values(1, mad ? 3 : 2, t);
  d.run(mad ? integer_ternary<mad24>(t) : integer_binary<multiply24>(t));
  return true;
}

bool decode_min_max(Decoder& d) {
  if (is_float(d.next_type())) return false;
  const bool min = d.mnemonic() == "min";
  const bool signed_pair = d.take("s16x2");
  if (signed_pair || d.take("u16x2")) {
    d.values(1, 2, Type::b32);
    if (signed_pair)
      d.run(min ? binary<uint32_t, pair_of<int16_t, minimum>> : binary<uint32_t, pair_of<int16_t, maximum>>);
    else
      d.run(min ? binary<uint32_t, pair_of<uint16_t, minimum>>
                : binary<uint32_t, pair_of<uint16_t, maximum>>);
    return true;
  }
  const Type t = d.take_type();
  d.values(1, 2, t);
  d.run(min ? integer_binary<minimum>(t) : integer_binary<maximum>(t));
  return true;
}

template <const auto& op>
bool decode_unary(Decoder& d) {
  if (is_float(d.next_type())) return false;
  const Type t = d.take_type();
  d.values(1, 1, t);
  d.run(integer_unary<op>(t));
  return true;
}
template <const auto& op>
bool decode_binary(Decoder& d) {
  if (is_float(d.next_type())) return false;
  const Type t = d.take_type();
  d.values(1, 2, t);
  d.run(integer_binary<op>(t));
  return true;
}
bool decode_sad(Decoder& d) {
  const Type t = d.take_type();
  d.values(1, 3, t);
  d.run(integer_ternary<absolute_difference>(t));
  return true;
}

// The two types are those of a and of b.
bool decode_dp4a(Decoder& d) {
  const bool a = d.take_type() == Type::s32, b = d.take_type() == Type::s32;
  d.values(1, 3, Type::b32);
  if (a)
    d.run(b ? ternary<uint32_t, dot_bytes<int8_t, int8_t>> : ternary<uint32_t, dot_bytes<int8_t, uint8_t>>);
  else
    d.run(b ? ternary<uint32_t, dot_bytes<uint8_t, int8_t>> : ternary<uint32_t, dot_bytes<uint8_t, uint8_t>>);
  return true;
}

}  // namespace

void add_integer(InstructionSet& set) {
  set.add("add", decode_add_sub);
  set.add("sub", decode_add_sub);
  set.add("addc", [](Decoder& d) { return decode_carry(d, kCarryIn); });
  set.add("subc", [](Decoder& d) { return decode_carry(d, kCarryIn | kSubtract); });
  set.add("madc", [](Decoder& d) { return decode_carry(d, kCarryIn | kMultiply); });
  set.add("mul", decode_mul);
  set.add("mad", decode_mad);
  set.add("mul24", decode_mul24);
  set.add("mad24", decode_mul24);
  set.add("div", decode_binary<divide>);
  set.add("rem", decode_binary<remainder_of>);
  set.add("min", decode_min_max);
  set.add("max", decode_min_max);
  set.add("neg", decode_unary<negate>);
  set.add("abs", decode_unary<absolute>);
  set.add("sad", decode_sad);
  set.add("dp4a", decode_dp4a);
}

}  // namespace pyconvx::emulator
