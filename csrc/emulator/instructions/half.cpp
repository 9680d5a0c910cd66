// f16 and bf16 arithmetic, one number or two in a register. Operands widen to f32, where sums and products
// are exact enough that rounding the f32 result once more gives the right half; fma needs a wider sum.
#include <cmath>

#include "lane_ops.h"

namespace pyconvx::emulator {

namespace {

constexpr auto add = [](float a, float b) { return a + b; };
constexpr auto subtract = [](float a, float b) { return a - b; };
constexpr auto multiply = [](float a, float b) { return a * b; };
constexpr auto minimum = [](float a, float b) { return number_min(a, b); };
constexpr auto maximum = [](float a, float b) { return number_max(a, b); };
constexpr auto exp2_of = [](float a) { return std::exp2(a); };
constexpr auto tanh_of = [](float a) { return std::tanh(a); };
template <const auto& op>
constexpr auto keeping_nan = [](float a, float b) { return a != a || b != b ? NAN : op(a, b); };

// What .sat and .relu do to a result.
enum Finish : uint8_t { kAsIs, kSaturate, kRelu };
template <class Format, Finish how>
uint16_t finish(uint16_t result) {
  if (how == kAsIs) return result;
  const float value = Format::decode(result);
  if (how == kRelu) return value != value ? 0x7fff : value <= 0 ? 0 : result;
  return value != value || value <= 0 ? 0 : value > 1 ? Format::one : result;
}

template <class Format, const auto& op, Finish how = kAsIs>
constexpr auto as_floats =
    [](auto... x) { return finish<Format, how>(Format::encode(op(Format::decode(x)...))); };

// The product is exact in double; the sum is made odd so that rounding it to a half is the only rounding.
template <class Format, Finish how>
constexpr auto fused = [](uint16_t a, uint16_t b, uint16_t c) {
  const double product = static_cast<double>(Format::decode(a)) * Format::decode(b);
  const double sum = add_to_odd(product, Format::decode(c));
  return finish<Format, how>(static_cast<uint16_t>(encode(sum, Format::format)));
};
constexpr auto negate = [](uint16_t a) { return static_cast<uint16_t>(a ^ 0x8000); };
constexpr auto absolute = [](uint16_t a) { return static_cast<uint16_t>(a & 0x7fff); };

// Two halves in a register.
template <const auto& op>
constexpr auto both = [](auto... x) {
  return op(static_cast<uint16_t>(x)...) | static_cast<uint32_t>(op(static_cast<uint16_t>(x >> 16)...)) << 16;
};

bool is_half(Type t) {
  return t == Type::f16 || t == Type::bf16 || t == Type::f16x2 || t == Type::bf16x2;
}

template <const auto& op>
Handler handler1(bool pair) {
  return pair ? unary<uint32_t, both<op>> : unary<uint16_t, op>;
}
template <const auto& op>
Handler handler2(bool pair) {
  return pair ? binary<uint32_t, both<op>> : binary<uint16_t, op>;
}
template <const auto& op>
Handler handler3(bool pair) {
  return pair ? ternary<uint32_t, both<op>> : ternary<uint16_t, op>;
}

template <class Format, const auto& op>
Handler binary_handler(bool pair, Finish how) {
  switch (how) {
  case kAsIs:
    return handler2<as_floats<Format, op, kAsIs>>(pair);
  case kSaturate:
    return handler2<as_floats<Format, op, kSaturate>>(pair);
  default:
    return handler2<as_floats<Format, op, kRelu>>(pair);
  }
}
template <class Format>
Handler fma_handler(bool pair, Finish how) {
  switch (how) {
  case kAsIs:
    return handler3<fused<Format, kAsIs>>(pair);
  case kSaturate:
    return handler3<fused<Format, kSaturate>>(pair);
  default:
    return handler3<fused<Format, kRelu>>(pair);
  }
}

struct Form {
  Type type;
  bool pair, bfloat;
  Finish finish;
};
Form decode_form(Decoder& d) {
  if (d.take_rounding() != Rounding::nearest_even) d.unsupported("only .rn for halves");
  if (d.take("ftz") && d.mnemonic() != "ex2") d.unsupported(".ftz for halves");  // ex2.bf16 has no other form
  d.take("approx");
  const Finish how = d.take("sat") ? kSaturate : d.take("relu") ? kRelu : kAsIs;
  const Type t = d.take_type();
  return {t, bytes_of(t) == 4, t == Type::bf16 || t == Type::bf16x2, how};
}

template <const auto& op>
bool decode2(Decoder& d) {
  if (!is_half(d.next_type())) return false;
  const Form f = decode_form(d);
  d.values(1, 2, f.type);
  d.run(f.bfloat ? binary_handler<Bfloat, op>(f.pair, f.finish) : binary_handler<Half, op>(f.pair, f.finish));
  return true;
}

template <const auto& op>
bool decode_min_max(Decoder& d) {
  if (!is_half(d.next_type())) return false;
  return d.take("NaN") ? decode2<keeping_nan<op>>(d) : decode2<op>(d);
}

bool decode_fma(Decoder& d) {
  if (!is_half(d.next_type())) return false;
  const Form f = decode_form(d);
  d.values(1, 3, f.type);
  d.run(f.bfloat ? fma_handler<Bfloat>(f.pair, f.finish) : fma_handler<Half>(f.pair, f.finish));
  return true;
}

template <const auto& op>
bool decode_sign(Decoder& d) {
  if (!is_half(d.next_type())) return false;
  const Form f = decode_form(d);
  d.values(1, 1, f.type);
  d.run(handler1<op>(f.pair));
  return true;
}

template <const auto& op>
bool decode1(Decoder& d) {
  if (!is_half(d.next_type())) return false;
  const Form f = decode_form(d);
  d.values(1, 1, f.type);
  d.run(f.bfloat ? handler1<as_floats<Bfloat, op>>(f.pair) : handler1<as_floats<Half, op>>(f.pair));
  return true;
}

}  // namespace

void add_half(InstructionSet& set) {
  set.add("add", decode2<add>);
  set.add("sub", decode2<subtract>);
  set.add("mul", decode2<multiply>);
  set.add("fma", decode_fma);
  set.add("min", decode_min_max<minimum>);
  set.add("max", decode_min_max<maximum>);
  set.add("neg", decode_sign<negate>);
  set.add("abs", decode_sign<absolute>);
  set.add("ex2", decode1<exp2_of>);
  set.add("tanh", decode1<tanh_of>);
}

}  // namespace pyconvx::emulator
