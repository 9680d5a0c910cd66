#include "plan/conv/wgrad.h"

#include "plan/conv_arguments.h"

#include <algorithm>
#include <cmath>

namespace pyconvx {
namespace {

constexpr const char* kSums = "wgrad_sums";
Kernel sum_kernel(const char* element) {
  return {text("pyconvx::wgrad_sum<", element, ">"), "conv/wgrad_sum.cuh"};
}

// Of the chip that reductions are split for, whatever the device is: about two blocks on every SM of the
// largest ones, and bytes of DRAM in a clock.
constexpr int64_t kBlocksWanted = 256;
constexpr double kDramBytesPerClock = 1400;

}  // namespace

WgradPlanner::Split WgradPlanner::split(int64_t images, int64_t units, int64_t step, int64_t shortest) const {
  const int64_t tiles = x.groups * ceil_div(group_filters(), 128) * ceil_div(columns(), 128);
  const double pixels = static_cast<double>(images) * static_cast<double>(x.p()) * static_cast<double>(x.q());
  const double weights = static_cast<double>(x.k) * static_cast<double>(columns());
  const bool tensor_cores = bytes == 2 || options.tf32;
  const double products_per_clock = bytes == 2 ? 1024 : tensor_cores ? 512 : 64;  // of an SM
  const double alone = pixels * weights / (static_cast<double>(tiles) * products_per_clock);
  const double a_run = 2 * weights * number_bytes() / kDramBytesPerClock;
  const int64_t best = static_cast<int64_t>(std::sqrt(std::min(alone / a_run, 1e12)));
  const int64_t most = std::max<int64_t>(1, std::min(best, units / shortest));
  const int64_t splits = std::min(ceil_div(kBlocksWanted, tiles), most);
  const int64_t run = ceil_div(ceil_div(units, splits), step) * step;
  return {run, ceil_div(units, run)};
}

Candidate WgradPlanner::rate_tile(const TileShape& tile, const Split& runs, int64_t slices, int64_t columns,
                                  const SliceWork& slice, int resident, double latency) const {
  const int64_t tiles = x.groups * ceil_div(group_filters(), tile.pixels) * ceil_div(columns, tile.filters);
  // Sums are written, and read once more.
  const double sums = 2.0 * static_cast<double>(x.k) * static_cast<double>(this->columns()) * number_bytes() *
                      static_cast<double>(runs.splits);
  const BlockWork block{slices, slice, latency, tile.threads()};
  return rate(tile.name(), block, tiles * runs.splits, resident, compulsory_bytes(x) + sums, device);
}

std::array<int, 2> WgradPlanner::compiled(int y, int x) const {
  if (options.ahead_of_time && (x < 16 || y < 16)) return {bytes, bytes};
  return {y, x};
}

std::array<int, 2> WgradPlanner::vectors() const {
  return compiled(common_vector(group_filters(), bytes, options.alignment),
                  common_vector(group_channels(), bytes, options.alignment));
}

std::array<int, 2> WgradPlanner::gather_vectors() const {
  return compiled(common_vector(group_filters(), bytes, options.alignment),
                  std::max(common_vector(group_channels(), bytes, options.alignment), window_vector()));
}

// The longest vector that rows of windows can be copied by, and take no more tiles of 64 columns than they do
// by elements; 0: none.
int WgradPlanner::window_vector() const {
  if (x.groups > 1 || x.dilation_w > 1 || never_outside(x)) return 0;
  for (int vector = 16; vector > bytes; vector /= 2) {
    const int64_t pixel = x.c * bytes;
    if (options.alignment % vector == 0 && x.stride_w * pixel % vector == 0 && x.w * pixel % vector == 0 &&
        ceil_div(window_columns(vector).all(x), 64) == ceil_div(columns(), 64))
      return vector;
  }
  return 0;
}

WgradPlanner::Columns WgradPlanner::window_columns(int vector) const {
  const int64_t elements = vector / bytes, of_row = x.s * group_channels();
  if (group_channels() % elements == 0) return {of_row, 0};
  // Rows of the image begin at whole vectors, and windows `pad_left` pixels before that.
  const int64_t lead = (elements - x.pad_left * x.c % elements) % elements;
  return {ceil_div(lead + of_row, elements) * elements, lead};
}

void list_wgrad_sum(std::vector<Kernel>& kernels) {
  for (const char* element : {"pyconvx::f16", "pyconvx::bf16", "pyconvx::f32", "pyconvx::f64"})
    kernels.push_back(sum_kernel(element));
}

WgradArguments WgradPlanner::wgrad_arguments() const {
  WgradArguments args{};
  args.conv = conv2d_arguments(x);
  args.conv.patch.one = 1;
  args.by_row_columns = division_by(static_cast<unsigned>(std::min(x.s * group_channels(), kMostPixels)));
  args.by_tiles = args.by_group_tiles = args.by_column_tiles = division_by(1);
  args.y_row = x.q() * x.k * bytes, args.x_image = x.h * x.w * x.c * bytes;
  args.x_row = static_cast<int>(x.w * x.c * bytes);  // the families for which it is too narrow don't read it
  args.by_dilation_h = division_by(static_cast<unsigned>(x.dilation_h));
  args.by_dilation_w = division_by(static_cast<unsigned>(x.dilation_w));
  return args;
}

bool WgradPlanner::has_no_tiles(const char* family) {
  plan.family = family;
  return options.tile.empty();
}

void set_wgrad_tiles(WgradArguments& args, const Conv2dProblem& x, const TileShape& tile,
                     const WgradPlanner::Columns& columns) {
  args.by_row_columns = division_by(static_cast<unsigned>(columns.of_row));
  args.lead = static_cast<int>(columns.lead);
  const int64_t across = ceil_div(columns.all(x), tile.filters), down = ceil_div(x.k / x.groups, tile.pixels);
  args.by_column_tiles = division_by(static_cast<unsigned>(across));
  args.by_group_tiles = division_by(static_cast<unsigned>(across * down));
  args.by_tiles = division_by(static_cast<unsigned>(across * down * x.groups));
}

bool never_outside(const Conv2dProblem& x) {
  return x.r == 1 && x.s == 1 && x.stride_h == 1 && x.stride_w == 1 &&
         !(x.pad_top || x.pad_bottom || x.pad_left || x.pad_right);
}

int WgradPlanner::shared_bytes(const TileShape& tile) const {
  const int pad = bytes == 2 ? 16 : 32, rows = tile.depth * tile.stages;
  const int tables = never_outside(x) ? 0 : 2 * tile.threads() * 16 + tile.filters * 8;
  return ((tile.pixels + tile.filters) * bytes + 2 * pad) * rows + tables;
}

std::string wgrad_tile(const TileShape& tile) {
  return text("pyconvx::WgradTile<", tile.pixels, ", ", tile.filters, ", ", tile.depth, ", ", tile.warps_m,
              ", ", tile.warps_n, ", ", tile.stages, ">");
}

void WgradPlanner::add_parts(const Kernel& kernel, WgradArguments args, const std::vector<Part>& parts,
                             int block, int shared_bytes) {
  int64_t splits = 0;
  for (const Part& part : parts) splits += part.runs.splits;
  const int64_t weights = x.k * columns(), number = number_bytes();
  const int64_t bias_at = ceil_div(weights, 4) * 4,
                split_size = bias_at + (x.bias ? ceil_div(x.k, 4) * 4 : 0);
  // One run of a type that is its own accumulator needs no addition.
  const bool direct = splits == 1 && number == bytes;
  const std::string sums = direct ? buffer("grad_weight") : kSums, bias = direct ? "grad_bias" : kSums;
  if (!direct && splits > 0) plan.workspaces.push_back({kSums, splits * split_size * number});
  args.split_size = split_size;
  const int alignment = direct ? options.alignment : 16;
  // Do four columns side by side stand for four elements?
  const int64_t of_row = args.by_row_columns.divisor, elements = x.s * group_channels();
  const bool in_order = of_row == elements || (of_row % 4 == 0 && args.lead % 4 == 0 && elements % 4 == 0);
  args.vector_sums = columns() % 4 == 0 && alignment == 16 && in_order;
  int64_t done = 0;
  for (const Part& part : parts) {
    args.conv.n = static_cast<int>(part.images);
    set_pixel_tiles(args.conv, 8, 8);
    args.conv.pixels = static_cast<int>(std::min(part.images * x.p() * x.q(), kMostPixels));
    args.run = part.runs.run, args.splits = static_cast<int>(part.runs.splits);
    const int64_t at = done * split_size * number;
    plan.launches.push_back(
        {kernel.name, kernel.header, {part.grid, 1, 1}, block, shared_bytes, bytes_of(args), {}});
    plan.launches.back().pointers = {
        {buffer("input"), offsetof(WgradArguments, conv.input), part.first * x.h * x.w * x.c * bytes},
        {buffer("grad_output"), offsetof(WgradArguments, grad_output),
         part.first * x.p() * x.q() * x.k * bytes},
        {sums, offsetof(WgradArguments, sums), at},
    };
    if (x.masked)
      plan.launches.back().pointers.push_back({buffer("relu_output"),
                                               offsetof(WgradArguments, conv.relu_output),
                                               part.first * x.p() * x.q() * x.k * bytes});
    if (x.bias)
      plan.launches.back().pointers.push_back(
          {bias, offsetof(WgradArguments, bias_sums), direct ? 0 : at + bias_at * number});
    done += part.runs.splits;
  }
  if (!direct) add_sum(splits, split_size, bias_at);
}

void WgradPlanner::add_sum(int64_t splits, int64_t split_size, int64_t bias_at) {
  WgradSumArguments args{};
  args.weights = x.k * columns(), args.biases = x.bias ? x.k : 0;
  args.bias_at = bias_at, args.split_size = split_size;
  args.splits = static_cast<int>(splits);
  const Kernel kernel = sum_kernel(element_name(x.dtype));
  plan.launches.push_back({kernel.name,
                           kernel.header,
                           {std::min(ceil_div(args.weights + args.biases, 256), kMostBlocks), 1, 1},
                           256,
                           0,
                           bytes_of(args),
                           {{kSums, offsetof(WgradSumArguments, sums), 0},
                            {buffer("grad_weight"), offsetof(WgradSumArguments, grad_weight), 0},
                            {"grad_bias", offsetof(WgradSumArguments, grad_bias), 0}}});
}

}  // namespace pyconvx
