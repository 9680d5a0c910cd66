// wgrad of 3 x 3 windows with a patch of the input kept for all taps: there is one tile, 64 filters by 32
// channels.
#include "plan/conv/rating.h"
#include "plan/conv/wgrad.h"
#include "plan/conv_arguments.h"

#include <algorithm>

namespace pyconvx {
namespace {

constexpr int kTile = 8, kFilters = 64, kChannels = 32, kStages = 3;

int shared_bytes(int64_t stride, bool masked) {
  const int64_t rows = (kTile - 1) * stride + 3, row = stride == 1 ? rows : (rows + 1) / 2 * 2;
  return static_cast<int>(
      kStages * ((masked ? 2 : 1) * kTile * kTile * (kFilters * 2 + 16) + rows * row * (kChannels * 2 + 16)));
}

// Bytes from one tile to the next, where a pixel has `pixel` bytes and a tile covers `tile` x `tile` of size.
void set_steps(long long (&steps)[3], int64_t height, int64_t width, int64_t pixel, int64_t tile,
               int64_t tiles_down, int64_t tiles_across) {
  steps[0] = tile * pixel;
  steps[1] = (tile * width - tiles_across * tile) * pixel;
  steps[2] = (height - tiles_down * tile) * width * pixel;
}

Kernel kernel_of(const char* element, int64_t stride, std::array<int, 2> vectors, const std::string& flags) {
  return {text("pyconvx::wgrad_patch<", element, ", ", stride, ", ", vectors[0], ", ", vectors[1], ", ",
               flags, ">"),
          "conv/wgrad_patch.cuh"};
}

}  // namespace

void list_wgrad_patch(std::vector<Kernel>& kernels) {
  for (const char* element : {"pyconvx::f16", "pyconvx::bf16"})
    for (int stride : {1, 2})
      for (int vector : {16, 2}) kernels.push_back(kernel_of(element, stride, {vector, vector}, "true"));
}

bool has_wgrad_patch(const Conv2dProblem& x) {
  return x.r == 3 && x.s == 3 && x.stride_h == x.stride_w && x.stride_h <= 2 && x.dilation_h == 1 &&
         x.dilation_w == 1 && x.c / x.groups >= 16 && element_bytes(x.dtype) == 2;
}

std::string plan_wgrad_patch(WgradPlanner& planner) {
  const Conv2dProblem& x = planner.x;
  planner.plan.family = "wgrad_patch";
  static const std::vector<TileShape> table = {{kFilters, 9 * kChannels, kTile * kTile, 1, 4, kStages}};
  const int64_t tiles_down = ceil_div(x.p(), kTile), tiles_across = ceil_div(x.q(), kTile);
  const int shared = shared_bytes(x.stride_h, x.masked);
  const int64_t most = planner.images_in_31_bits();
  const auto units = [&](int64_t images) { return images * tiles_down * tiles_across; };
  const auto runs = planner.split(std::min(most, x.n), units(std::min(most, x.n)), 1, 4);
  const TileShape* tile = planner.choose(table, [&](const TileShape& tile) {
    const int resident = resident_blocks(tile.threads(), 255, shared, planner.device);
    const int hmma = 4 * 36, warps = 4;  // of a warp, and a tile of pixels
    SliceWork slice;
    slice.tensor = hmma * warps * planner.device.slots_per_hmma / 4, slice.issue = hmma * 2.1 * warps / 4;
    return planner.rate_tile(tile, runs, runs.run,
                             9 * ceil_div(planner.group_channels(), kChannels) * kChannels, slice, resident,
                             1500);
  });
  if (!tile) return planner.no_tile();
  WgradArguments args = planner.wgrad_arguments();
  const int64_t across = ceil_div(planner.group_channels(), kChannels);
  const int64_t down = ceil_div(planner.group_filters(), kFilters);
  args.by_column_tiles = division_by(static_cast<unsigned>(across));
  args.by_group_tiles = division_by(static_cast<unsigned>(across * down));
  args.by_tiles = division_by(static_cast<unsigned>(across * down * x.groups));
  args.rows_of_tiles = static_cast<int>(tiles_down);
  set_steps(args.y_steps, x.p(), x.q(), x.k * 2, kTile, tiles_down, tiles_across);
  set_steps(args.x_steps, x.h, x.w, x.c * 2, kTile * x.stride_h, tiles_down, tiles_across);
  planner.add_wgrad(
      kernel_of(element_name(x.dtype), x.stride_h, planner.vectors(), planner.flags()), args, most, 1, 4,
      units, [&](int64_t) { return int64_t{args.by_tiles.divisor}; }, tile->threads(), shared);
  return {};
}

}  // namespace pyconvx
