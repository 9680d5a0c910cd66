// atom and red, in global and shared memory, one to eight elements.
#include <algorithm>
#include <cstring>
#include <map>
#include <mutex>
#include <string>

#include "../access.h"
#include "../block.h"
#include "lane_ops.h"

namespace pyconvx::emulator {

namespace {

enum Operation : uint8_t {
  kAdd,
  kMin,
  kMax,
  kAnd,
  kOr,
  kXor,
  kExchange,
  kCompareSwap,
  kIncrement,
  kDecrement
};

template <class T>
T integer_result(uint8_t op, T old, T b, T c) {
  switch (op) {
  case kAdd:
    return static_cast<T>(static_cast<uint64_t>(old) + static_cast<uint64_t>(b));
  case kMin:
    return std::min(old, b);
  case kMax:
    return std::max(old, b);
  case kAnd:
    return old & b;
  case kOr:
    return old | b;
  case kXor:
    return old ^ b;
  case kExchange:
    return b;
  case kCompareSwap:
    return old == b ? c : old;
  case kIncrement:
    return old >= b ? T(0) : static_cast<T>(old + 1);
  default:
    return old == 0 || old > b ? b : static_cast<T>(old - 1);
  }
}

template <class Format>
uint16_t half_result(uint8_t op, uint16_t old, uint16_t b) {
  const float x = Format::decode(old), y = Format::decode(b);
  return Format::encode(op == kAdd ? x + y : op == kMin ? number_min(x, y) : number_max(x, y));
}
template <class Format>
uint32_t half_pair_result(uint8_t op, uint32_t old, uint32_t b) {
  return half_result<Format>(op, static_cast<uint16_t>(old), static_cast<uint16_t>(b)) |
         static_cast<uint32_t>(
             half_result<Format>(op, static_cast<uint16_t>(old >> 16), static_cast<uint16_t>(b >> 16)))
             << 16;
}

uint64_t result(uint8_t op, Type type, uint64_t old, uint64_t b, uint64_t c) {
  switch (type) {
  case Type::s32:
    return static_cast<uint32_t>(integer_result<int32_t>(op, static_cast<int32_t>(old),
                                                         static_cast<int32_t>(b), static_cast<int32_t>(c)));
  case Type::u32:
  case Type::b32:
    return integer_result<uint32_t>(op, static_cast<uint32_t>(old), static_cast<uint32_t>(b),
                                    static_cast<uint32_t>(c));
  case Type::s64:
    return static_cast<uint64_t>(integer_result<int64_t>(op, static_cast<int64_t>(old),
                                                         static_cast<int64_t>(b), static_cast<int64_t>(c)));
  case Type::b16:
  case Type::u16:
    return integer_result<uint16_t>(op, static_cast<uint16_t>(old), static_cast<uint16_t>(b),
                                    static_cast<uint16_t>(c));
  case Type::f32:
    return bit_cast<uint32_t>(bit_cast<float>(static_cast<uint32_t>(old)) +
                              bit_cast<float>(static_cast<uint32_t>(b)));
  case Type::f64:
    return bit_cast<uint64_t>(bit_cast<double>(old) + bit_cast<double>(b));
  case Type::f16:
    return half_result<Half>(op, static_cast<uint16_t>(old), static_cast<uint16_t>(b));
  case Type::bf16:
    return half_result<Bfloat>(op, static_cast<uint16_t>(old), static_cast<uint16_t>(b));
  case Type::f16x2:
    return half_pair_result<Half>(op, static_cast<uint32_t>(old), static_cast<uint32_t>(b));
  case Type::bf16x2:
    return half_pair_result<Bfloat>(op, static_cast<uint32_t>(old), static_cast<uint32_t>(b));
  default:
    return integer_result<uint64_t>(op, old, b, c);
  }
}

// Sources: the elements of b, then c of a compare-and-swap. red has no destinations.
void atomic(Warp& w, const Instruction& i, LaneMask active) {
  require_sources_defined(w, i, active);
  Access access;
  access.kind = Access::read_write;
  access.space = i.space;
  access.bytes = access.align = bytes_of(i.type) * i.count;
  compute_addresses(w, i, active, access.address);
  resolve(w, i, active, access);
  const uint32_t size = bytes_of(i.type);
  for_lanes(active, [&](int l) {
    uint8_t* host = access.host[l];
    if (!host) return;
    std::lock_guard<std::mutex> turn(w.block->launch.memory.turn(access.address[l]));
    for (int k = 0; k < i.count; ++k) {
      uint64_t old = 0;
      std::memcpy(&old, host + k * size, size);
      const uint64_t c = i.mode == kCompareSwap ? w.get(i.source[1], size, l) : 0;
      const uint64_t fresh = result(i.mode, i.type, old, w.get(i.source[k], size, l), c);
      std::memcpy(host + k * size, &fresh, size);
      if (k < i.destinations) w.put(i.destination[k], size, l, old);
    }
  });
}

bool is_supported(uint8_t op, Type t) {
  if (t == Type::f32 || t == Type::f64) return op == kAdd;
  if (is_float(t)) return op == kAdd || op == kMin || op == kMax;
  if (bytes_of(t) == 2) return op == kCompareSwap || op == kExchange;
  return bytes_of(t) == 4 || bytes_of(t) == 8;
}

bool decode_atomic(Decoder& d) {
  Instruction& i = d.out();
  const bool has_result = d.mnemonic() == "atom";
  i.synchronizing = true;
  static const std::map<std::string, Operation> operations = {
      {"add", kAdd}, {"min", kMin},       {"max", kMax},         {"and", kAnd},       {"or", kOr},
      {"xor", kXor}, {"exch", kExchange}, {"cas", kCompareSwap}, {"inc", kIncrement}, {"dec", kDecrement},
  };
  bool known = false;
  for (const auto& [name, operation] : operations) {
    if (!d.take(name)) continue;
    i.mode = operation;
    known = true;
  }
  if (!known) d.unsupported("unknown operation");
  for (const char* hint :
       {"relaxed", "acquire", "release", "acq_rel", "cta", "cluster", "gpu", "sys", "noftz"})
    d.take(hint);
  if (d.take("L2::cache_hint")) d.unsupported("cache hints of atomics");
  i.space = d.take_space();
  i.count = static_cast<uint8_t>(d.take_vector());
  i.type = d.take_type();
  if (!is_supported(i.mode, i.type)) d.unsupported("this operation for this type");
  size_t at = 0;
  if (has_result) {
    for (const Operand& element : d.elements(d.operand(at++), i.count)) d.destination(element, i.type);
  }
  const size_t address = at++;
  for (const Operand& element : d.elements(d.operand(at++), i.count)) d.source(element, i.type);
  if (i.mode == kCompareSwap) d.source(d.operand(at++), i.type);
  d.expect_operands(at);
  d.address(d.operand(address));
  d.run(atomic);
  return true;
}

}  // namespace

void add_atomics(InstructionSet& set) {
  set.add("atom", decode_atomic);
  set.add("red", decode_atomic);
}

}  // namespace pyconvx::emulator
