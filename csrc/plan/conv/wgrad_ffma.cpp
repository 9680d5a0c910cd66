#include "plan/conv/rating.h"
#include "plan/conv/wgrad.h"
#include "plan/conv_arguments.h"

#include <algorithm>

namespace pyconvx {
namespace {

const std::vector<TileShape>& tiles() {
  static const std::vector<TileShape> table = {
      {128, 128, 8, 4, 2, 4},
      {128, 64, 8, 4, 1, 4},
      {64, 128, 8, 2, 2, 4},
      {64, 64, 8, 2, 1, 4},
  };
  return table;
}

Kernel kernel_of(const TileShape& tile, bool linear, std::array<int, 2> vectors, const std::string& flags) {
  return {text("pyconvx::wgrad_ffma<", wgrad_tile(tile), ", ", linear ? "true" : "false", ", ", vectors[0],
               ", ", vectors[1], ", ", flags, ">"),
          "conv/wgrad_ffma.cuh"};
}

bool is_common(const TileShape& tile) {  // compiled ahead of time
  return tile.pixels == tile.filters;
}

}  // namespace

void list_wgrad_ffma(std::vector<Kernel>& kernels) {
  for (const TileShape& tile : tiles())
    for (bool linear : {true, false})
      for (int vector : {16, 4})
        if (is_common(tile)) kernels.push_back(kernel_of(tile, linear, {vector, vector}, "true"));
}

std::string plan_wgrad_ffma(WgradPlanner& planner) {
  const Conv2dProblem& x = planner.x;
  const Device& device = planner.device;
  planner.plan.family = "wgrad_ffma";
  const int64_t most = planner.images_in_31_bits();
  const auto runs = planner.split(std::min(most, x.n), std::min(most, x.n) * x.p() * x.q(), 64, 256);
  const WgradPlanner::Columns columns = planner.window_columns();
  const TileShape* tile = planner.choose(tiles(), [&](const TileShape& tile) {
    const double ffma = static_cast<double>(tile.pixels) * tile.filters * tile.depth;
    const double bytes = static_cast<double>(tile.pixels + tile.filters) * tile.depth * 4;
    SliceWork slice;
    slice.tensor = ffma / device.ffma_per_clock, slice.issue = ffma * 1.3 / 128;
    slice.l2 = bytes / kL2BytesPerClock;
    const int resident = resident_blocks(tile.threads(), 128, planner.shared_bytes(tile), device);
    Candidate candidate =
        planner.rate_tile(tile, runs, ceil_div(runs.run, tile.depth), columns.all(x), slice, resident, 1500);
    if (planner.options.ahead_of_time && !is_common(tile)) candidate.blocks_per_sm = 0;
    return candidate;
  });
  if (!tile) return planner.no_tile();
  WgradArguments args = planner.wgrad_arguments();
  set_wgrad_tiles(args, x, *tile, columns);
  planner.add_wgrad(
      kernel_of(*tile, never_outside(x), planner.gather_vectors(), planner.flags()), args, most, 64, 256,
      [&](int64_t images) { return images * x.p() * x.q(); },
      [&](int64_t) { return int64_t{args.by_tiles.divisor}; }, tile->threads(), planner.shared_bytes(*tile));
  return {};
}

}  // namespace pyconvx
