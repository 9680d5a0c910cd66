// mov in all its forms, conversions between generic and other addresses, and instructions that are hints
// only.
#include <cstring>

#include "../assembler.h"
#include "../block.h"
#include "lane_ops.h"

namespace pyconvx::emulator {

namespace {

constexpr auto same = [](auto a) { return a; };

void move_128(Warp& w, const Instruction& i, LaneMask active) {
  for_lanes(active, [&](int l) {
    std::memmove(w.registers + i.destination[0] + 16 * l, w.registers + i.source[0] + 16 * l, 16);
  });
}

void move_predicate(Warp& w, const Instruction& i, LaneMask active) {
  w.set_predicate(i.destination[0], active, w.source_predicate(i, 0));
}

// mov.b64 d, {a, b}: the first element is the lowest.
void pack(Warp& w, const Instruction& i, LaneMask active) {
  const uint32_t size = i.source_size[0], whole = i.destination_size[0];
  for_lanes(active, [&](int l) {
    uint8_t bytes[16];
    for (int k = 0; k < i.sources; ++k)
      std::memcpy(bytes + k * size, w.registers + i.source[k] + l * size, size);
    std::memcpy(w.registers + i.destination[0] + l * whole, bytes, whole);
  });
}

void unpack(Warp& w, const Instruction& i, LaneMask active) {
  const uint32_t whole = i.source_size[0];
  for_lanes(active, [&](int l) {
    uint8_t bytes[16];
    std::memcpy(bytes, w.registers + i.source[0] + l * whole, whole);
    for (int k = 0; k < i.destinations; ++k) {
      const uint32_t size = i.destination_size[k];
      std::memcpy(w.registers + i.destination[k] + l * size, bytes + k * size, size);
    }
  });
}

// Clocks count the block's instructions: they move forward, and that is all that may be relied on.
void read_clock(Warp& w, const Instruction& i, LaneMask active) {
  for_lanes(active, [&](int l) { w.put(i.destination[0], i.destination_size[0], l, w.block->steps()); });
}

Type part_type(Decoder& d, Type whole, size_t parts) {
  switch (bytes_of(whole) / parts) {
  case 1:
    return Type::b8;
  case 2:
    return Type::b16;
  case 4:
    return Type::b32;
  case 8:
    return Type::b64;
  default:
    d.fail("a vector of this many elements does not fill the register");
  }
}

bool decode_mov(Decoder& d) {
  d.expect_operands(2);
  const Type t = d.take_type();
  const Operand &to = d.operand(0), &from = d.operand(1);
  if (t == Type::pred) {
    d.destination_predicate(to);
    d.source_predicate(from);
    d.run(move_predicate);
  } else if (from.kind == Operand::vector) {
    d.destination(to, t);
    for (const Operand& part : from.parts) d.source(part, part_type(d, t, from.parts.size()));
    d.out().defined = Defined::where_any_source;
    d.run(pack);
  } else if (to.kind == Operand::vector) {
    for (const Operand& part : to.parts) d.destination(part, part_type(d, t, to.parts.size()));
    d.source(from, t);
    d.run(unpack);
  } else if (from.text.rfind("%clock", 0) == 0 || from.text.rfind("%globaltimer", 0) == 0) {
    d.destination(to, t);
    d.run(read_clock);
  } else {
    d.destination(to, t);
    d.source(from, t);
    const uint32_t bytes = bytes_of(t);
    d.run(bytes == 2    ? unary<uint16_t, same>
          : bytes == 4  ? unary<uint32_t, same>
          : bytes == 8  ? unary<uint64_t, same>
          : bytes == 16 ? move_128
                        : nullptr);
  }
  return true;
}

uint64_t tag_of(Space space) {
  switch (space) {
  case Space::shared:
    return kSharedTag;
  case Space::local:
    return kLocalTag;
  case Space::param:
    return kParamTag;
  default:
    return 0;
  }
}

void to_generic(Warp& w, const Instruction& i, LaneMask active) {
  for_lanes(active, [&](int l) {
    w.put(i.destination[0], i.destination_size[0], l,
          w.get(i.source[0], i.source_size[0], l) + tag_of(i.space));
  });
}
void from_generic(Warp& w, const Instruction& i, LaneMask active) {
  const uint64_t tag = tag_of(i.space);
  for_lanes(active, [&](int l) {
    const uint64_t address = w.get(i.source[0], i.source_size[0], l);
    w.put(i.destination[0], i.destination_size[0], l,
          tag && (address & kSpaceTagMask) == tag ? address - tag : address);
  });
}

bool decode_cvta(Decoder& d) {
  const bool to_space = d.take("to");
  d.out().space = d.take_space();
  d.values(1, 1, d.take_type());
  d.run(to_space ? from_generic : to_generic);
  return true;
}

void is_in_space(Warp& w, const Instruction& i, LaneMask active) {
  LaneMask result = 0;
  for_lanes(active, [&](int l) {
    const uint64_t tag = w.get(i.source[0], i.source_size[0], l) & kSpaceTagMask;
    result |= static_cast<LaneMask>(tag == tag_of(i.space)) << l;
  });
  w.set_predicate(i.destination[0], active, result);
}

bool decode_isspacep(Decoder& d) {
  d.out().space = d.take_space();
  d.expect_operands(2);
  d.destination_predicate(d.operand(0));
  d.source(d.operand(1), Type::u64);
  d.run(is_in_space);
  return true;
}

// Cache hints, fences and delays change nothing here: memory is one and always up to date.
void nothing(Warp&, const Instruction&, LaneMask) {}

bool decode_hint(Decoder& d) {
  d.claim_all();
  d.run(nothing);
  return true;
}

// createpolicy makes a cache policy that other instructions only pass on.
void make_policy(Warp& w, const Instruction& i, LaneMask active) {
  for_lanes(active, [&](int l) { w.put(i.destination[0], 8, l, 0); });
}
bool decode_createpolicy(Decoder& d) {
  d.claim_all();
  d.destination(d.operand(0), Type::b64);
  d.run(make_policy);
  return true;
}

}  // namespace

void add_move(InstructionSet& set) {
  set.add("mov", decode_mov);
  set.add("cvta", decode_cvta);
  set.add("isspacep", decode_isspacep);
  set.add("createpolicy", decode_createpolicy);
  for (const char* hint : {"prefetch", "prefetchu", "membar", "fence", "griddepcontrol", "nanosleep",
                           "pmevent", "discard", "applypriority", "setmaxnreg"}) {
    set.add(hint, decode_hint);
  }
}

}  // namespace pyconvx::emulator
