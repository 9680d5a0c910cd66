// ld and st, in all spaces, of one to eight elements.
#include <cstring>

#include "../access.h"
#include "../block.h"
#include "lane_ops.h"

namespace pyconvx::emulator {

namespace {

Access access_of(Warp& w, const Instruction& i, LaneMask active, Access::Kind kind) {
  Access access;
  access.kind = kind;
  access.space = i.space;
  access.bytes = access.align = bytes_of(i.type) * i.count;
  compute_addresses(w, i, active, access.address);
  return access;
}

// An element of fewer bits than its register is extended, with its sign if the type has one.
uint64_t extended(const uint8_t* host, Type type) {
  uint64_t bits = 0;
  const uint32_t size = bytes_of(type);
  std::memcpy(&bits, host, size);
  if (!is_signed(type) || is_float(type) || size == 8) return bits;
  const int shift = 64 - 8 * static_cast<int>(size);
  return static_cast<uint64_t>(static_cast<int64_t>(bits << shift) >> shift);
}

void load(Warp& w, const Instruction& i, LaneMask active) {
  Access access = access_of(w, i, active, Access::read);
  resolve(w, i, active, access);
  const uint32_t size = bytes_of(i.type);
  for (int k = 0; k < i.destinations; ++k) {
    if (!i.destination[k]) continue;
    uint8_t* d = w.registers + i.destination[k];
    const uint32_t register_size = i.destination_size[k];
    for_lanes(active, [&](int l) {
      const uint8_t* host = access.host[l];
      if (!host)
        std::memset(d + l * register_size, kPoison, register_size);
      else if (register_size == 4 && size == 4)
        std::memcpy(d + l * 4, host + k * 4, 4);
      else if (register_size == 8 && size == 8)
        std::memcpy(d + l * 8, host + k * 8, 8);
      else if (register_size == size)
        std::memcpy(d + l * size, host + k * size, size);
      else
        w.put(i.destination[k], register_size, l, extended(host + k * size, i.type));
    });
  }
}

void store(Warp& w, const Instruction& i, LaneMask active) {
  require_sources_defined(w, i, active);
  Access access = access_of(w, i, active, Access::write);
  const uint32_t size = bytes_of(i.type);
  uint8_t data[kLanes][kWidestAccess];
  for (int k = 0; k < i.sources; ++k) {
    const uint8_t* s = w.registers + i.source[k];
    const uint32_t register_size = i.source_size[k];
    for_lanes(active, [&](int l) {
      if (size == 4)
        std::memcpy(&data[l][k * 4], s + l * register_size, 4);
      else
        std::memcpy(&data[l][k * size], s + l * register_size, size);
    });
  }
  access.data = data;
  resolve(w, i, active, access);
}

bool decode_ld_st(Decoder& d) {
  Instruction& i = d.out();
  const bool is_load = d.mnemonic() != "st";
  i.synchronizing =
      d.take("volatile") | d.take("relaxed") | d.take("acquire") | d.take("release") | d.take("mmio");
  for (const char* hint : {"weak",
                           "nc",
                           "cta",
                           "gpu",
                           "sys",
                           "ca",
                           "cg",
                           "cs",
                           "cv",
                           "lu",
                           "wb",
                           "wt",
                           "L1::no_allocate",
                           "L1::evict_first",
                           "L1::evict_last",
                           "L1::evict_normal",
                           "L1::evict_unchanged",
                           "L2::64B",
                           "L2::128B",
                           "L2::256B",
                           "L2::evict_first",
                           "L2::evict_last",
                           "L2::evict_normal"}) {
    d.take(hint);
  }
  const bool policy = d.take("L2::cache_hint");
  i.space = d.take_space();
  i.count = static_cast<uint8_t>(d.take_vector());
  i.type = d.take_type();
  if (bytes_of(i.type) * i.count > kWidestAccess) d.unsupported("more than 32 bytes");
  d.expect_operands(policy ? 3 : 2);
  const Operand& value = d.operand(is_load ? 0 : 1);
  for (const Operand& element : d.elements(value, i.count)) {
    if (is_load)
      d.destination(element, i.type, Decoder::at_least);
    else
      d.source(element, i.type, Decoder::at_least);
  }
  d.address(d.operand(is_load ? 1 : 0));
  d.run(is_load ? load : store);
  return true;
}

}  // namespace

void add_memory_access(InstructionSet& set) {
  set.add("ld", decode_ld_st);
  set.add("ldu", decode_ld_st);
  set.add("st", decode_ld_st);
}

}  // namespace pyconvx::emulator
