// Few channels: blocks of rows of 16 pixels, whose depth is the whole reduction. Two kernels: one for common
// windows of 3 or 4 channels, known when it is compiled, and one for any. Which of them runs follows from the
// filter.
#include "plan/conv/rating.h"
#include "plan/conv_arguments.h"

#include <algorithm>

namespace pyconvx {
namespace {

constexpr int kThreads = 128, kColumns = 16;

// Of a row of the window, what is no tap in front of it.
int front(const Conv2dProblem& x) {
  return element_bytes(x.dtype) == 2 ? static_cast<int>(x.pad_left % 2) : 0;
}

// Of p x 16 pixels.
TileShape tile_of(int p, int filters) {
  return {p * kColumns, filters, 0, 4, 1, 2};
}

int rows_of(const TileShape& tile) {
  return tile.pixels / kColumns;
}

// What a kernel for this window is compiled with: fprop_few_channels.cuh derives it.
struct Stem {
  int copies, step, steps, units, rows, columns;  // columns: of a patch's copiers

  Stem(const Conv2dProblem& x, int p) {
    const int bytes = element_bytes(x.dtype), u = 4 / bytes, stride = static_cast<int>(x.stride_w);
    copies = stride % u == 0 ? 1 : 2;
    step = stride * copies / u;
    steps = static_cast<int>(ceil_div(front(x) + x.s, 2 * u));
    units = step * (kColumns / copies - 1) + 2 * steps;
    rows = static_cast<int>((p - 1) * x.stride_h + x.r);
    const bool widens = x.c == 3 && bytes == 2;
    columns = widens ? ((copies - 1) * stride + u * units + 1) / 2 : copies * units;
  }

  int shared_bytes(const Conv2dProblem& x, int filters) const {
    const int at_once = kThreads / columns, passes = static_cast<int>(ceil_div(rows, at_once));
    const int row = copies * step * static_cast<int>(ceil_div(units, step));
    const int filter_pitch = static_cast<int>((x.r * steps * 2) | 1) * 16;
    return filters * filter_pitch + 2 * passes * at_once * row * 16;
  }
};

bool is_common(const Conv2dProblem& x) {
  const bool square = x.r == x.s && x.stride_h == x.stride_w && x.dilation_h == 1 && x.dilation_w == 1;
  const bool window =
      ((x.r == 3 || x.r == 5 || x.r == 7) && x.stride_h <= 2) || (x.r == 11 && x.stride_h == 4);
  return square && window && (x.c == 3 || x.c == 4);
}

int64_t any_shared_bytes(const Conv2dProblem& x, int filters, bool masked) {
  const int64_t pixel = 4 * element_bytes(x.dtype), taps = 32 / pixel;
  const int64_t filter = (x.r * ceil_div(front(x) + x.s, taps) * 2 | 1) * 16;
  const int64_t rows = 7 * x.stride_h + (x.r - 1) * x.dilation_h + 1;
  const int64_t columns = 15 * x.stride_w + (x.s - 1) * x.dilation_w + 1;
  const double bytes = static_cast<double>(rows) * static_cast<double>(columns) * static_cast<double>(pixel);
  if (bytes > 1 << 24) return 1 << 26;  // more than any chip has
  return filters * filter + (masked ? 3 : 2) * (ceil_div(rows * columns * pixel, 16) * 16);
}

int64_t shared_bytes(const Conv2dProblem& x, bool common, const TileShape& tile, bool masked) {
  return common ? Stem(x, rows_of(tile)).shared_bytes(x, tile.filters)
                : any_shared_bytes(x, tile.filters, masked);
}

std::vector<TileShape> any_tiles() {
  return {tile_of(8, 64), tile_of(8, 32)};
}

std::vector<TileShape> common_tiles(const Conv2dProblem& x) {
  if (x.r > 7) return any_tiles();
  return {tile_of(16, 64), tile_of(16, 32), tile_of(8, 64), tile_of(8, 32)};
}

// Of a tile: operands, 9 instructions for a vector of outputs, and some 150 for addresses.
Candidate rate_tile(const TileShape& tile, const Conv2dProblem& x, bool common, bool masked,
                    const Device& device) {
  const int bytes = element_bytes(x.dtype), p = rows_of(tile);
  const double steps = static_cast<double>(x.r * ceil_div(front(x) + x.s, 8 / bytes));
  const double hmma = p / 4 * tile.filters / 8 * steps;  // of a warp
  const double outputs = p / 4 * 2 * tile.filters * bytes / 64.0;
  const double ldmatrix = steps * (2 + tile.filters / 16.0);
  const int64_t shared = shared_bytes(x, common, tile, masked);
  SliceWork work;  // of all four warps
  work.tensor = hmma * device.slots_per_hmma;
  work.issue = hmma + (common ? ldmatrix : hmma) + 9 * outputs + 150;
  work.shared = ldmatrix * 4 * 512 / kSharedBytesPerClock;
  work.l2 = (static_cast<double>(tile.pixels * x.stride_h * x.stride_w * x.c) +
             static_cast<double>(tile.pixels) * tile.filters) *
            bytes / kL2BytesPerClock;
  const int registers = p / 4 * tile.filters / 2 + 100;
  const int resident = shared > device.shared_per_block
                           ? 0
                           : resident_blocks(kThreads, registers, static_cast<int>(shared), device);
  const int64_t tiles = x.n * ceil_div(x.p(), p) * ceil_div(x.q(), kColumns) * ceil_div(x.k, tile.filters);
  return rate(text(p, "x16x", tile.filters), {1, work, 0, kThreads}, tiles, resident, compulsory_bytes(x),
              device);
}

// Ahead of time there are kernels for the first layers that most networks have, of 3 channels in rows of an
// even number of pixels. All others run in the kernel for any window, which gives the same bits.
struct AheadOfTime {
  int window, stride, front;
  TileShape tile;
};

const std::vector<AheadOfTime>& ahead_of_time() {
  static const std::vector<AheadOfTime> table = {{7, 2, 1, tile_of(16, 64)},
                                                 {3, 2, 0, tile_of(16, 32)},
                                                 {3, 2, 1, tile_of(16, 32)},
                                                 {3, 1, 1, tile_of(16, 64)}};
  return table;
}

Kernel common_kernel(const char* element, const TileShape& tile, int64_t window, int64_t stride, int64_t c,
                     int front, int vector) {
  return {text("pyconvx::fprop_few_channels<pyconvx::Stem<", element, ", ", rows_of(tile), ", ", tile.filters,
               ", ", window, ", ", window, ", ", stride, ", ", c, ", ", front, ", ", vector, ">>"),
          "conv/fprop_few_channels.cuh"};
}

Kernel any_kernel(const char* element, const TileShape& tile, int vector) {
  return {text("pyconvx::fprop_few_channels_any<", element, ", ", tile.filters, ", ", vector, ">"),
          "conv/fprop_few_channels_any.cuh"};
}

}  // namespace

void list_fprop_few_channels(std::vector<Kernel>& kernels) {
  for (const char* element : {"pyconvx::f16", "pyconvx::bf16"})
    for (const AheadOfTime& ahead : ahead_of_time())
      kernels.push_back(common_kernel(element, ahead.tile, ahead.window, ahead.stride, 3, ahead.front, 4));
  for (const char* element : {"pyconvx::f16", "pyconvx::bf16", "pyconvx::tf32"})
    for (const TileShape& tile : any_tiles())
      kernels.push_back(any_kernel(element, tile, element == std::string("pyconvx::tf32") ? 4 : 2));
}

int64_t few_channels_shared_bytes(const Conv2dProblem& x) {
  return std::max(any_shared_bytes(x, 32, false), shared_bytes(x, is_common(x), tile_of(8, 32), false));
}

std::string plan_fprop_few_channels(FpropPlanner& planner) {
  const Conv2dProblem& x = planner.x;
  const Device& device = planner.device;
  planner.plan.family = "fprop_few_channels";
  const int alignment = planner.options.alignment;
  const char* element = element_name(x.dtype, planner.options.tf32);
  // Gradients of so few channels are rare: one of the kernels masks them.
  const bool masked = planner.masked;
  bool common = is_common(x) && !masked;
  // A unit begins at an even pixel of its row, or anywhere if there are two copies.
  const int most = x.c == 3 ? 4 : common && Stem(x, 8).copies == 2 ? 8 : 16;
  int vector = common ? std::min(most, common_vector(x.w * x.c, planner.bytes, alignment))
                      : common_vector(x.c, planner.bytes, alignment);
  std::vector<TileShape> tiles = common ? common_tiles(x) : any_tiles();
  if (planner.options.ahead_of_time) {
    const auto found =
        std::find_if(ahead_of_time().begin(), ahead_of_time().end(), [&](const AheadOfTime& ahead) {
          return common && x.c == 3 && vector == 4 && planner.bytes == 2 && ahead.window == x.r &&
                 ahead.stride == x.stride_h && ahead.front == front(x);
        });
    common = found != ahead_of_time().end();
    tiles = common ? std::vector<TileShape>{found->tile} : any_tiles();
    if (!common) vector = planner.bytes;
  }
  const TileShape* tile = planner.choose(
      tiles, [&](const TileShape& tile) { return rate_tile(tile, x, common, masked, device); });
  if (!tile) return planner.no_tile();
  Conv2dArguments args = planner.arguments();
  set_filter_tiles(args, tile->filters);
  const Kernel kernel = common ? common_kernel(element, *tile, x.r, x.stride_w, x.c, front(x), vector)
                               : planner.loading(any_kernel(element, *tile, vector));
  // As many blocks as are resident at once: each keeps its filters and walks over tiles of pixels.
  const int64_t filter_tiles = args.by_filter_tiles.divisor;
  const int64_t resident = rate_tile(*tile, x, common, masked, device).blocks_per_sm * device.sms;
  const auto blocks = [&](Conv2dArguments& args) {
    set_pixel_tiles(args, rows_of(*tile), kColumns);
    return std::min<int64_t>(args.tiles, std::max<int64_t>(1, resident / filter_tiles)) * filter_tiles;
  };
  planner.add_launches(kernel, args, blocks, kThreads,
                       static_cast<int>(shared_bytes(x, common, *tile, masked)), planner.images_in_31_bits());
  return {};
}

}  // namespace pyconvx
