// setp, set, selp, slct: comparisons that give predicates or numbers, and choices.
#include <cmath>
#include <map>
#include <string>

#include "lane_ops.h"

namespace pyconvx::emulator {

namespace {

// Ordered comparisons are false for NaN, the ...u forms true.
constexpr auto equal = [](auto a, auto b) { return a == b; };
constexpr auto not_equal = [](auto a, auto b) { return a == a && b == b && a != b; };
constexpr auto less = [](auto a, auto b) { return a < b; };
constexpr auto less_equal = [](auto a, auto b) { return a <= b; };
constexpr auto greater = [](auto a, auto b) { return a > b; };
constexpr auto greater_equal = [](auto a, auto b) { return a >= b; };
constexpr auto numbers = [](auto a, auto b) { return a == a && b == b; };
constexpr auto never = [](auto, auto) { return false; };
template <const auto& op>
constexpr auto or_unordered = [](auto a, auto b) { return a != a || b != b || op(a, b); };

// How an element in a register becomes a number to compare.
template <class T>
struct AsIs {
  using Element = T;
  static T value(T x) { return x; }
};
struct FlushedSingle {
  using Element = float;
  static float value(float x) { return flush_subnormal(x); }
};
template <class Format>
struct HalfValue {
  using Element = uint16_t;
  static float value(uint16_t x) { return Format::decode(x); }
};

template <const auto& op, class View>
LaneMask compare(Warp& w, const Instruction& i, LaneMask active) {
  using T = typename View::Element;
  const T *a = w.lanes<T>(i.source[0]), *b = w.lanes<T>(i.source[1]);
  LaneMask result = 0;
  for_lanes(active,
            [&](int l) { result |= static_cast<LaneMask>(op(View::value(a[l]), View::value(b[l]))) << l; });
  return result;
}

// Element `part` of pairs of halves.
template <const auto& op, class Format>
LaneMask compare_part(Warp& w, const Instruction& i, LaneMask active, int part) {
  const uint32_t *a = w.lanes<uint32_t>(i.source[0]), *b = w.lanes<uint32_t>(i.source[1]);
  LaneMask result = 0;
  for_lanes(active, [&](int l) {
    const float x = Format::decode(static_cast<uint16_t>(a[l] >> 16 * part)),
                y = Format::decode(static_cast<uint16_t>(b[l] >> 16 * part));
    result |= static_cast<LaneMask>(op(x, y)) << l;
  });
  return result;
}

enum Combine : uint8_t { kAlone, kAnd, kOr, kXor };  // with a third, predicate source

LaneMask combined(Warp& w, const Instruction& i, LaneMask result) {
  if (i.mode == kAlone) return result;
  const LaneMask other = w.source_predicate(i, 2);
  return i.mode == kAnd ? result & other : i.mode == kOr ? result | other : result ^ other;
}

template <const auto& op, class View>
void setp(Warp& w, const Instruction& i, LaneMask active) {
  const LaneMask result = compare<op, View>(w, i, active);
  w.set_predicate(i.destination[0], active, combined(w, i, result));
  if (i.destinations > 1) w.set_predicate(i.destination[1], active, combined(w, i, ~result));
}

// setp.f16x2 p|q: p is about the lower halves, q about the upper.
template <const auto& op, class Format>
void setp_pair(Warp& w, const Instruction& i, LaneMask active) {
  for (int part = 0; part < i.destinations; ++part) {
    w.set_predicate(i.destination[part], active,
                    combined(w, i, compare_part<op, Format>(w, i, active, part)));
  }
}

uint32_t truth(Type type) {
  switch (type) {
  case Type::f32:
    return 0x3f800000;
  case Type::f16:
  case Type::f16x2:
    return 0x3c00;
  case Type::bf16:
  case Type::bf16x2:
    return 0x3f80;
  case Type::u16:
  case Type::s16:
    return 0xffff;
  default:
    return 0xffffffff;
  }
}

template <const auto& op, class View>
void set(Warp& w, const Instruction& i, LaneMask active) {
  const LaneMask result = combined(w, i, compare<op, View>(w, i, active));
  for_lanes(active, [&](int l) {
    w.put(i.destination[0], i.destination_size[0], l, result >> l & 1 ? truth(i.type) : 0);
  });
}

template <const auto& op, class Format>
void set_pair(Warp& w, const Instruction& i, LaneMask active) {
  const LaneMask lo = compare_part<op, Format>(w, i, active, 0),
                 hi = compare_part<op, Format>(w, i, active, 1);
  const uint32_t yes = truth(i.type) & 0xffff;
  for_lanes(active, [&](int l) {
    w.lanes<uint32_t>(i.destination[0])[l] = (lo >> l & 1 ? yes : 0) | (hi >> l & 1 ? yes << 16 : 0);
  });
}

struct MakeSetp {
  template <const auto& op, class View>
  static Handler one() {
    return setp<op, View>;
  }
  template <const auto& op, class Format>
  static Handler pair() {
    return setp_pair<op, Format>;
  }
};
struct MakeSet {
  template <const auto& op, class View>
  static Handler one() {
    return set<op, View>;
  }
  template <const auto& op, class Format>
  static Handler pair() {
    return set_pair<op, Format>;
  }
};

template <class Make, const auto& op>
Handler for_type(Type type, bool flush) {
  switch (type) {
  case Type::b16:
  case Type::u16:
    return Make::template one<op, AsIs<uint16_t>>();
  case Type::s16:
    return Make::template one<op, AsIs<int16_t>>();
  case Type::b32:
  case Type::u32:
    return Make::template one<op, AsIs<uint32_t>>();
  case Type::s32:
    return Make::template one<op, AsIs<int32_t>>();
  case Type::b64:
  case Type::u64:
    return Make::template one<op, AsIs<uint64_t>>();
  case Type::s64:
    return Make::template one<op, AsIs<int64_t>>();
  case Type::f32:
    return flush ? Make::template one<op, FlushedSingle>() : Make::template one<op, AsIs<float>>();
  case Type::f64:
    return Make::template one<op, AsIs<double>>();
  case Type::f16:
    return Make::template one<op, HalfValue<Half>>();
  case Type::bf16:
    return Make::template one<op, HalfValue<Bfloat>>();
  case Type::f16x2:
    return Make::template pair<op, Half>();
  case Type::bf16x2:
    return Make::template pair<op, Bfloat>();
  default:
    return nullptr;
  }
}

template <class Make>
Handler comparison(const std::string& name, Type type, bool flush) {
  using Chooser = Handler (*)(Type, bool);
  static const std::map<std::string, Chooser> known = {
      {"eq", for_type<Make, equal>},
      {"ne", for_type<Make, not_equal>},
      {"lt", for_type<Make, less>},
      {"le", for_type<Make, less_equal>},
      {"gt", for_type<Make, greater>},
      {"ge", for_type<Make, greater_equal>},
      {"lo", for_type<Make, less>},
      {"ls", for_type<Make, less_equal>},
      {"hi", for_type<Make, greater>},
      {"hs", for_type<Make, greater_equal>},
      {"equ", for_type<Make, or_unordered<equal>>},
      {"neu", for_type<Make, or_unordered<not_equal>>},
      {"ltu", for_type<Make, or_unordered<less>>},
      {"leu", for_type<Make, or_unordered<less_equal>>},
      {"gtu", for_type<Make, or_unordered<greater>>},
      {"geu", for_type<Make, or_unordered<greater_equal>>},
      {"num", for_type<Make, numbers>},
      {"nan", for_type<Make, or_unordered<never>>},
  };
  auto found = known.find(name);
  return found == known.end() ? nullptr : found->second(type, flush);
}

Combine take_combine(Decoder& d) {
  return d.take("and") ? kAnd : d.take("or") ? kOr : d.take("xor") ? kXor : kAlone;
}

std::string take_comparison(Decoder& d) {
  if (d.words().size() < 2) d.unsupported("a comparison is missing");
  const std::string name = d.words()[1];
  d.take(name);
  return name;
}

bool decode_setp(Decoder& d) {
  Instruction& i = d.out();
  const std::string name = take_comparison(d);
  i.mode = take_combine(d);
  const bool flush = d.take("ftz");
  const Type t = d.take_type();
  d.expect_operands(i.mode == kAlone ? 3 : 4);
  d.destination_predicate(d.operand(0));
  if (!d.operand(0).second.empty()) {
    Operand second = d.operand(0);
    second.text = second.second;
    d.destination_predicate(second);
  }
  d.source(d.operand(1), t);
  d.source(d.operand(2), t);
  if (i.mode != kAlone) d.source_predicate(d.operand(3));
  d.run(comparison<MakeSetp>(name, t, flush));
  return true;
}

bool decode_set(Decoder& d) {
  Instruction& i = d.out();
  const std::string name = take_comparison(d);
  i.mode = take_combine(d);
  const bool flush = d.take("ftz");
  i.type = d.take_type();
  const Type t = d.take_type();
  d.expect_operands(i.mode == kAlone ? 3 : 4);
  d.destination(d.operand(0), i.type);
  d.source(d.operand(1), t);
  d.source(d.operand(2), t);
  if (i.mode != kAlone) d.source_predicate(d.operand(3));
  d.run(comparison<MakeSet>(name, t, flush));
  return true;
}

// What is not chosen may be undefined.
void choose_defined(Warp& w, const Instruction& i, LaneMask active, LaneMask first) {
  const LaneMask chosen = (first & w.defined(i.source[0])) | (~first & w.defined(i.source[1]));
  const LaneMask defined = chosen & w.defined(i.source[2]);
  LaneMask& result = w.defined(i.destination[0]);
  result = (result & ~active) | (defined & active);
}

template <class T>
void selp(Warp& w, const Instruction& i, LaneMask active) {
  const LaneMask p = w.source_predicate(i, 2);
  choose_defined(w, i, active, p);
  T* d = w.lanes<T>(i.destination[0]);
  const T *a = w.lanes<T>(i.source[0]), *b = w.lanes<T>(i.source[1]);
  for_lanes(active, [&](int l) { d[l] = p >> l & 1 ? a[l] : b[l]; });
}

bool decode_selp(Decoder& d) {
  const Type t = d.take_type();
  d.expect_operands(4);
  d.destination(d.operand(0), t);
  d.source(d.operand(1), t);
  d.source(d.operand(2), t);
  d.source_predicate(d.operand(3));
  d.out().defined = Defined::by_handler;
  const uint32_t bytes = bytes_of(t);
  d.run(bytes == 2 ? selp<uint16_t> : bytes == 4 ? selp<uint32_t> : bytes == 8 ? selp<uint64_t> : nullptr);
  return true;
}

template <class T, class C>
void slct(Warp& w, const Instruction& i, LaneMask active) {
  T* d = w.lanes<T>(i.destination[0]);
  const T *a = w.lanes<T>(i.source[0]), *b = w.lanes<T>(i.source[1]);
  const C* c = w.lanes<C>(i.source[2]);
  for_lanes(active, [&](int l) { d[l] = c[l] >= 0 ? a[l] : b[l]; });
}

bool decode_slct(Decoder& d) {
  d.take("ftz");  // a subnormal compares with zero as zero does, but for its sign
  const Type t = d.take_type(), c = d.take_type();
  d.expect_operands(4);
  d.destination(d.operand(0), t);
  d.source(d.operand(1), t);
  d.source(d.operand(2), t);
  d.source(d.operand(3), c);
  const uint32_t bytes = bytes_of(t);
  if (c == Type::f32)
    d.run(bytes == 4 ? slct<uint32_t, float> : bytes == 8 ? slct<uint64_t, float> : nullptr);
  else
    d.run(bytes == 4 ? slct<uint32_t, int32_t> : bytes == 8 ? slct<uint64_t, int32_t> : nullptr);
  return true;
}

}  // namespace

void add_compare_select(InstructionSet& set) {
  set.add("setp", decode_setp);
  set.add("set", decode_set);
  set.add("selp", decode_selp);
  set.add("slct", decode_slct);
}

}  // namespace pyconvx::emulator
