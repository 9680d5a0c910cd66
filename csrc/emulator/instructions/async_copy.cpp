// cp.async from global to shared memory, its groups and waits.
//
// The data is taken when the copy is issued and arrives when the thread waits for it; in between the
// destination holds poison. So code that reads too early gets wrong numbers as well as a report.
#include "async_copy.h"

#include <algorithm>
#include <cstring>

#include "../access.h"
#include "../block.h"
#include "lane_ops.h"

namespace pyconvx::emulator {

namespace {

enum SourceSize : uint8_t { kWhole, kFromRegister, kIgnorePredicate };  // what the optional operand says

// Operands: [destination], [source], cp-size{, src-size or ignore-src}. The source's address is the first
// source register with `immediate` as its offset.
void copy(Warp& w, const Instruction& i, LaneMask active) {
  Block& block = *w.block;
  const uint32_t size = i.count;
  if (block.checking && i.sources > 1) require_defined(w, i, active, i.source[1], "the source size");
  Access from, to;
  from.kind = Access::read;
  from.space = Space::global;
  to.kind = Access::copy;
  to.space = Space::shared;
  to.bytes = to.align = size;
  compute_addresses(w, i, active, to.address);

  uint32_t wanted[kLanes];
  LaneMask reading = 0;
  const LaneMask ignored = i.mode == kIgnorePredicate ? w.source_predicate(i, 1) : 0;
  for_lanes(active, [&](int l) {
    from.address[l] = w.lanes<uint64_t>(i.source[0])[l] + static_cast<uint64_t>(i.immediate);
    wanted[l] = i.mode == kFromRegister ? w.lanes<uint32_t>(i.source[1])[l] : ignored >> l & 1 ? 0 : size;
    if (wanted[l] > size) {
      block.report(kind::bad_copy, w, l, i,
                   [&] { return format("asks for %u of %u bytes", wanted[l], size); });
      wanted[l] = size;
    }
    reading |= static_cast<LaneMask>(wanted[l] != 0) << l;
  });
  if (block.checking && reading) require_defined(w, i, reading, i.source[0], "the source address");
  resolve(w, i, active, to);
  count_global(block.counts[block.number(i)], reading, from.address, size);
  from.counted = false;
  from.align = size;
  for_lanes(active, [&](int l) {
    PendingCopy pending{static_cast<uint32_t>(to.address[l]), size, w.copies[l].group, block.number(i), {}};
    if (wanted[l]) {
      from.bytes = wanted[l];  // the rest is filled with zeros and not read
      resolve(w, i, 1u << l, from);
      if (from.host[l])
        std::memcpy(pending.data, from.host[l], wanted[l]);
      else
        std::memset(pending.data, kPoison, size);
    }
    if (!to.host[l]) return;
    std::memset(to.host[l], kPoison, size);
    w.copies[l].copies.push_back(pending);
  });
}

void finish_until(Warp& w, int lane, uint32_t group) {
  Block& block = *w.block;
  CopyQueue& queue = w.copies[lane];
  while (!queue.empty() && queue.copies[queue.finished].group < group) {
    const PendingCopy& c = queue.copies[queue.finished++];
    std::memcpy(&block.shared[c.destination], c.data, c.bytes);
    if (block.checking)
      block.shared_checker.finish_copy({w.index, lane, c.destination, c.bytes, false, false});
  }
  if (queue.empty()) queue.clear();
}

void commit_group(Warp& w, const Instruction&, LaneMask active) {
  for_lanes(active, [&](int l) { ++w.copies[l].group; });
}

// At most `immediate` of the latest groups may be unfinished.
void wait_group(Warp& w, const Instruction& i, LaneMask active) {
  const uint32_t allowed = static_cast<uint32_t>(i.immediate);
  for_lanes(active, [&](int l) {
    const uint32_t group = w.copies[l].group;
    finish_until(w, l, group > allowed ? group - allowed : 0);
  });
}

void wait_all(Warp& w, const Instruction&, LaneMask active) {
  for_lanes(active, [&](int l) { finish_until(w, l, ~0u); });
}

bool decode_copy(Decoder& d) {
  Instruction& i = d.out();
  for (const char* other : {"bulk", "mbarrier", "reduce"}) {
    if (d.has(other)) d.unsupported("only cp.async.ca, .cg, commit_group, wait_group and wait_all");
  }
  if (!d.take("async")) d.unsupported("cp without .async");
  if (d.take("commit_group")) {
    d.run(commit_group);
    return true;
  }
  if (d.take("wait_group")) {
    i.immediate = d.constant(d.operand(0));
    d.run(wait_group);
    return true;
  }
  if (d.take("wait_all")) {
    d.run(wait_all);
    return true;
  }
  const bool cached = d.take("ca"), bypass = d.take("cg");
  if (!cached && !bypass) d.unsupported("a cache operator is missing");
  const bool to_shared = d.take("shared") || d.take("shared::cta");
  if (!to_shared || !d.take("global")) d.unsupported("only from global to shared memory");
  for (const char* hint : {"L2::64B", "L2::128B", "L2::256B"}) d.take(hint);
  const size_t operands = d.operand_count() - (d.take("L2::cache_hint") ? 1 : 0);

  d.address(d.operand(1));
  if (!i.address || i.address_size != 8) d.fail("the source of a cp.async needs a 64-bit register");
  i.source[0] = i.address;
  i.source_size[0] = 8;
  i.sources = 1;
  i.immediate = i.offset;
  i.space = Space::shared;
  d.address(d.operand(0));

  const int64_t size = d.constant(d.operand(2));
  if (size != 4 && size != 8 && size != 16) d.fail("cp.async copies 4, 8 or 16 bytes");
  if (bypass && size != 16) d.fail("cp.async.cg copies 16 bytes");
  i.count = static_cast<uint8_t>(size);
  if (operands > 3) {
    if (d.is_predicate(d.operand(3))) {
      d.source_predicate(d.operand(3));
      i.mode = kIgnorePredicate;
    } else {
      d.source(d.operand(3), Type::u32);
      i.mode = kFromRegister;
    }
  }
  d.run(copy);
  return true;
}

}  // namespace

void abandon_copies(Warp& w, int lane) {
  CopyQueue& queue = w.copies[lane];
  if (queue.empty()) return;
  const Instruction& issued = w.block->program.code[queue.copies[queue.finished].instruction];
  w.block->report(kind::abandoned_copy, w, lane, issued, [&] {
    return format("the thread exits without waiting for %zu of its copies",
                  queue.copies.size() - queue.finished);
  });
  finish_until(w, lane, ~0u);
}

void add_async_copy(InstructionSet& set) {
  set.add("cp", decode_copy);
}

}  // namespace pyconvx::emulator
