// wgrad on tensor cores, by a gather. Depths are in pixels.
#include "plan/conv/rating.h"
#include "plan/conv/wgrad.h"
#include "plan/conv_arguments.h"

#include <algorithm>

namespace pyconvx {
namespace {

const std::vector<TileShape>& tiles(int element_bytes) {
  static const std::vector<TileShape> of_16_bits = {
      // filters, columns, depth, warps, stages
      {128, 128, 64, 2, 2, 3}, {128, 128, 32, 2, 2, 4}, {128, 64, 32, 2, 2, 4},
      {64, 128, 32, 2, 2, 4},  {64, 64, 64, 2, 2, 3},   {64, 64, 32, 2, 2, 4},
  };
  static const std::vector<TileShape> of_32_bits = [] {
    std::vector<TileShape> halved = of_16_bits;
    for (TileShape& tile : halved) tile.depth /= 2;
    return halved;
  }();
  return element_bytes == 2 ? of_16_bits : of_32_bits;
}

Kernel kernel_of(const char* element, const TileShape& tile, bool linear, std::array<int, 2> vectors,
                 const std::string& flags) {
  return {text("pyconvx::wgrad_tensor_core<", element, ", ", wgrad_tile(tile), ", ",
               linear ? "true" : "false", ", ", vectors[0], ", ", vectors[1], ", ", flags, ">"),
          "conv/wgrad_tensor_core.cuh"};
}

bool is_common(const TileShape& tile) {  // compiled ahead of time
  return tile.pixels == tile.filters && tile.stages == 4;
}

// Elements that are copied one by one need registers, which the largest tiles have not to spare.
bool copies_elements(const TileShape& tile) {
  return tile.pixels * tile.filters <= 64 * tile.threads();
}

Candidate rate_tile(const WgradPlanner& planner, const TileShape& tile, const WgradPlanner::Split& runs,
                    int64_t columns) {
  const Device& device = planner.device;
  const int bytes = planner.bytes, warps = tile.warps_m * tile.warps_n, steps = tile.depth * bytes / 32;
  const int m = tile.pixels / tile.warps_m / 16, n = tile.filters / tile.warps_n / 8;
  const int hmma = m * n * steps;
  // Elements of 32 bits are read one by one.
  const int reads = (bytes == 2 ? m + n / 2 : 4 * m + 2 * n) * steps;
  const int read_bytes = bytes == 2 ? 512 : 128;
  const int copied = (tile.pixels + tile.filters) * tile.depth * bytes;
  const auto [y, x] = planner.gather_vectors();
  const double copies = static_cast<double>(tile.depth) * bytes / tile.threads() *
                        (static_cast<double>(tile.pixels) / y + static_cast<double>(tile.filters) / x);
  // A copy that is masked: the outputs' address and load, 8 instructions or 16, a load and a store of shared
  // memory.
  const double masked = planner.x.masked ? 16.0 * tile.pixels * tile.depth * bytes / 16 / tile.threads() : 0;
  // For each pixel of a slice one thread makes an entry of the table.
  const double entries = never_outside(planner.x) ? 0 : static_cast<double>(tile.depth) / tile.threads();
  SliceWork slice;
  slice.tensor = hmma * warps * device.slots_per_hmma / 4;
  slice.issue = (hmma + reads + copies * 5 + masked + entries * 70 + 30) * warps / 4;
  slice.shared = (static_cast<double>(reads) * warps * read_bytes + copied) / kSharedBytesPerClock;
  slice.l2 = copied / kL2BytesPerClock;
  const int registers = std::min(m * n * 4 + 2 * (m * 4 + n * 2) + 70, 255);
  const int resident = resident_blocks(tile.threads(), registers, planner.shared_bytes(tile), device);
  Candidate candidate = planner.rate_tile(tile, runs, ceil_div(runs.run, tile.depth), columns, slice,
                                          resident, 1500 + 0.5 * tile.pixels * tile.filters / warps / 8);
  const bool ahead_of_time = planner.options.ahead_of_time;
  // Outputs that mask wait in registers, which a thread that copies much has not to spare.
  const bool masks_too_much = planner.x.masked && tile.pixels * tile.depth * bytes > 64 * tile.threads();
  const bool no_kernel = masks_too_much || (ahead_of_time && !is_common(tile)) ||
                         ((std::min(y, x) < 4 || (ahead_of_time && y < 16)) && !copies_elements(tile));
  if (no_kernel || planner.shared_bytes(tile) > device.shared_per_block) candidate.blocks_per_sm = 0;
  return candidate;
}

}  // namespace

void list_wgrad_tensor_core(std::vector<Kernel>& kernels) {
  for (const char* element : {"pyconvx::f16", "pyconvx::bf16", "pyconvx::tf32"}) {
    const int bytes = element == std::string("pyconvx::tf32") ? 4 : 2;
    for (const TileShape& tile : tiles(bytes))
      for (bool linear : {true, false}) {
        if (!is_common(tile)) continue;
        kernels.push_back(kernel_of(element, tile, linear, {16, 16}, "true"));
        if (copies_elements(tile))
          kernels.push_back(kernel_of(element, tile, linear, {bytes, bytes}, "true"));
      }
  }
}

std::string plan_wgrad_tensor_core(WgradPlanner& planner) {
  const Conv2dProblem& x = planner.x;
  planner.plan.family = "wgrad_tensor_core";
  const int64_t most = planner.images_in_31_bits();
  const auto runs = planner.split(std::min(most, x.n), std::min(most, x.n) * x.p() * x.q(), 64, 256);
  const WgradPlanner::Columns columns = planner.window_columns();
  const TileShape* tile = planner.choose(tiles(planner.bytes), [&](const TileShape& tile) {
    return rate_tile(planner, tile, runs, columns.all(x));
  });
  if (!tile) return planner.no_tile();
  WgradArguments args = planner.wgrad_arguments();
  set_wgrad_tiles(args, x, *tile, columns);
  planner.add_wgrad(
      kernel_of(element_name(x.dtype, planner.options.tf32), *tile, never_outside(x),
                planner.gather_vectors(), planner.flags()),
      args, most, 64, 256, [&](int64_t images) { return images * x.p() * x.q(); },
      [&](int64_t) { return int64_t{args.by_tiles.divisor}; }, tile->threads(), planner.shared_bytes(*tile));
  return {};
}

}  // namespace pyconvx
