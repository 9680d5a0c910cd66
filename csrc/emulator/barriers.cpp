// Barriers of the block: bar.sync, bar.arrive, bar.red, with names and thread counts.
#include "block.h"
#include "instructions/control.h"

namespace pyconvx::emulator {

uint32_t Block::barrier_id(const Warp& warp, const LaneGroup& group) const {
  return warp.lanes<uint32_t>(program.code[group.pc].source[0])[first_lane(group.lanes)];
}

// bar and barrier.aligned are for whole warps: the first lanes wait for the rest of theirs. Warps that have
// exited as a whole are not waited for; lanes that left their warp before it came here are a fault, though
// most chips forgive it.
void Block::reach_barrier(Warp& warp, size_t group, const Instruction& i) {
  LaneGroup& g = warp.groups[group];
  if (is_aligned(i) && (warp.live & ~g.lanes)) {
    g.state = LaneGroup::gathering;
    SiteCounts& site = counts[g.pc];
    --site.warps;
    site.threads -= lane_count(g.lanes);
    return;
  }
  const LaneMask gone = warp.initial & ~warp.live;
  if (is_aligned(i) && gone) {
    report(kind::barrier_divergence, warp, first_lane(g.lanes), i, [&] {
      return format("lanes %s of the warp exited before they came to this barrier", lanes_text(gone).c_str());
    });
  }
  arrive(warp, group, i);
}

void Block::arrive(Warp& warp, size_t group, const Instruction& i) {
  LaneGroup& g = warp.groups[group];
  const uint32_t id = barrier_id(warp, g);
  if (id >= barriers_.size()) {
    stop(kind::barrier_count, warp, first_lane(g.lanes), i,
         [&] { return format("barrier %u: there are barriers 0 to 15", id); });
  }
  Barrier& barrier = barriers_[id];
  if (const uint32_t count = barrier_threads(i)) {
    const uint32_t threads = warp.lanes<uint32_t>(count)[first_lane(g.lanes)];
    if (threads == 0 || threads % kLanes || (barrier.expected >= 0 && barrier.expected != threads)) {
      stop(kind::barrier_count, warp, first_lane(g.lanes), i, [&] {
        return format(
            "barrier %u is given %u threads; the count must be a multiple of 32 and the same for all", id,
            threads);
      });
    }
    barrier.expected = threads;
  }
  barrier.arrived += is_aligned(i) ? kLanes : lane_count(g.lanes);  // the last warp of a block may be short
  order.arrive(barrier.published, warp.index);
  if (waits(i)) {
    g.state = LaneGroup::at_barrier;
  } else {
    ++g.pc;
  }
}

bool Block::open_barriers() {
  uint32_t live = 0;
  std::vector<uint32_t> waiting(barriers_.size(), 0);
  for (const auto& warp : warps_) {
    live += lane_count(warp->live);
    for (const LaneGroup& g : warp->groups) {
      if (g.state == LaneGroup::at_barrier) waiting[barrier_id(*warp, g)] += lane_count(g.lanes);
    }
  }
  bool any = false;
  for (uint32_t id = 0; id < barriers_.size(); ++id) {
    const Barrier& barrier = barriers_[id];
    if (!waiting[id]) continue;
    const bool complete = barrier.expected >= 0 ? barrier.arrived >= barrier.expected : waiting[id] == live;
    if (!complete) continue;
    if (waiting[id] == live) {
      std::vector<uint32_t> met;
      for (const auto& warp : warps_) {
        if (warp->live) met.push_back(warp->index);
      }
      order.everyone_met(met);
    }
    open(id);
    any = true;
  }
  return any;
}

void Block::open(uint32_t id) {
  Barrier& barrier = barriers_[id];
  uint32_t threads = 0, votes = 0;
  for (bool counting : {true, false}) {
    for (auto& pointer : warps_) {
      Warp& warp = *pointer;
      for (LaneGroup& g : warp.groups) {
        if (g.state != LaneGroup::at_barrier || barrier_id(warp, g) != id) continue;
        const Instruction& i = program.code[g.pc];
        if (counting) {
          if (barrier.expected >= 0 && barrier.arrived > barrier.expected) {
            stop(kind::barrier_count, warp, first_lane(g.lanes), i, [&] {
              return format("%u threads arrived at barrier %u, which expects %lld", barrier.arrived, id,
                            static_cast<long long>(barrier.expected));
            });
          }
          threads += lane_count(g.lanes);
          votes += barrier_votes(warp, i, g.lanes);
          continue;
        }
        give_barrier_result(warp, i, g.lanes, votes, threads);
        order.leave(barrier.published, warp.index);
        ++g.pc;
        g.state = LaneGroup::running;
      }
    }
  }
  barrier = Barrier{};
}

// Nothing else can run: lanes that wait at an aligned barrier for the rest of their warp will wait for ever.
// On a chip what follows is undefined; here it is reported, and they count as arrived so that the rest of the
// kernel is seen too.
bool Block::force_divergent_barriers() {
  bool any = false;
  for (auto& pointer : warps_) {
    Warp& warp = *pointer;
    for (size_t k = 0; k < warp.groups.size(); ++k) {
      const LaneGroup& g = warp.groups[k];
      const Instruction& i = program.code[g.pc];
      if (g.state != LaneGroup::gathering || i.flow != Flow::barrier) continue;
      report(kind::barrier_divergence, warp, first_lane(g.lanes), i, [&] {
        return format("only lanes %s of live lanes %s are at this barrier:", lanes_text(g.lanes).c_str(),
                      lanes_text(warp.live).c_str()) +
               waiting_threads();
      });
      arrive(warp, k, i);
      any = true;
    }
  }
  return any;
}

}  // namespace pyconvx::emulator
