// Few channels: blocks of 8 x 16 pixels, whose depth is the whole reduction.
#include "plan/conv/rating.h"
#include "plan/conv_arguments.h"

#include <algorithm>

namespace pyconvx {
namespace {

const std::vector<TileShape>& tiles() {
  static const std::vector<TileShape> table = {{128, 64, 0, 4, 1, 2}, {128, 32, 0, 4, 1, 2}};
  return table;
}

Candidate rate_tile(const TileShape& tile, const Conv2dProblem& x, const Device& device) {
  const int bytes = element_bytes(x.dtype);
  const int64_t steps = x.r * ceil_div(x.s, 8 / bytes);
  const double hmma = 2.0 * tile.filters / 8 * static_cast<double>(steps);  // of a warp
  // Twice as many instructions in the loop, and some 150 for a patch's addresses and the epilogue.
  const double clocks = std::max(hmma * device.slots_per_hmma, hmma * 2 + 150);
  const int64_t shared = few_channels_shared_bytes(x, tile.filters);
  const int resident =
      shared > device.shared_per_block ? 0 : resident_blocks(128, 200, static_cast<int>(shared), device);
  const int64_t tiles = x.n * ceil_div(x.p(), 8) * ceil_div(x.q(), 16) * ceil_div(x.k, tile.filters);
  const int64_t slots = static_cast<int64_t>(device.sms) * std::max(resident, 1);
  Candidate candidate;
  candidate.tile = text("8x16x", tile.filters);
  candidate.blocks_per_sm = resident;
  candidate.waves = static_cast<double>(tiles) / static_cast<double>(slots);
  candidate.clocks = static_cast<double>(ceil_div(tiles, slots)) * resident * clocks;
  return candidate;
}

}  // namespace

int64_t few_channels_shared_bytes(const Conv2dProblem& x, int filters) {
  const int64_t pixel = 4 * element_bytes(x.dtype), taps = 32 / pixel;
  const int64_t filter = (x.r * ceil_div(x.s, taps) * 2 | 1) * 16;
  const int64_t rows = 7 * x.stride_h + (x.r - 1) * x.dilation_h + 1;
  const int64_t columns = 15 * x.stride_w + (x.s - 1) * x.dilation_w + 1;
  const double bytes = static_cast<double>(rows) * static_cast<double>(columns) * static_cast<double>(pixel);
  if (bytes > 1 << 24) return 1 << 26;  // more than any chip has
  return filters * filter + 2 * (ceil_div(rows * columns * pixel, 16) * 16);
}

std::string plan_fprop_few_channels(FpropPlanner& planner) {
  const Conv2dProblem& x = planner.x;
  const Device& device = planner.device;
  planner.plan.family = "fprop_few_channels";
  const TileShape* tile =
      planner.choose(tiles(), [&](const TileShape& tile) { return rate_tile(tile, x, device); });
  if (!tile) return planner.no_tile();
  Conv2dArguments args = planner.arguments();
  set_filter_tiles(args, tile->filters);
  const bool square = x.r == x.s && x.stride_h == x.stride_w && x.dilation_h == 1 && x.dilation_w == 1;
  const bool constant = square && ((x.r == 3 && x.stride_h <= 2) || (x.r == 5 && x.stride_h == 1) ||
                                   (x.r == 7 && x.stride_h == 2) || (x.r == 11 && x.stride_h == 4));
  const int64_t r = constant ? x.r : 0, s = constant ? x.s : 0, stride = constant ? x.stride_h : 0;
  const int vector = common_vector(x.c, planner.bytes, planner.options.alignment);
  const std::string kernel = text("pyconvx::fprop_few_channels<", element_name(x.dtype, planner.options.tf32),
                                  ", ", tile->filters, ", ", r, ", ", s, ", ", stride, ", ", vector, ">");
  // As many blocks as are resident at once: each keeps its filters and walks over tiles of pixels.
  const int64_t filter_tiles = args.by_filter_tiles.divisor;
  const int64_t resident = rate_tile(*tile, x, device).blocks_per_sm * device.sms;
  const auto blocks = [&](Conv2dArguments& args) {
    set_pixel_tiles(args, 8, 16);
    return std::min<int64_t>(args.tiles, std::max<int64_t>(1, resident / filter_tiles)) * filter_tiles;
  };
  planner.add_launches(kernel, "conv/fprop_few_channels.cuh", args, blocks, 128,
                       static_cast<int>(few_channels_shared_bytes(x, tile->filters)),
                       planner.images_in_31_bits());
  return {};
}

}  // namespace pyconvx
