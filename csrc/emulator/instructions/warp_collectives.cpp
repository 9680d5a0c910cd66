// Instructions that lanes of a warp execute together, named by a member mask: shuffles, votes, matches,
// reductions and the barrier of the warp. The scheduler calls them with the lanes of one mask, all present.
#include <algorithm>
#include <cstring>

#include "../access.h"
#include "../block.h"
#include "lane_ops.h"

namespace pyconvx::emulator {

namespace {

enum Shuffle : uint8_t { kUp, kDown, kButterfly, kIndex };

// c holds a clamp lane in bits 0-4 and, in bits 8-12, which bits of the lane number stay: they cut the warp
// in segments.
void shfl(Warp& w, const Instruction& i, LaneMask active) {
  const uint32_t *a = w.lanes<uint32_t>(i.source[0]), *b = w.lanes<uint32_t>(i.source[1]),
                 *c = w.lanes<uint32_t>(i.source[2]);
  uint32_t values[kLanes];
  std::memcpy(values, a, sizeof values);
  uint32_t* d = w.lanes<uint32_t>(i.destination[0]);
  LaneMask in_range = 0;
  for_lanes(active, [&](int lane) {
    const int by = b[lane] & 31, clamp = c[lane] & 31, fixed = c[lane] >> 8 & 31;
    const int last = (lane & fixed) | (clamp & ~fixed), first = lane & fixed;
    int from = 0;
    bool inside = false;
    switch (i.mode) {
    case kUp:
      from = lane - by;
      inside = from >= last;
      break;
    case kDown:
      from = lane + by;
      inside = from <= last;
      break;
    case kButterfly:
      from = lane ^ by;
      inside = from <= last;
      break;
    default:
      from = first | (by & ~fixed);
      inside = from <= last;
      break;
    }
    if (!inside) from = lane;
    if (!(active >> from & 1)) {
      w.block->report(kind::missing_lanes, w, lane, i,
                      [&] { return format("takes the value of lane %d, which does not take part", from); });
    }
    d[lane] = values[from];
    in_range |= static_cast<LaneMask>(inside) << lane;
  });
  if (i.destinations > 1) w.set_predicate(i.destination[1], active, in_range);
}

enum Vote : uint8_t { kAll, kAny, kUniform, kBallot };

void vote(Warp& w, const Instruction& i, LaneMask active) {
  const LaneMask yes = w.source_predicate(i, 0) & active;
  if (i.mode == kBallot) {
    for_lanes(active, [&](int l) { w.lanes<uint32_t>(i.destination[0])[l] = yes; });
    return;
  }
  const bool result = i.mode == kAll ? yes == active : i.mode == kAny ? yes != 0 : yes == 0 || yes == active;
  w.set_predicate(i.destination[0], active, result ? kAllLanes : 0);
}

enum Match : uint8_t { kMatchAny, kMatchAll };

void match(Warp& w, const Instruction& i, LaneMask active) {
  uint32_t* d = w.lanes<uint32_t>(i.destination[0]);
  LaneMask same[kLanes] = {};
  bool all = true;
  for_lanes(active, [&](int l) {
    const uint64_t mine = w.get(i.source[0], i.source_size[0], l);
    for_lanes(active, [&](int other) {
      same[l] |= static_cast<LaneMask>(w.get(i.source[0], i.source_size[0], other) == mine) << other;
    });
    all &= same[l] == active;
  });
  for_lanes(active, [&](int l) { d[l] = i.mode == kMatchAny ? same[l] : all ? active : 0; });
  if (i.destinations > 1) w.set_predicate(i.destination[1], active, all ? kAllLanes : 0);
}

enum Reduction : uint8_t { kAdd, kMin, kMax, kAnd, kOr, kXor };

template <class T>
void redux(Warp& w, const Instruction& i, LaneMask active) {
  const T* a = w.lanes<T>(i.source[0]);
  T total = a[first_lane(active)];
  for_lanes(active & (active - 1), [&](int l) {
    switch (i.mode) {
    case kAdd:
      total = static_cast<T>(static_cast<uint32_t>(total) + static_cast<uint32_t>(a[l]));
      break;
    case kMin:
      total = std::min(total, a[l]);
      break;
    case kMax:
      total = std::max(total, a[l]);
      break;
    case kAnd:
      total &= a[l];
      break;
    case kOr:
      total |= a[l];
      break;
    default:
      total ^= a[l];
      break;
    }
  });
  for_lanes(active, [&](int l) { w.lanes<T>(i.destination[0])[l] = total; });
}

void synchronize(Warp& w, const Instruction&, LaneMask active) {
  w.block->order.synchronize_lanes(w.index, active, w.initial);
}

void active_mask(Warp& w, const Instruction& i, LaneMask active) {
  for_lanes(active, [&](int l) { w.lanes<uint32_t>(i.destination[0])[l] = active; });
}

void elect(Warp& w, const Instruction& i, LaneMask active) {
  const int leader = first_lane(active);
  for_lanes(active, [&](int l) { w.lanes<uint32_t>(i.destination[0])[l] = leader; });
  w.set_predicate(i.destination[1], active, 1u << leader);
}

void destination_and_predicate(Decoder& d, const Operand& operand) {
  d.destination(operand, Type::b32);
  if (operand.second.empty()) return;
  Operand predicate = operand;
  predicate.text = operand.second;
  d.destination_predicate(predicate);
}

void needs_sync(Decoder& d) {
  if (!d.take("sync")) d.unsupported("only with .sync");
  d.out().flow = Flow::collective;
}

bool decode_shfl(Decoder& d) {
  needs_sync(d);
  d.out().mode = d.take("up") ? kUp : d.take("down") ? kDown : d.take("bfly") ? kButterfly : kIndex;
  d.take("idx");
  d.take_type();
  d.expect_operands(5);
  destination_and_predicate(d, d.operand(0));
  for (int k = 1; k < 5; ++k) d.source(d.operand(k), Type::b32);
  d.run(shfl);
  return true;
}

bool decode_vote(Decoder& d) {
  needs_sync(d);
  d.out().mode = d.take("all") ? kAll : d.take("any") ? kAny : d.take("uni") ? kUniform : kBallot;
  d.take("ballot");
  d.take_type();
  d.expect_operands(3);
  if (d.out().mode == kBallot)
    d.destination(d.operand(0), Type::b32);
  else
    d.destination_predicate(d.operand(0));
  d.source_predicate(d.operand(1));
  d.source(d.operand(2), Type::b32);
  d.run(vote);
  return true;
}

bool decode_match(Decoder& d) {
  needs_sync(d);
  d.out().mode = d.take("all") ? kMatchAll : kMatchAny;
  d.take("any");
  const Type t = d.take_type();
  d.expect_operands(3);
  destination_and_predicate(d, d.operand(0));
  d.source(d.operand(1), t);
  d.source(d.operand(2), Type::b32);
  d.run(match);
  return true;
}

bool decode_redux(Decoder& d) {
  needs_sync(d);
  d.out().mode = d.take("add")   ? kAdd
                 : d.take("min") ? kMin
                 : d.take("max") ? kMax
                 : d.take("and") ? kAnd
                 : d.take("or")  ? kOr
                                 : kXor;
  d.take("xor");
  const Type t = d.take_type();
  d.values(1, 2, t);
  d.run(t == Type::s32 ? redux<int32_t> : t == Type::u32 || t == Type::b32 ? redux<uint32_t> : nullptr);
  return true;
}

bool decode_warp_barrier(Decoder& d) {
  if (!d.take("warp")) return false;
  needs_sync(d);
  d.expect_operands(1);
  d.source(d.operand(0), Type::b32);
  d.run(synchronize);
  return true;
}

bool decode_activemask(Decoder& d) {
  d.take_type();
  d.values(1, 0, Type::b32);
  d.run(active_mask);
  return true;
}

bool decode_elect(Decoder& d) {
  needs_sync(d);
  d.expect_operands(2);
  destination_and_predicate(d, d.operand(0));
  d.source(d.operand(1), Type::b32);
  d.run(elect);
  return true;
}

}  // namespace

void add_warp_collectives(InstructionSet& set) {
  set.add("shfl", decode_shfl);
  set.add("vote", decode_vote);
  set.add("match", decode_match);
  set.add("redux", decode_redux);
  set.add("bar", decode_warp_barrier);
  set.add("activemask", decode_activemask);
  set.add("elect", decode_elect);
}

}  // namespace pyconvx::emulator
