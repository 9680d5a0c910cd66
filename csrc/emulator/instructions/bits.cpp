// Logic, shifts and bit fields; the same operations on predicates.
#include <algorithm>
#include <type_traits>

#include "lane_ops.h"

namespace pyconvx::emulator {

namespace {

template <class T>
constexpr uint32_t bits = 8 * sizeof(T);

constexpr auto bit_and = [](auto a, auto b) { return a & b; };
constexpr auto bit_or = [](auto a, auto b) { return a | b; };
constexpr auto bit_xor = [](auto a, auto b) { return a ^ b; };
constexpr auto bit_not = [](auto a) { return ~a; };
constexpr auto is_zero = [](auto a) { return a == 0; };

// Amounts beyond the width shift everything out.
constexpr auto shift_left = [](auto a, uint32_t n) {
  return n >= bits<decltype(a)> ? 0 : static_cast<uint64_t>(a) << n;
};
constexpr auto shift_right = [](auto a, uint32_t n) {
  using T = decltype(a);
  return static_cast<T>(n >= bits<T> ? (a < 0 ? T(-1) : T(0)) : a >> n);
};

// Funnel shifts: 32 bits out of the 64 of {b, a}.
constexpr auto funnel_left = [](uint32_t a, uint32_t b, uint32_t n) {
  return (static_cast<uint64_t>(b) << 32 | a) << n >> 32;
};
constexpr auto funnel_right = [](uint32_t a, uint32_t b, uint32_t n) {
  return (static_cast<uint64_t>(b) << 32 | a) >> n;
};
template <const auto& shift>
constexpr auto wrapped = [](uint32_t a, uint32_t b, uint32_t c) { return shift(a, b, c & 31); };
template <const auto& shift>
constexpr auto clamped = [](uint32_t a, uint32_t b, uint32_t c) { return shift(a, b, std::min(c, 32u)); };

constexpr auto count_ones = [](auto a) { return __builtin_popcountll(a); };
constexpr auto leading_zeros = [](auto a) {
  using T = decltype(a);
  return a ? __builtin_clzll(a) - (64 - static_cast<int>(bits<T>)) : static_cast<int>(bits<T>);
};
constexpr auto reverse = [](auto a) {
  using T = decltype(a);
  T r = 0;
  for (uint32_t k = 0; k < bits<T>; ++k) r |= static_cast<T>(a >> k & 1) << (bits<T> - 1 - k);
  return r;
};
// Position of the most significant bit that differs from the sign, and the shift that brings it to the top.
constexpr auto find_top = [](auto a) {
  const auto v = static_cast<std::make_unsigned_t<decltype(a)>>(a < 0 ? ~a : a);
  return v ? 63u - __builtin_clzll(v) : ~0u;
};
constexpr auto find_top_shift = [](auto a) {
  const uint32_t top = find_top(a);
  return top == ~0u ? top : bits<decltype(a)> - 1 - top;
};
// bfe: a field moved down; above it stands its top bit if the type is signed, zeros if not.
constexpr auto extract = [](auto a, uint32_t position, uint32_t length) {
  using T = decltype(a);
  using U = std::make_unsigned_t<T>;
  const uint32_t p = position & 255, n = length & 255;
  const bool fill = std::is_signed_v<T> && n && (static_cast<U>(a) >> std::min(p + n - 1, bits<T> - 1) & 1);
  U r = fill ? static_cast<U>(~U(0)) : U(0);
  for (uint32_t k = 0; k < std::min(n, bits<T>) && p + k < bits<T>; ++k) {
    r = static_cast<U>((r & ~(U(1) << k)) | (static_cast<U>(a) >> (p + k) & 1) << k);
  }
  return static_cast<T>(r);
};

template <class T>
void insert(Warp& w, const Instruction& i, LaneMask active) {
  T* d = w.lanes<T>(i.destination[0]);
  const T *a = w.lanes<T>(i.source[0]), *b = w.lanes<T>(i.source[1]);
  const uint32_t *position = w.lanes<uint32_t>(i.source[2]), *length = w.lanes<uint32_t>(i.source[3]);
  for_lanes(active, [&](int l) {
    const uint32_t p = position[l] & 255, n = length[l] & 255;
    T mask = n >= bits<T> ? static_cast<T>(~T(0)) : static_cast<T>((T(1) << n) - 1);
    mask = p >= bits<T> ? T(0) : static_cast<T>(mask << p);
    const T field = p >= bits<T> ? T(0) : static_cast<T>(a[l] << p);
    d[l] = (b[l] & ~mask) | (field & mask);
  });
}

// bmsk: `n` ones from bit `p` on.
constexpr auto mask_clamped = [](uint32_t p, uint32_t n) -> uint32_t {
  const uint64_t ones = n >= 32 ? 0xffffffffull : (1ull << n) - 1;
  return p >= 32 ? 0 : static_cast<uint32_t>(ones << p);
};
constexpr auto mask_wrapped = [](uint32_t p, uint32_t n) { return mask_clamped(p & 31, n & 31); };

// Any function of three bits: bit abc of the table is the result for bits a, b, c.
void lop3(Warp& w, const Instruction& i, LaneMask active) {
  uint32_t* d = w.lanes<uint32_t>(i.destination[0]);
  const uint32_t *a = w.lanes<uint32_t>(i.source[0]), *b = w.lanes<uint32_t>(i.source[1]),
                 *c = w.lanes<uint32_t>(i.source[2]);
  const uint32_t table = static_cast<uint32_t>(i.immediate);
  for_lanes(active, [&](int l) {
    uint32_t r = 0;
    for (uint32_t k = 0; k < 8; ++k) {
      const uint32_t minterm = (k & 4 ? a[l] : ~a[l]) & (k & 2 ? b[l] : ~b[l]) & (k & 1 ? c[l] : ~c[l]);
      r |= minterm & (0 - (table >> k & 1));
    }
    d[l] = r;
  });
}

// Four bytes chosen from the eight of {b, a}. The default mode takes a selector of 4 bits for each, whose top
// bit asks for the byte's sign instead; the others derive the selectors from the two low bits of c.
enum PermuteMode : uint8_t {
  kSelect,
  kForward4,
  kBackward4,
  kReplicate8,
  kEdgeLeft,
  kEdgeRight,
  kReplicate16
};

void prmt(Warp& w, const Instruction& i, LaneMask active) {
  uint32_t* d = w.lanes<uint32_t>(i.destination[0]);
  const uint32_t *a = w.lanes<uint32_t>(i.source[0]), *b = w.lanes<uint32_t>(i.source[1]),
                 *c = w.lanes<uint32_t>(i.source[2]);
  for_lanes(active, [&](int l) {
    const uint64_t both = static_cast<uint64_t>(b[l]) << 32 | a[l];
    const int q = c[l] & 3;
    uint32_t r = 0;
    for (int k = 0; k < 4; ++k) {
      int select = 0;
      switch (i.mode) {
      case kSelect:
        select = c[l] >> 4 * k & 15;
        break;
      case kForward4:
        select = (q + k) & 7;
        break;
      case kBackward4:
        select = (q - k) & 7;
        break;
      case kReplicate8:
        select = q;
        break;
      case kEdgeLeft:
        select = std::max(q, k);
        break;
      case kEdgeRight:
        select = std::min(q, k);
        break;
      case kReplicate16:
        select = (q & 1) * 2 + (k & 1);
        break;
      }
      uint32_t byte = both >> 8 * (select & 7) & 255;
      if (select & 8) byte = byte & 128 ? 255 : 0;
      r |= byte << 8 * k;
    }
    d[l] = r;
  });
}

template <const auto& op>
void predicate_binary(Warp& w, const Instruction& i, LaneMask active) {
  w.set_predicate(i.destination[0], active, op(w.source_predicate(i, 0), w.source_predicate(i, 1)));
}
void predicate_not(Warp& w, const Instruction& i, LaneMask active) {
  w.set_predicate(i.destination[0], active, ~w.source_predicate(i, 0));
}

template <const auto& op>
bool decode_logic(Decoder& d) {
  d.out().defined = Defined::where_any_source;
  if (d.take("pred")) {
    d.expect_operands(3);
    d.destination_predicate(d.operand(0));
    d.source_predicate(d.operand(1));
    d.source_predicate(d.operand(2));
    d.run(predicate_binary<op>);
    return true;
  }
  const Type t = d.take_type();
  d.values(1, 2, t);
  d.run(integer_binary<op>(t));
  return true;
}

bool decode_not(Decoder& d) {
  if (d.take("pred")) {
    d.expect_operands(2);
    d.destination_predicate(d.operand(0));
    d.source_predicate(d.operand(1));
    d.run(predicate_not);
    return true;
  }
  const Type t = d.take_type();
  d.values(1, 1, t);
  d.run(integer_unary<bit_not>(t));
  return true;
}

bool decode_cnot(Decoder& d) {
  const Type t = d.take_type();
  d.values(1, 1, t);
  d.run(integer_unary<is_zero>(t));
  return true;
}

bool decode_shift(Decoder& d) {
  const Type t = d.take_type();
  d.expect_operands(3);
  d.destination(d.operand(0), t);
  d.source(d.operand(1), t);
  d.source(d.operand(2), Type::u32);
  const bool left = d.mnemonic() == "shl";
  d.run(for_integer(t, [&](auto x) -> Handler {
    using T = decltype(x);
    return left ? lanes2<T, T, uint32_t, shift_left> : lanes2<T, T, uint32_t, shift_right>;
  }));
  return true;
}

bool decode_funnel(Decoder& d) {
  d.out().defined = Defined::where_any_source;
  const bool right = d.take("r"), clamp = d.take("clamp");
  d.take("l");
  d.take("wrap");
  d.values(1, 3, d.take_type());
  if (right)
    d.run(clamp ? ternary<uint32_t, clamped<funnel_right>> : ternary<uint32_t, wrapped<funnel_right>>);
  else
    d.run(clamp ? ternary<uint32_t, clamped<funnel_left>> : ternary<uint32_t, wrapped<funnel_left>>);
  return true;
}

// popc, clz, bfind: a 32-bit result of any 32- or 64-bit number.
template <const auto& op>
void decode_count(Decoder& d) {
  const Type t = d.take_type();
  d.expect_operands(2);
  d.destination(d.operand(0), Type::u32);
  d.source(d.operand(1), t);
  if (bytes_of(t) < 4) d.unsupported("only for 32 and 64 bits");
  d.run(for_integer(t, [](auto x) { return Handler{lanes1<uint32_t, decltype(x), op>}; }));
}

bool decode_popc(Decoder& d) {
  return decode_count<count_ones>(d), true;
}
bool decode_clz(Decoder& d) {
  return decode_count<leading_zeros>(d), true;
}
bool decode_bfind(Decoder& d) {
  if (d.take("shiftamt"))
    decode_count<find_top_shift>(d);
  else
    decode_count<find_top>(d);
  return true;
}

bool decode_brev(Decoder& d) {
  const Type t = d.take_type();
  d.values(1, 1, t);
  d.run(bytes_of(t) == 4 ? unary<uint32_t, reverse> : unary<uint64_t, reverse>);
  return true;
}

bool decode_bfe(Decoder& d) {
  const Type t = d.take_type();
  d.expect_operands(4);
  d.destination(d.operand(0), t);
  d.source(d.operand(1), t);
  d.source(d.operand(2), Type::u32);
  d.source(d.operand(3), Type::u32);
  if (bytes_of(t) < 4) d.unsupported("only for 32 and 64 bits");
  d.run(for_integer(t, [](auto x) {
    using T = decltype(x);
    return Handler{lanes3<T, T, uint32_t, uint32_t, extract>};
  }));
  return true;
}

bool decode_bfi(Decoder& d) {
  d.out().defined = Defined::where_any_source;
  const Type t = d.take_type();
  d.expect_operands(5);
  d.destination(d.operand(0), t);
  d.source(d.operand(1), t);
  d.source(d.operand(2), t);
  d.source(d.operand(3), Type::u32);
  d.source(d.operand(4), Type::u32);
  d.run(bytes_of(t) == 4 ? insert<uint32_t> : insert<uint64_t>);
  return true;
}

bool decode_bmsk(Decoder& d) {
  const bool wrap = d.take("wrap");
  d.take("clamp");
  d.values(1, 2, d.take_type());
  d.run(wrap ? binary<uint32_t, mask_wrapped> : binary<uint32_t, mask_clamped>);
  return true;
}

bool decode_lop3(Decoder& d) {
  d.out().defined = Defined::where_any_source;
  d.take_type();
  d.expect_operands(5);
  d.destination(d.operand(0), Type::b32);
  for (int k = 1; k < 4; ++k) d.source(d.operand(k), Type::b32);
  d.out().immediate = d.constant(d.operand(4));
  d.run(lop3);
  return true;
}

bool decode_prmt(Decoder& d) {
  d.out().defined = Defined::where_any_source;
  d.take_type();
  d.out().mode = d.take("f4e")    ? kForward4
                 : d.take("b4e")  ? kBackward4
                 : d.take("rc8")  ? kReplicate8
                 : d.take("ecl")  ? kEdgeLeft
                 : d.take("ecr")  ? kEdgeRight
                 : d.take("rc16") ? kReplicate16
                                  : kSelect;
  d.values(1, 3, Type::b32);
  d.run(prmt);
  return true;
}

}  // namespace

void add_bits(InstructionSet& set) {
  set.add("and", decode_logic<bit_and>);
  set.add("or", decode_logic<bit_or>);
  set.add("xor", decode_logic<bit_xor>);
  set.add("not", decode_not);
  set.add("cnot", decode_cnot);
  set.add("shl", decode_shift);
  set.add("shr", decode_shift);
  set.add("shf", decode_funnel);
  set.add("popc", decode_popc);
  set.add("clz", decode_clz);
  set.add("brev", decode_brev);
  set.add("bfind", decode_bfind);
  set.add("bfe", decode_bfe);
  set.add("bfi", decode_bfi);
  set.add("bmsk", decode_bmsk);
  set.add("lop3", decode_lop3);
  set.add("prmt", decode_prmt);
}

}  // namespace pyconvx::emulator
