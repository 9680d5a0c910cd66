#include "plan/conv/rating.h"
#include "plan/conv_arguments.h"

#include <algorithm>

namespace pyconvx {
namespace {

const std::vector<TileShape>& tiles() {
  static const std::vector<TileShape> table = {
      {128, 128, 8, 4, 2, 4}, {128, 64, 8, 4, 1, 4}, {64, 128, 8, 2, 2, 4},
      {64, 64, 8, 2, 1, 4},   {32, 64, 8, 1, 1, 4},
  };
  return table;
}

int shared_bytes(const TileShape& tile, bool masked) {
  const int outputs = masked ? tile.pixels + 4 : 0;
  return (tile.pixels + tile.filters + 8 + outputs) * tile.depth * 4 * tile.stages;
}

Candidate rate_tile(const TileShape& tile, const Conv2dProblem& x, bool masked, const Device& device) {
  const double ffma = static_cast<double>(tile.pixels) * tile.filters * tile.depth;
  SliceWork slice;
  slice.tensor = ffma / device.ffma_per_clock;
  // Every FFMA is issued too: four sub-partitions issue 128 lanes a clock, of which a quarter does something
  // else.
  slice.issue = ffma * 1.3 / 128;
  const int loaded = (masked ? 2 : 1) * tile.pixels + tile.filters;
  slice.l2 = static_cast<double>(loaded) * tile.depth * 4 / kL2BytesPerClock;
  const int shared = shared_bytes(tile, masked);
  const int resident =
      shared > device.shared_per_block ? 0 : resident_blocks(tile.threads(), 128, shared, device);
  return rate(tile, x, slice, resident, 1500, device);
}

Kernel kernel_of(const TileShape& tile) {
  return {text("pyconvx::fprop_ffma<", tile.spelled(), ">"), "conv/fprop_ffma.cuh"};
}

}  // namespace

void list_fprop_ffma(std::vector<Kernel>& kernels) {
  for (const TileShape& tile : tiles()) kernels.push_back(kernel_of(tile));
}

std::string plan_fprop_ffma(FpropPlanner& planner) {
  planner.plan.family = "fprop_ffma";
  const TileShape* tile = planner.choose(tiles(), [&](const TileShape& tile) {
    return rate_tile(tile, planner.x, planner.masked, planner.device);
  });
  if (!tile) return planner.no_tile();
  Conv2dArguments args = planner.arguments();
  set_filter_tiles(args, tile->filters);
  const auto blocks = [&](const Conv2dArguments& args) {
    return ceil_div(args.pixels, tile->pixels) * args.by_filter_tiles.divisor;
  };
  planner.add_launches(planner.loading(kernel_of(*tile)), args, blocks, tile->threads(),
                       shared_bytes(*tile, planner.masked), planner.images_in_31_bits());
  return {};
}

}  // namespace pyconvx
