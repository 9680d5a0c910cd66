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

// The window and stride that the kernel has as constants: {R and S, stride}, or zeros.
std::array<int64_t, 2> constant_window(const Conv2dProblem& x) {
  const bool square = x.r == x.s && x.stride_h == x.stride_w && x.dilation_h == 1 && x.dilation_w == 1;
  const bool constant = square && ((x.r == 3 && x.stride_h <= 2) || (x.r == 5 && x.stride_h == 1) ||
                                   (x.r == 7 && x.stride_h == 2) || (x.r == 11 && x.stride_h == 4));
  return constant ? std::array<int64_t, 2>{x.r, x.stride_h} : std::array<int64_t, 2>{0, 0};
}

Kernel kernel_of(const char* element, int filters, std::array<int64_t, 2> window, int vector) {
  return {text("pyconvx::fprop_few_channels<", element, ", ", filters, ", ", window[0], ", ", window[0], ", ",
               window[1], ", ", vector, ">"),
          "conv/fprop_few_channels.cuh"};
}

// Those that are compiled ahead of time read element by element.
constexpr std::array<int64_t, 2> kCommonWindows[] = {{0, 0}, {3, 1}, {3, 2}, {7, 2}};

}  // namespace

void list_fprop_few_channels(std::vector<Kernel>& kernels) {
  for (const char* element : {"pyconvx::f16", "pyconvx::bf16", "pyconvx::tf32"})
    for (const TileShape& tile : tiles())
      for (const auto& window : kCommonWindows)
        kernels.push_back(
            kernel_of(element, tile.filters, window, element == std::string("pyconvx::tf32") ? 4 : 2));
}

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
  std::array<int64_t, 2> window = constant_window(x);
  int vector = common_vector(x.c, planner.bytes, planner.options.alignment);
  if (planner.options.ahead_of_time) {
    vector = planner.bytes;
    if (std::find(std::begin(kCommonWindows), std::end(kCommonWindows), window) == std::end(kCommonWindows))
      window = {0, 0};
  }
  const Kernel kernel = kernel_of(element_name(x.dtype, planner.options.tf32), tile->filters, window, vector);
  // As many blocks as are resident at once: each keeps its filters and walks over tiles of pixels.
  const int64_t filter_tiles = args.by_filter_tiles.divisor;
  const int64_t resident = rate_tile(*tile, x, device).blocks_per_sm * device.sms;
  const auto blocks = [&](Conv2dArguments& args) {
    set_pixel_tiles(args, 8, 16);
    return std::min<int64_t>(args.tiles, std::max<int64_t>(1, resident / filter_tiles)) * filter_tiles;
  };
  planner.add_launches(kernel, args, blocks, 128,
                       static_cast<int>(few_channels_shared_bytes(x, tile->filters)),
                       planner.images_in_31_bits());
  return {};
}

}  // namespace pyconvx
