// Depthwise. Two kernels: one for common windows of one filter a channel, in whole vectors, and one for any.
// Their order of summation is the same.
#include "plan/conv/rating.h"
#include "plan/conv_arguments.h"

#include <algorithm>

namespace pyconvx {
namespace {

// p x q pixels of `vectors` times 16 bytes of channels; a thread has one vector of 2 x 4 pixels.
struct DepthwiseTile {
  int p, q, vectors;

  int threads() const { return p / 2 * (q / 4) * vectors; }
  int channels(const Conv2dProblem& x) const { return vectors * (16 / element_bytes(x.dtype)); }
};

std::vector<DepthwiseTile> tiles(int64_t stride) {
  if (stride == 1) return {{16, 16, 4}, {8, 16, 8}, {8, 8, 16}};
  return {{8, 16, 4}, {8, 8, 8}, {8, 8, 4}};
}

bool is_common(const Conv2dProblem& x) {
  const bool square = x.r == x.s && x.stride_h == x.stride_w && x.dilation_h == 1 && x.dilation_w == 1;
  // A patch has less than 64 rows, whose bytes the kernel counts in 31 bits.
  const bool small = static_cast<double>(x.w) * static_cast<double>(x.c) * element_bytes(x.dtype) * 64 <
                     static_cast<double>(kIndexLimit);
  return square && small && (x.r == 3 || x.r == 5 || x.r == 7) && x.stride_h <= 2 && x.k == x.c;
}

// As fprop_depthwise.cuh derives it.
int64_t patch_bytes(const DepthwiseTile& tile, const Conv2dProblem& x) {
  const int64_t rows = (tile.p - 1) * x.stride_h + x.r;
  const int64_t columns = ((tile.q - 1) * x.stride_w + x.s + 1) / 2 * 2;
  return rows * (columns * tile.vectors * 16 + (tile.vectors == 4 ? 32 / x.stride_h : 0));
}

int shared_bytes(const DepthwiseTile& tile, const Conv2dProblem& x, bool masked) {
  return static_cast<int>((x.r * x.s + 1) * tile.channels(x) * 4 + (masked ? 3 : 2) * patch_bytes(tile, x));
}

// Of a tile: for each of a thread's 8 outputs an instruction for every multiplication, and some 60.
Candidate rate_tile(const DepthwiseTile& tile, const Conv2dProblem& x, bool masked, const Device& device) {
  const int shared = shared_bytes(tile, x, masked), v = 16 / element_bytes(x.dtype);
  const double taps = static_cast<double>(x.r * x.s), outputs = 8.0 * tile.threads();
  const double patch = static_cast<double>(patch_bytes(tile, x)) * (masked ? 2 : 1);
  SliceWork work;
  work.tensor = outputs * taps * v / device.ffma_per_clock;
  work.issue = outputs * (taps * v + 60) / 128;
  // Of 8 outputs, the vectors that they see, and the filters' rows, of 4 bytes an element.
  work.shared = (static_cast<double>((x.r + x.stride_h) * (x.s + 3 * x.stride_w)) + taps * v / 2) * 16 *
                tile.threads() / kSharedBytesPerClock;
  work.l2 = (patch + tile.p * tile.q * tile.vectors * 16.0) / kL2BytesPerClock;
  const int resident = shared > device.shared_per_block
                           ? 0
                           : resident_blocks(tile.threads(), x.r == 3 ? 168 : 255, shared, device);
  const int64_t tiles =
      x.n * ceil_div(x.p(), tile.p) * ceil_div(x.q(), tile.q) * ceil_div(x.k, tile.channels(x));
  return rate(text(tile.p, "x", tile.q, "x", tile.channels(x)), {1, work, 0, tile.threads()}, tiles, resident,
              compulsory_bytes(x), device);
}

Kernel common_kernel(const char* element, const DepthwiseTile& tile, int64_t window, int64_t stride) {
  return {text("pyconvx::fprop_depthwise<pyconvx::DepthwiseTile<", element, ", ", tile.p, ", ", tile.q, ", ",
               tile.vectors, ", ", window, ", ", window, ", ", stride, ">>"),
          "conv/fprop_depthwise.cuh"};
}

// The other kernel. A block: 256 threads, each with a vector of channels of 4 pixels in a row.
constexpr int kVectors = 4, kRun = 4, kThreads = 256;

Kernel any_kernel(const char* element, bool wide) {
  return {text("pyconvx::fprop_depthwise_any<", element, ", ", wide ? "true" : "false", ">"),
          "conv/fprop_depthwise_any.cuh"};
}

std::string plan_common(FpropPlanner& planner, Conv2dArguments args) {
  const Conv2dProblem& x = planner.x;
  const bool masked = planner.masked;
  const Device& device = planner.device;
  const std::vector<DepthwiseTile> all = tiles(x.stride_h);
  const DepthwiseTile* tile =
      planner.choose(all, [&](const DepthwiseTile& tile) { return rate_tile(tile, x, masked, device); });
  if (!tile) return planner.no_tile();
  const int64_t filter_tiles = ceil_div(x.k, tile->channels(x));
  args.by_filter_tiles = division_by(static_cast<unsigned>(filter_tiles));
  // As many blocks as are resident at once: each keeps its channels and walks over tiles of pixels.
  const int64_t resident = rate_tile(*tile, x, masked, device).blocks_per_sm * device.sms;
  const auto blocks = [&](Conv2dArguments& args) {
    set_pixel_tiles(args, tile->p, tile->q);
    return std::min<int64_t>(args.tiles, std::max<int64_t>(1, resident / filter_tiles)) * filter_tiles;
  };
  const Kernel kernel = planner.loading(common_kernel(element_name(x.dtype), *tile, x.r, x.stride_h));
  planner.add_launches(kernel, args, blocks, tile->threads(), shared_bytes(*tile, x, masked),
                       std::clamp<int64_t>(kMostPixels / x.h, 1, planner.images_in_31_bits()));
  return {};
}

}  // namespace

// Ahead of time: 3x3 of every stride, and any window.
void list_fprop_depthwise(std::vector<Kernel>& kernels) {
  for (const char* element : {"pyconvx::f16", "pyconvx::bf16", "pyconvx::f32"}) {
    for (int64_t stride : {1, 2})
      for (const DepthwiseTile& tile : tiles(stride))
        kernels.push_back(common_kernel(element, tile, 3, stride));
    for (bool wide : {false, true}) kernels.push_back(any_kernel(element, wide));
  }
}

int64_t depthwise_shared_bytes(const Conv2dProblem& x) {
  return std::min<int64_t>(x.r * x.s, 1 << 24) * kVectors * (16 / element_bytes(x.dtype)) * 4;
}

std::string plan_fprop_depthwise(FpropPlanner& planner) {
  const Conv2dProblem& x = planner.x;
  planner.plan.family = "fprop_depthwise";
  Conv2dArguments args = planner.arguments();
  args.vector_output = common_vector(x.k, planner.bytes, planner.options.alignment) == 16;
  const bool wide = x.k == x.c && args.vector_output;
  if (wide && is_common(x) && (x.r == 3 || !planner.options.ahead_of_time)) return plan_common(planner, args);
  const int channels = kVectors * (16 / planner.bytes), runs = kThreads / kVectors;
  args.by_filter_tiles = division_by(static_cast<unsigned>(ceil_div(x.k, channels)));
  const auto blocks = [&](Conv2dArguments& args) {
    set_pixel_tiles(args, 1, kRun);
    return ceil_div(args.tiles, runs) * args.by_filter_tiles.divisor;
  };
  planner.add_launches(planner.loading(any_kernel(element_name(x.dtype), wide)), args, blocks, kThreads,
                       static_cast<int>(depthwise_shared_bytes(x)), planner.images_in_31_bits());
  return {};
}

}  // namespace pyconvx
