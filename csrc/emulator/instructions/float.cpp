// f32, f64 and packed f32x2 arithmetic. Approximate instructions (ex2.approx, rsqrt.approx ...) give the host
// library's result, which is closer than a chip's: compare them with a tolerance.
#include <cfenv>
#include <cmath>

#include "lane_ops.h"

namespace pyconvx::emulator {

namespace {

constexpr auto add = [](auto a, auto b) { return a + b; };
constexpr auto subtract = [](auto a, auto b) { return a - b; };
constexpr auto multiply = [](auto a, auto b) { return a * b; };
constexpr auto divide = [](auto a, auto b) { return a / b; };
constexpr auto fused = [](auto a, auto b, auto c) { return std::fma(a, b, c); };
constexpr auto minimum = [](auto a, auto b) { return number_min(a, b); };
constexpr auto maximum = [](auto a, auto b) { return number_max(a, b); };
constexpr auto negate = [](auto a) { return -a; };
constexpr auto absolute = [](auto a) { return std::fabs(a); };
constexpr auto copy_sign = [](auto sign, auto a) { return std::copysign(a, sign); };
constexpr auto reciprocal = [](auto a) { return decltype(a)(1) / a; };
constexpr auto square_root = [](auto a) { return std::sqrt(a); };
constexpr auto reciprocal_root = [](auto a) { return 1.0 / std::sqrt(static_cast<double>(a)); };
constexpr auto exp2_of = [](auto a) { return std::exp2(a); };
constexpr auto log2_of = [](auto a) { return std::log2(a); };
constexpr auto sine = [](auto a) { return std::sin(a); };
constexpr auto cosine = [](auto a) { return std::cos(a); };
constexpr auto tanh_of = [](auto a) { return std::tanh(a); };

template <const auto& op>
constexpr auto keeping_nan =
    [](float a, float b) { return a != a || b != b ? bit_cast<float>(0x7fffffffu) : op(a, b); };
template <const auto& op>
constexpr auto flushed =
    [](auto... x) { return flush_subnormal(static_cast<float>(op(flush_subnormal(x)...))); };

// Two f32 in a 64-bit register.
constexpr auto lower = [](uint64_t v) { return bit_cast<float>(static_cast<uint32_t>(v)); };
constexpr auto upper = [](uint64_t v) { return bit_cast<float>(static_cast<uint32_t>(v >> 32)); };
template <const auto& op>
constexpr auto packed = [](auto... x) {
  const float low = op(lower(x)...), high = op(upper(x)...);
  return bit_cast<uint32_t>(low) | static_cast<uint64_t>(bit_cast<uint32_t>(high)) << 32;
};

// add.f32.f16 d, a, c and fma.f32.bf16 d, a, b, c: the factors are halves, the sum is an f32.
template <class Format, const auto& op>
constexpr auto widened_first = [](uint16_t a, float c) { return op(Format::decode(a), c); };
template <class Format>
constexpr auto widened_fused =
    [](uint16_t a, uint16_t b, float c) { return std::fma(Format::decode(a), Format::decode(b), c); };

// Directed roundings and .sat are rare: one slow handler, with the rounding of the host's floating-point
// unit.
enum Operation : uint8_t { kNone, kAdd, kSub, kMul, kFma, kDiv, kReciprocal, kSquareRoot };

class HostRounding {
public:
  explicit HostRounding(Rounding r) {
    std::fesetround(r == Rounding::zero   ? FE_TOWARDZERO
                    : r == Rounding::down ? FE_DOWNWARD
                    : r == Rounding::up   ? FE_UPWARD
                                          : FE_TONEAREST);
  }
  ~HostRounding() { std::fesetround(FE_TONEAREST); }
};

template <class T>
void directed(Warp& w, const Instruction& i, LaneMask active) {
  const HostRounding rounding(i.rounding);
  auto flush = [&](T x) { return i.flush ? static_cast<T>(flush_subnormal(static_cast<float>(x))) : x; };
  auto operand = [&](int k, int l) { return k < i.sources ? flush(w.lanes<T>(i.source[k])[l]) : T(0); };
  for_lanes(active, [&](int l) {
    // volatile: the compiler does not know that the rounding has changed
    volatile T a = operand(0, l), b = operand(1, l), c = operand(2, l), r = 0;
    switch (i.mode) {
    case kAdd:
      r = a + b;
      break;
    case kSub:
      r = a - b;
      break;
    case kMul:
      r = a * b;
      break;
    case kFma:
      r = std::fma(static_cast<T>(a), static_cast<T>(b), static_cast<T>(c));
      break;
    case kDiv:
      r = a / b;
      break;
    case kReciprocal:
      r = T(1) / a;
      break;
    case kSquareRoot:
      r = std::sqrt(static_cast<T>(a));
      break;
    }
    T result = flush(r);
    if (i.saturate) result = result != result || result < 0 ? T(0) : result > 1 ? T(1) : result;
    w.lanes<T>(i.destination[0])[l] = result;
  });
}

bool is_mine(Type t) {
  return t == Type::f32 || t == Type::f64 || t == Type::f32x2;
}

// Modifiers common to all: rounding, .ftz, .sat, .approx, .full.
Type decode_common(Decoder& d) {
  Instruction& i = d.out();
  i.rounding = d.take_rounding();
  d.take("approx");
  d.take("full");
  i.flush = d.take("ftz");
  i.saturate = d.take("sat");
  return d.take_type();
}

bool is_plain(const Instruction& i) {
  return i.rounding == Rounding::nearest_even && !i.saturate;
}

// The type of the halves if this is such a mixture.
Type take_half(Decoder& d, Type result) {
  const Type half = d.next_type();
  if (result != Type::f32 || (half != Type::f16 && half != Type::bf16)) return Type::none;
  if (!is_plain(d.out()) || d.out().flush) d.unsupported("only .rn for f32 and halves together");
  return d.take_type();
}

template <const auto& op, Operation slow>
bool decode2(Decoder& d) {
  if (!is_mine(d.next_type())) return false;
  Instruction& i = d.out();
  const Type t = decode_common(d);
  if (const Type half = take_half(d, t); half != Type::none) {
    d.expect_operands(3);
    d.destination(d.operand(0), t);
    d.source(d.operand(1), half);
    d.source(d.operand(2), t);
    d.run(half == Type::f16 ? lanes2<float, uint16_t, float, widened_first<Half, op>>
                            : lanes2<float, uint16_t, float, widened_first<Bfloat, op>>);
    return true;
  }
  d.values(1, 2, t);
  i.mode = slow;
  if (t == Type::f32x2) {
    if (!is_plain(i)) d.unsupported("only .rn for f32x2");
    d.run(i.flush ? binary<uint64_t, packed<flushed<op>>> : binary<uint64_t, packed<op>>);
  } else if (!is_plain(i)) {
    d.run(t == Type::f32 ? directed<float> : directed<double>);
  } else if (t == Type::f64) {
    d.run(binary<double, op>);
  } else {
    d.run(i.flush ? binary<float, flushed<op>> : binary<float, op>);
  }
  return true;
}

bool decode_fma(Decoder& d) {
  if (!is_mine(d.next_type())) return false;
  Instruction& i = d.out();
  const Type t = decode_common(d);
  if (const Type half = take_half(d, t); half != Type::none) {
    d.expect_operands(4);
    d.destination(d.operand(0), t);
    d.source(d.operand(1), half);
    d.source(d.operand(2), half);
    d.source(d.operand(3), t);
    d.run(half == Type::f16 ? lanes3<float, uint16_t, uint16_t, float, widened_fused<Half>>
                            : lanes3<float, uint16_t, uint16_t, float, widened_fused<Bfloat>>);
    return true;
  }
  d.values(1, 3, t);
  i.mode = kFma;
  if (t == Type::f32x2) {
    if (!is_plain(i)) d.unsupported("only .rn for f32x2");
    d.run(i.flush ? ternary<uint64_t, packed<flushed<fused>>> : ternary<uint64_t, packed<fused>>);
  } else if (!is_plain(i)) {
    d.run(t == Type::f32 ? directed<float> : directed<double>);
  } else if (t == Type::f64) {
    d.run(ternary<double, fused>);
  } else {
    d.run(i.flush ? ternary<float, flushed<fused>> : ternary<float, fused>);
  }
  return true;
}

template <const auto& op, Operation slow = kNone>
bool decode1(Decoder& d) {
  const Type next = d.next_type();
  if (next != Type::f32 && next != Type::f64) return false;
  Instruction& i = d.out();
  const Type t = decode_common(d);
  d.values(1, 1, t);
  i.mode = slow;
  if (!is_plain(i))
    d.run(slow == kNone ? nullptr : t == Type::f32 ? directed<float> : directed<double>);
  else if (t == Type::f64)
    d.run(unary<double, op>);
  else
    d.run(i.flush ? unary<float, flushed<op>> : unary<float, op>);
  return true;
}

template <const auto& op>
constexpr auto of_three = [](auto a, auto b, auto c) { return op(op(a, b), c); };

template <const auto& op>
bool decode_min_max(Decoder& d) {
  const Type next = d.next_type();
  if (next != Type::f32 && next != Type::f64) return false;
  const bool flush = d.take("ftz"), nan = d.take("NaN");
  const Type t = d.take_type();
  if (d.operand_count() == 4) {  // f32 from sm_100 on
    d.values(1, 3, t);
    if (t != Type::f32 || flush) d.unsupported("three operands of this form");
    d.run(nan ? ternary<float, of_three<keeping_nan<op>>> : ternary<float, of_three<op>>);
    return true;
  }
  d.values(1, 2, t);
  if (t == Type::f64)
    d.run(nan || flush ? nullptr : binary<double, op>);
  else if (nan)
    d.run(flush ? binary<float, flushed<keeping_nan<op>>> : binary<float, keeping_nan<op>>);
  else
    d.run(flush ? binary<float, flushed<op>> : binary<float, op>);
  return true;
}

bool decode_copysign(Decoder& d) {
  const Type t = d.take_type();
  if (t != Type::f32 && t != Type::f64) return false;
  d.values(1, 2, t);
  d.run(t == Type::f32 ? binary<float, copy_sign> : binary<double, copy_sign>);
  return true;
}

// Which numbers are finite, infinite, NaN ...: a predicate.
enum Class : uint8_t { kFinite, kInfinite, kNumber, kNotANumber, kNormal, kSubnormal };
template <class T>
void test_class(Warp& w, const Instruction& i, LaneMask active) {
  const T* a = w.lanes<T>(i.source[0]);
  LaneMask result = 0;
  for_lanes(active, [&](int l) {
    const int c = std::fpclassify(a[l]);
    const bool yes = i.mode == kFinite       ? c != FP_INFINITE && c != FP_NAN
                     : i.mode == kInfinite   ? c == FP_INFINITE
                     : i.mode == kNumber     ? c != FP_NAN
                     : i.mode == kNotANumber ? c == FP_NAN
                     : i.mode == kNormal     ? c == FP_NORMAL
                                             : c == FP_SUBNORMAL;
    result |= static_cast<LaneMask>(yes) << l;
  });
  w.set_predicate(i.destination[0], active, result);
}
bool decode_testp(Decoder& d) {
  d.out().mode = d.take("finite")       ? kFinite
                 : d.take("infinite")   ? kInfinite
                 : d.take("number")     ? kNumber
                 : d.take("notanumber") ? kNotANumber
                 : d.take("normal")     ? kNormal
                                        : kSubnormal;
  d.take("subnormal");
  const Type t = d.take_type();
  d.expect_operands(2);
  d.destination_predicate(d.operand(0));
  d.source(d.operand(1), t);
  d.run(t == Type::f32 ? test_class<float> : t == Type::f64 ? test_class<double> : nullptr);
  return true;
}

}  // namespace

void add_float(InstructionSet& set) {
  set.add("add", decode2<add, kAdd>);
  set.add("sub", decode2<subtract, kSub>);
  set.add("mul", decode2<multiply, kMul>);
  set.add("div", decode2<divide, kDiv>);
  set.add("fma", decode_fma);
  set.add("mad", decode_fma);
  set.add("min", decode_min_max<minimum>);
  set.add("max", decode_min_max<maximum>);
  set.add("neg", decode1<negate>);
  set.add("abs", decode1<absolute>);
  set.add("copysign", decode_copysign);
  set.add("testp", decode_testp);
  set.add("rcp", decode1<reciprocal, kReciprocal>);
  set.add("sqrt", decode1<square_root, kSquareRoot>);
  set.add("rsqrt", decode1<reciprocal_root>);
  set.add("ex2", decode1<exp2_of>);
  set.add("lg2", decode1<log2_of>);
  set.add("sin", decode1<sine>);
  set.add("cos", decode1<cosine>);
  set.add("tanh", decode1<tanh_of>);
}

}  // namespace pyconvx::emulator
