// Which lanes of a block run when. Lanes at one instruction run together, the lowest instruction first, so
// that lanes that went different ways meet again where their ways do; warps take turns when they have to
// wait.
#include <algorithm>
#include <climits>
#include <numeric>

#include "access.h"
#include "block.h"

namespace pyconvx::emulator {

constexpr uint64_t kTurn =
    200000;  // warp instructions; a warp that spins on shared memory must let others run

void Block::run_warps() {
  std::vector<int> turns(warps_.size());
  std::iota(turns.begin(), turns.end(), 0);
  const Order how = launch.options.order;
  if (how == Order::descending) std::reverse(turns.begin(), turns.end());
  while (std::any_of(warps_.begin(), warps_.end(), [](const auto& w) { return w->live != 0; })) {
    if (launch.stopped.load(std::memory_order_relaxed)) throw BlockStopped{};
    if (how == Order::random) std::shuffle(turns.begin(), turns.end(), random_);
    bool progress = false;
    for (int w : turns) {
      const auto& groups = warps_[w]->groups;
      if (std::none_of(groups.begin(), groups.end(),
                       [](const LaneGroup& g) { return g.state == LaneGroup::running; }))
        continue;
      advance(*warps_[w], how == Order::random ? 50 + random_() % 2000 : kTurn);
      progress = true;
    }
    if (open_barriers()) progress = true;
    if (!progress && !force_divergent_barriers()) report_deadlock();
  }
}

bool Block::advance(Warp& warp, uint64_t budget) {
  for (;;) {
    if (warp.groups.size() > 1) merge_groups(warp);
    const int group = choose_group(warp);
    if (group < 0) return false;
    run_group(warp, group, budget);
    if (!budget) return true;
  }
}

// Lanes that wait for others go on trying when more of them have come.
void Block::merge_groups(Warp& warp) {
  auto& groups = warp.groups;
  for (size_t i = 0; i < groups.size(); ++i) {
    for (size_t j = i + 1; j < groups.size();) {
      if (groups[i].pc != groups[j].pc || groups[i].state == LaneGroup::at_barrier ||
          groups[j].state == LaneGroup::at_barrier ||
          (groups[i].state == LaneGroup::gathering && groups[j].state == LaneGroup::gathering)) {
        ++j;
        continue;
      }
      groups[i].lanes |= groups[j].lanes;
      groups[i].state = LaneGroup::running;
      groups.erase(groups.begin() + j);
    }
  }
}

int Block::choose_group(Warp& warp) {
  int best = -1, runnable = 0;
  for (size_t k = 0; k < warp.groups.size(); ++k) {
    if (warp.groups[k].state != LaneGroup::running) continue;
    ++runnable;
    if (best < 0 || warp.groups[k].pc < warp.groups[best].pc) best = static_cast<int>(k);
  }
  if (runnable > 1 && launch.options.order == Order::random) {
    int skip = static_cast<int>(random_() % runnable);
    for (size_t k = 0; k < warp.groups.size(); ++k) {
      if (warp.groups[k].state == LaneGroup::running && skip-- == 0) best = static_cast<int>(k);
    }
  }
  return best;
}

// Runs one group until it splits, waits, ends, meets another group or has used up its budget.
void Block::run_group(Warp& warp, size_t index, uint64_t& budget) {
  int pc = warp.groups[index].pc;
  const LaneMask lanes = warp.groups[index].lanes;
  const bool alone = warp.groups.size() == 1;
  const bool shuffled = !alone && launch.options.order == Order::random;
  uint64_t slice = shuffled ? 1 + random_() % 64 : ~uint64_t(0);
  // Where this group has to stop for another: at its instruction to join it, past it to let it go first.
  int meets[kLanes], meeting = 0, overtakes = INT_MAX;
  for (size_t k = 0; k < warp.groups.size(); ++k) {
    const LaneGroup& other = warp.groups[k];
    if (k == index || other.state == LaneGroup::at_barrier) continue;
    meets[meeting++] = other.pc;
    if (other.state == LaneGroup::running) overtakes = std::min(overtakes, other.pc);
  }
  for (;;) {
    const Instruction& i = program.code[pc];
    LaneMask active = lanes;
    if (i.guard) {
      if (checking) require_defined(warp, i, lanes, i.guard, "the guard");
      const LaneMask guard = warp.predicate(i.guard);
      active &= i.guard_negated ? ~guard : guard;
    }
    if (++steps_ > launch.options.max_steps) {
      stop(kind::step_limit, warp, first_lane(lanes), i, [&] {
        return format("the block has run %llu warp instructions: an endless loop, or max_steps is too small",
                      static_cast<unsigned long long>(launch.options.max_steps));
      });
    }
    SiteCounts& site = counts[pc];
    ++site.warps;
    site.threads += lane_count(active);
    if (i.flow == Flow::straight) {
      if (active) execute(warp, i, active);
      ++pc;
    } else if (!active) {
      ++pc;
    } else if (i.flow == Flow::branch && active == lanes) {
      pc = i.target;
    } else {
      warp.groups[index] = {pc, lanes, LaneGroup::running};
      change_flow(warp, index, i, active);
      --budget;
      return;
    }
    bool stop_here = --budget == 0 || --slice == 0 || (pc >= overtakes && !shuffled);
    for (int k = 0; k < meeting; ++k) stop_here |= pc == meets[k];
    if (stop_here) {
      warp.groups[index] = {pc, lanes, LaneGroup::running};
      return;
    }
  }
}

// What an undefined value may not do is decide: be an address, a guard, or go to memory; those places ask for
// it.
void Block::execute(Warp& warp, const Instruction& i, LaneMask active) {
  if (!checking || i.defined == Defined::by_handler) return i.run(warp, i, active);
  LaneMask all = kAllLanes, any = i.sources ? 0 : kAllLanes;
  for (int k = 0; k < i.sources; ++k) {
    if (!i.source[k]) continue;
    all &= warp.defined(i.source[k]);
    any |= warp.defined(i.source[k]);
  }
  i.run(warp, i, active);
  const LaneMask defined = i.defined == Defined::where_any_source ? any : all;
  for (int k = 0; k < i.destinations; ++k) {
    if (!i.destination[k]) continue;
    LaneMask& mask = warp.defined(i.destination[k]);
    mask = (mask & ~active) | (defined & active);
  }
}

std::string Block::waiting_threads() const {
  std::string text;
  int groups = 0;
  for (const auto& warp : warps_) {
    for (const LaneGroup& g : warp->groups) {
      if (++groups > 12) continue;
      const Instruction& i = program.code[g.pc];
      text += format("\n    warp %u lanes %s wait at PTX line %d: %s", warp->index,
                     lanes_text(g.lanes).c_str(), i.line, program.text(i).c_str());
    }
  }
  if (groups > 12) text += format("\n    and %d more groups of lanes", groups - 12);
  return text;
}

void Block::report_deadlock() {
  for (const auto& warp : warps_) {
    for (const LaneGroup& g : warp->groups) {
      const Instruction& i = program.code[g.pc];
      if (i.flow == Flow::collective || i.flow == Flow::whole_warp) {
        stop(kind::missing_lanes, *warp, first_lane(g.lanes), i, [&] {
          return format("lanes %s of live lanes %s wait for lanes that never come:",
                        lanes_text(g.lanes).c_str(), lanes_text(warp->live).c_str()) +
                 waiting_threads();
        });
      }
    }
  }
  for (const auto& warp : warps_) {
    for (const LaneGroup& g : warp->groups) {
      stop(kind::deadlock, *warp, first_lane(g.lanes), program.code[g.pc],
           [&] { return "no thread of the block can go on:" + waiting_threads(); });
    }
  }
  throw BlockStopped{};
}

}  // namespace pyconvx::emulator
