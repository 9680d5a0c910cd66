// Branches, calls, exits and barriers of the block. They have no handler: the scheduler knows what to do from
// `flow`.
#include "control.h"

#include <utility>

#include "lane_ops.h"

namespace pyconvx::emulator {

namespace {

// `mode` of a barrier.
enum BarrierMode : uint8_t { kSync, kArrive, kPopc, kAnd, kOr, kVariant = 7, kUnaligned = 8 };

uint8_t variant(const Instruction& i) {
  return i.mode & kVariant;
}

bool decode_bra(Decoder& d) {
  d.take("uni");
  d.expect_operands(1);
  d.out().flow = Flow::branch;
  d.branch_to(d.operand(0).text);
  return true;
}

bool decode_brx(Decoder& d) {
  if (!d.take("idx")) d.unsupported("only brx.idx");
  d.take("uni");
  d.expect_operands(2);
  d.out().flow = Flow::branch_table;
  d.source(d.operand(0), Type::u32);
  d.branch_by_table(d.operand(1).text);
  return true;
}

template <Flow How>
bool decode_bare(Decoder& d) {
  d.take("uni");
  d.expect_operands(0);
  d.out().flow = How;
  return true;
}

// call (results), function, (arguments)
bool decode_call(Decoder& d) {
  d.take("uni");
  size_t at = 0;
  std::vector<Operand> results, arguments;
  if (d.operand(0).kind == Operand::list) results = d.operand(at++).parts;
  const std::string function = d.operand(at++).text;
  if (at < d.operand_count()) arguments = d.operand(at++).parts;
  if (function == "__assertfail") {
    d.out().flow = Flow::trap;
    d.out().mode = 1;
    return true;
  }
  if (!d.is_defined_function(function))
    d.unsupported("only calls of functions in the same PTX, not of " + function);
  if (at < d.operand_count()) d.unsupported("indirect call");
  d.out().flow = Flow::call;
  d.call(function, results, arguments);
  return true;
}

// bar.sync a{, b}; bar.arrive a, b; bar.red.popc d, a{, b}, p; and barrier{.aligned}
bool decode_barrier(Decoder& d) {
  Instruction& i = d.out();
  if (d.has("warp") || d.has("cluster")) return false;
  d.take("cta");
  const bool aligned = d.take("aligned") || d.mnemonic() == "bar";
  const bool reduces = d.take("red");
  if (d.take("arrive"))
    i.mode = kArrive;
  else if (!reduces && !d.take("sync"))
    d.unsupported("this barrier");
  size_t at = 0;
  if (reduces) {
    i.mode = d.take("popc") ? kPopc : d.take("and") ? kAnd : kOr;
    d.take("or");
    d.take(i.mode == kPopc ? "u32" : "pred");
    if (i.mode == kPopc)
      d.destination(d.operand(at++), Type::u32);
    else
      d.destination_predicate(d.operand(at++));
  }
  if (!aligned) i.mode |= kUnaligned;
  i.flow = Flow::barrier;
  d.source(d.operand(at++), Type::u32);
  const size_t left = d.operand_count() - at - (reduces ? 1 : 0);
  if (left == 1)
    d.source(d.operand(at++), Type::u32);
  else
    d.no_source();
  if (reduces) d.source_predicate(d.operand(at++));
  d.expect_operands(at);
  return true;
}

}  // namespace

bool is_aligned(const Instruction& i) {
  return !(i.mode & kUnaligned);
}
bool waits(const Instruction& i) {
  return variant(i) != kArrive;
}
uint32_t barrier_threads(const Instruction& i) {
  return i.source[1];
}

uint32_t barrier_votes(Warp& w, const Instruction& i, LaneMask lanes) {
  return variant(i) >= kPopc ? lane_count(w.source_predicate(i, 2) & lanes) : 0;
}

void give_barrier_result(Warp& w, const Instruction& i, LaneMask lanes, uint32_t votes, uint32_t threads) {
  if (variant(i) < kPopc) return;
  if (variant(i) == kPopc) {
    for_lanes(lanes, [&](int l) { w.lanes<uint32_t>(i.destination[0])[l] = votes; });
  } else {
    const bool result = variant(i) == kAnd ? votes == threads : votes > 0;
    w.set_predicate(i.destination[0], lanes, result ? kAllLanes : 0);
  }
  w.defined(i.destination[0]) |= lanes;
}

void add_control(InstructionSet& set) {
  set.add("bra", decode_bra);
  set.add("brx", decode_brx);
  set.add("ret", decode_bare<Flow::leave>);
  set.add("exit", decode_bare<Flow::exit>);
  set.add("trap", decode_bare<Flow::trap>);
  set.add("brkpt", decode_bare<Flow::trap>);
  set.add("call", decode_call);
  set.add("bar", decode_barrier);
  set.add("barrier", decode_barrier);
}

}  // namespace pyconvx::emulator
