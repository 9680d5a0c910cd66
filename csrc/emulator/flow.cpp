// What branches, calls, exits and collectives do to the groups of lanes of a warp.
#include <algorithm>
#include <map>

#include "access.h"
#include "block.h"
#include "instructions/async_copy.h"

namespace pyconvx::emulator {

void Block::change_flow(Warp& warp, size_t group, const Instruction& i, LaneMask active) {
  const int pc = warp.groups[group].pc;
  const LaneMask rest = warp.groups[group].lanes & ~active;
  switch (i.flow) {
  case Flow::straight:
    return;
  case Flow::branch:
    warp.groups[group] = {pc + 1, rest, LaneGroup::running};
    warp.groups.push_back({i.target, active, LaneGroup::running});
    return;
  case Flow::trap:
    stop(kind::trap, warp, first_lane(active), i,
         [&] { return std::string(i.mode ? "an assertion failed" : "the kernel executed a trap"); });
  case Flow::branch_table:
    return branch_by_table(warp, group, i, active);
  case Flow::call:
    return call(warp, group, i, active);
  case Flow::leave:
  case Flow::exit:
    return leave(warp, group, i, active);
  case Flow::barrier:
  case Flow::collective:
  case Flow::whole_warp:
    if (rest) {
      warp.groups[group].lanes = active;
      warp.groups.push_back({pc + 1, rest, LaneGroup::running});
    }
    return i.flow == Flow::barrier ? reach_barrier(warp, group, i) : collect(warp, group, i);
  }
}

void Block::branch_by_table(Warp& warp, size_t group, const Instruction& i, LaneMask active) {
  const std::vector<int>& table = program.branch_tables[i.table];
  std::map<int, LaneMask> to;
  const LaneMask rest = warp.groups[group].lanes & ~active;
  if (rest) to[warp.groups[group].pc + 1] |= rest;
  for_lanes(active, [&](int lane) {
    const uint32_t k = warp.lanes<uint32_t>(i.source[0])[lane];
    if (k >= table.size()) {
      stop(kind::out_of_bounds, warp, lane, i,
           [&] { return format("branches to entry %u of a table of %zu", k, table.size()); });
    }
    to[table[k]] |= 1u << lane;
  });
  warp.groups.erase(warp.groups.begin() + group);
  for (const auto& [pc, lanes] : to) warp.groups.push_back({pc, lanes, LaneGroup::running});
}

static void copy_params(Warp& warp, int lane, const std::vector<ParamRange>& ranges) {
  uint8_t* mine = warp.params.data() + warp.params.size() / kLanes * lane;
  for (const ParamRange& r : ranges) std::memmove(mine + r.to, mine + r.from, r.bytes);
}

void Block::call(Warp& warp, size_t group, const Instruction& i, LaneMask active) {
  const int pc = warp.groups[group].pc;
  const CallSite& site = program.calls[i.table];
  for_lanes(active, [&](int lane) {
    for (const CallFrame& frame : warp.frames[lane]) {
      if (frame.function == i.target) {  // registers of a function exist once
        throw Error(format("PTX line %d: %s calls itself, which the emulator cannot run", i.line,
                           site.function.c_str()));
      }
    }
    copy_params(warp, lane, site.arguments);
    warp.frames[lane].push_back({pc + 1, i.table, i.target});
  });
  const LaneMask rest = warp.groups[group].lanes & ~active;
  warp.groups[group] = {i.target, active, LaneGroup::running};
  if (rest) warp.groups.push_back({pc + 1, rest, LaneGroup::running});
}

void Block::leave(Warp& warp, size_t group, const Instruction& i, LaneMask active) {
  std::map<int, LaneMask> to;
  const LaneMask rest = warp.groups[group].lanes & ~active;
  if (rest) to[warp.groups[group].pc + 1] |= rest;
  LaneMask gone = 0;
  for_lanes(active, [&](int lane) {
    if (i.flow == Flow::exit || warp.frames[lane].empty()) {
      gone |= 1u << lane;
      return;
    }
    const CallFrame frame = warp.frames[lane].back();
    warp.frames[lane].pop_back();
    copy_params(warp, lane, program.calls[frame.call_site].results);
    to[frame.return_to] |= 1u << lane;
  });
  warp.groups.erase(warp.groups.begin() + group);
  for (const auto& [pc, lanes] : to) warp.groups.push_back({pc, lanes, LaneGroup::running});
  if (!gone) return;
  warp.live &= ~gone;
  for_lanes(gone, [&](int lane) { abandon_copies(warp, lane); });
  for (LaneGroup& g : warp.groups) {  // they may have waited for lanes that are no more
    if (g.state == LaneGroup::gathering) g.state = LaneGroup::running;
  }
}

// An instruction that lanes execute together. Those whose company is complete go on; the others wait here.
// Lanes may come with different member masks, each mask a company of its own.
void Block::collect(Warp& warp, size_t group, const Instruction& i) {
  const int pc = warp.groups[group].pc;
  LaneMask done = 0, waiting = 0;
  for (LaneMask left = warp.groups[group].lanes; left;) {
    LaneMask named = warp.initial, together = left;
    if (i.flow == Flow::collective) {
      const uint32_t* member = warp.lanes<uint32_t>(i.source[i.sources - 1]);
      const uint32_t mask = member[first_lane(left)];
      together = 0;
      for_lanes(left, [&](int lane) { together |= static_cast<LaneMask>(member[lane] == mask) << lane; });
      named = mask & warp.initial;
    }
    left &= ~together;
    if (named & warp.live & ~together) {
      waiting |= together;
      continue;
    }
    check_company(warp, i, named, together);
    execute(warp, i, together);
    done |= together;
  }
  if (done)
    warp.groups[group] = {pc + 1, done, LaneGroup::running};
  else
    warp.groups[group].state = LaneGroup::gathering;
  if (!waiting) return;
  if (done) warp.groups.push_back({pc, waiting, LaneGroup::gathering});
  SiteCounts& site = counts[pc];  // the instruction is counted when it happens
  site.warps -= !done;
  site.threads -= lane_count(waiting);
}

void Block::check_company(Warp& warp, const Instruction& i, LaneMask named, LaneMask together) {
  const LaneMask strangers = together & ~named, dead = named & ~warp.live;
  const int lane = first_lane(together);
  if (i.flow == Flow::whole_warp && (dead || warp.initial != kAllLanes)) {
    stop(kind::missing_lanes, warp, lane, i,
         [&] { return format("the instruction needs 32 lanes, the warp has %d", lane_count(warp.live)); });
  }
  if (strangers) {
    report(kind::missing_lanes, warp, first_lane(strangers), i, [&] {
      return format("lanes %s take part but are not in the member mask 0x%x", lanes_text(strangers).c_str(),
                    named);
    });
  }
  if (dead) {
    report(kind::missing_lanes, warp, lane, i, [&] {
      return format("lanes %s have exited but are named by the instruction", lanes_text(dead).c_str());
    });
  }
}

}  // namespace pyconvx::emulator
