// Tensor cores, by a gather. Depths are in elements: rows of 64 or 128 bytes.
#include "plan/conv/rating.h"
#include "plan/conv_arguments.h"

#include <algorithm>

namespace pyconvx {
namespace {

std::vector<TileShape> tiles(int element_bytes, bool masked) {
  static const std::vector<TileShape> of_16_bits = {
      // pixels, filters, depth, warps, stages
      {256, 128, 32, 4, 2, 3}, {256, 64, 32, 4, 1, 4}, {128, 256, 32, 2, 4, 3}, {128, 128, 64, 2, 2, 3},
      {128, 128, 32, 2, 2, 4}, {128, 64, 64, 2, 2, 3}, {128, 64, 32, 2, 2, 4},  {64, 128, 64, 2, 2, 3},
      {64, 128, 32, 2, 2, 4},  {128, 32, 32, 4, 1, 4}, {64, 64, 64, 2, 2, 3},   {64, 64, 32, 2, 2, 4},
      {64, 32, 64, 4, 1, 3},   {32, 64, 64, 2, 2, 3},
  };
  static const std::vector<TileShape> of_32_bits = [] {
    std::vector<TileShape> halved = of_16_bits;
    for (TileShape& tile : halved) tile.depth /= 2;
    return halved;
  }();
  std::vector<TileShape> all = element_bytes == 2 ? of_16_bits : of_32_bits;
  // The outputs of a ReLU take the place of a stage, so that as many blocks share an SM.
  if (masked)
    for (TileShape& tile : all) tile.stages = std::min(tile.stages, 3);
  return all;
}

int shared_bytes(const TileShape& tile, int element_bytes, bool masked) {
  return ((masked ? 2 : 1) * tile.pixels + tile.filters) * tile.depth * element_bytes * tile.stages;
}

Candidate rate_tile(const TileShape& tile, const Conv2dProblem& x, bool masked, const Device& device) {
  const int bytes = element_bytes(x.dtype);
  const int warps = tile.warps_m * tile.warps_n, steps = tile.depth * bytes / 32;
  const int m = tile.pixels / tile.warps_m / 16, n = tile.filters / tile.warps_n / 8;
  const int hmma = m * n * steps, ldmatrix = (m + n / 2) * steps;  // of a warp
  const int copied = ((masked ? 2 : 1) * tile.pixels + tile.filters) * tile.depth * bytes;
  const double copies = static_cast<double>(copied) / 16 / tile.threads();  // of a thread
  const double masks = masked ? tile.pixels * tile.depth * bytes / 16.0 / tile.threads() : 0;
  SliceWork slice;
  slice.tensor = hmma * warps * device.slots_per_hmma / 4;
  // Copies come with their addresses and bit tests; 30 instructions run the loop. A mask takes 11 of them,
  // and reads and writes what was copied.
  slice.issue = (hmma + ldmatrix + 4 * copies + 11 * masks + 30) * warps / 4;
  slice.shared = (ldmatrix * warps * 512.0 + copied + 48 * masks * tile.threads()) / kSharedBytesPerClock;
  slice.l2 = copied / kL2BytesPerClock;
  const int registers = std::min(m * n * 4 + 2 * (m * 4 + n * 2) + 60, 255);
  const int resident = resident_blocks(tile.threads(), registers, shared_bytes(tile, bytes, masked), device);
  const double latency =
      1500 + 0.5 * tile.pixels * tile.filters / warps / 8;  // first slices' way, and the epilogue
  return rate(tile, x, slice, resident, latency, device);
}

// Taps that the kernel is compiled for: common windows, as constants; 0 x 0 stands for any. A window of one
// tap is compiled only where it never leaves the image: there the kernel has no spatial arithmetic in its
// loop.
std::array<int64_t, 2> constant_taps(const Conv2dProblem& x) {
  const bool padded = x.pad_top || x.pad_bottom || x.pad_left || x.pad_right;
  if (x.r == 1 && x.s == 1) return padded ? std::array<int64_t, 2>{0, 0} : std::array<int64_t, 2>{1, 1};
  const bool line = std::min(x.r, x.s) == 1 && std::max(x.r, x.s) <= 7;
  const bool square = x.r == x.s && (x.r == 3 || x.r == 5);
  return line || square ? std::array<int64_t, 2>{x.r, x.s} : std::array<int64_t, 2>{0, 0};
}

// Of all tiles, windows and vector lengths, those that are compiled ahead of time: three tiles, for aligned
// channels with no constant window or one tap; and one tile that copies element by element.
bool is_common(const TileShape& tile, int element_bytes) {
  return tile.depth * element_bytes == 64 &&
         ((tile.pixels == 128 && (tile.filters == 128 || tile.filters == 64)) ||
          (tile.pixels == 64 && tile.filters == 64));
}

bool copies_elements(const TileShape& tile) {
  // Elements that are copied one by one need registers, which the largest tiles have not to spare.
  return tile.pixels * tile.filters <= 64 * tile.threads();
}

Kernel kernel_of(const char* element, const TileShape& tile, std::array<int64_t, 2> taps, int vector) {
  return {text("pyconvx::fprop_tensor_core<", element, ", ", tile.spelled(), ", ", taps[0], ", ", taps[1],
               ", ", vector, ">"),
          "conv/fprop_tensor_core.cuh"};
}

}  // namespace

void list_fprop_tensor_core(std::vector<Kernel>& kernels) {
  for (const char* element : {"pyconvx::f16", "pyconvx::bf16", "pyconvx::tf32"}) {
    const int bytes = element == std::string("pyconvx::tf32") ? 4 : 2;
    for (const TileShape& tile : tiles(bytes, false)) {
      if (!is_common(tile, bytes)) continue;
      for (int64_t taps : {0, 1}) kernels.push_back(kernel_of(element, tile, {taps, taps}, 16));
      if (copies_elements(tile)) kernels.push_back(kernel_of(element, tile, {0, 0}, bytes));
    }
  }
}

std::string plan_fprop_tensor_core(FpropPlanner& planner) {
  const Conv2dProblem& x = planner.x;
  const bool ahead_of_time = planner.options.ahead_of_time;
  planner.plan.family = "fprop_tensor_core";
  int vector = common_vector(x.c / x.groups, planner.bytes, planner.options.alignment);
  if (ahead_of_time && vector < 16) vector = planner.bytes;
  const std::vector<TileShape> all = tiles(planner.bytes, planner.masked);
  const TileShape* tile = planner.choose(all, [&](const TileShape& tile) {
    Candidate candidate = rate_tile(tile, x, planner.masked, planner.device);
    const bool no_kernel = (ahead_of_time && !is_common(tile, planner.bytes)) ||
                           ((vector < 4 || (ahead_of_time && vector < 16)) && !copies_elements(tile));
    if (no_kernel || shared_bytes(tile, planner.bytes, planner.masked) > planner.device.shared_per_block)
      candidate.blocks_per_sm = 0;
    return candidate;
  });
  if (!tile) return planner.no_tile();
  Conv2dArguments args = planner.arguments();
  set_filter_tiles(args, tile->filters);
  std::array<int64_t, 2> taps = constant_taps(x);
  if (ahead_of_time && (vector < 16 || taps[0] * taps[1] > 1)) taps = {0, 0};
  const Kernel kernel =
      planner.loading(kernel_of(element_name(x.dtype, planner.options.tf32), *tile, taps, vector));
  const auto blocks = [&](const Conv2dArguments& args) {
    return ceil_div(args.pixels, tile->pixels) * args.by_filter_tiles.divisor;
  };
  planner.add_launches(kernel, args, blocks, tile->threads(),
                       shared_bytes(*tile, planner.bytes, planner.masked), planner.images_in_31_bits());
  return {};
}

}  // namespace pyconvx
