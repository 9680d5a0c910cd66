#include "plan/conv_arguments.h"
#include "plan/plan.h"
#include "plan/tiles.h"

#include <algorithm>
#include <cstring>
#include <sstream>

namespace pyconvx {
namespace {

constexpr int64_t kLimit = int64_t{1} << 31;    // of index arithmetic in 31 bits
constexpr int64_t kMostPixels = kLimit - 1024;  // of a launch: the last tile may reach past them
constexpr int64_t kMostBlocks = kLimit - 1;     // in a grid

int64_t ceil_div(int64_t x, int64_t y) {
  return (x + y - 1) / y;
}

template <class... Parts>
std::string text(const Parts&... parts) {
  std::ostringstream stream;
  (stream << ... << parts);
  return stream.str();
}

// A kernel's template arguments, as C++ spells them.
const char* element_name(DType dtype, bool tf32) {
  switch (dtype) {
  case DType::f64:
    return "pyconvx::f64";
  case DType::f32:
    return tf32 ? "pyconvx::tf32" : "pyconvx::f32";
  case DType::bf16:
    return "pyconvx::bf16";
  default:
    return "pyconvx::f16";
  }
}

std::string tile_name(const TileShape& tile) {
  return text("pyconvx::Tile<", tile.pixels, ", ", tile.filters, ", ", tile.depth, ", ", tile.warps_m, ", ",
              tile.warps_n, ", ", tile.stages, ">");
}

template <class Arguments>
std::vector<unsigned char> bytes_of(const Arguments& args) {
  std::vector<unsigned char> bytes(sizeof args);
  std::memcpy(bytes.data(), &args, sizeof args);
  return bytes;
}

// ---------------------------------------------------------------------------------------------------------
// Families. Which one runs a problem depends on everything but the batch and the device.

enum class Family { tensor_core, ffma, few_channels, depthwise, plain };

// Do the products that index arithmetic in 31 bits needs fit, for at least one image?
bool fits_31_bits(const Conv2dProblem& x) {
  const auto below = [](double size) { return size < static_cast<double>(kLimit); };
  const auto number = [](int64_t size) { return static_cast<double>(size); };
  const double pixel = number(x.c) * element_bytes(x.dtype);  // in bytes
  const double row = number(x.w) * pixel;
  const double window =
      number(x.r - 1) * number(x.dilation_h) * row + number(x.s) * number(x.dilation_w) * pixel;
  return number(x.p()) * number(x.q()) < static_cast<double>(kMostPixels) && below(window) &&
         below(number(x.dilation_h) * row) &&
         below(number(x.r) * number(x.s) * number(x.c / x.groups) * element_bytes(x.dtype) + 1024);
}

// Shared memory that every chip has that runs these kernels, and that a block gets without asking for more.
constexpr int64_t kSharedEverywhere = 99 << 10, kSharedByDefault = 48 << 10;

Family family_of(const Conv2dProblem& x, bool tf32) {
  if (x.dtype == DType::f64 || !fits_31_bits(x)) return Family::plain;
  if (x.groups > 1 && x.c == x.groups)
    return depthwise_shared_bytes(x) <= kSharedByDefault ? Family::depthwise : Family::plain;
  const bool tensor_cores = x.dtype != DType::f32 || tf32;
  if (tensor_cores && x.groups == 1 && x.c <= 4 && few_channels_shared_bytes(x, 32) <= kSharedEverywhere)
    return Family::few_channels;
  if (x.r + x.s > 31) return Family::plain;  // a gather has one bit for each row and column of a window
  return tensor_cores ? Family::tensor_core : Family::ffma;
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

// Bytes by which a group's channels, or its filters, can be accessed.
int common_vector(int64_t in_group, int bytes, int alignment) {
  int vector = std::min(16, alignment);
  while (vector > bytes && in_group * bytes % vector) vector /= 2;
  return std::max(vector, bytes);
}

// ---------------------------------------------------------------------------------------------------------
// One plan in the making.

class Planner {
public:
  Planner(const Conv2dProblem& problem, const Device& device, const PlanOptions& options)
      : x_(problem), device_(device), options_(options), bytes_(element_bytes(problem.dtype)) {}

  std::variant<LaunchPlan, Refusal> run() {
    if (std::string sentence = refusal(); !sentence.empty()) return Refusal{sentence};
    if (x_.n == 0) return plan_;
    to_channels_last("input", x_.n, x_.c, x_.h * x_.w);
    to_channels_last("filter", x_.k, x_.c / x_.groups, x_.r * x_.s);
    if (x_.residual) to_channels_last("residual", x_.n, x_.k, x_.p() * x_.q());
    const bool transposed = is_transposed(x_.k, x_.p() * x_.q());
    if (transposed) add_workspace("nhwc_output", "output", x_.n * x_.k * x_.p() * x_.q());
    if (std::string sentence = convolve(); !sentence.empty()) return Refusal{sentence};
    if (transposed) transpose("nhwc_output", "output", x_.n, x_.p() * x_.q(), x_.k);
    return plan_;
  }

private:
  std::string refusal() const {
    if (std::string sentence = x_.refusal(); !sentence.empty()) return sentence;
    if (x_.pass != Pass::fprop)
      return text("conv2d: there is a CUDA plan for fprop only so far, got ", name(x_.pass),
                  "; use another backend for it");
    if (options_.alignment < bytes_ || (options_.alignment & (options_.alignment - 1)))
      return text("conv2d: the alignment must be a power of two and at least an element's ", bytes_,
                  " bytes, got ", options_.alignment, "; pass the largest that all addresses have");
    if (device_.capability < 80)
      return text(
          "conv2d: the CUDA kernels use cp.async and m16n8k16, which need compute capability 8.0, and ",
          device_.name, " has ", device_.capability / 10, ".", device_.capability % 10,
          "; use another backend on it");
    return size_limit(x_);
  }

  // A tensor of one row or one column is the same in both layouts.
  bool is_transposed(int64_t rows, int64_t columns) const {
    return x_.layout == Layout::nchw && rows > 1 && columns > 1;
  }

  void to_channels_last(const char* tensor, int64_t batches, int64_t channels, int64_t pixels) {
    if (!is_transposed(channels, pixels)) return;
    const std::string workspace = std::string("nhwc_") + tensor;
    add_workspace(workspace, tensor, batches * channels * pixels);
    transpose(tensor, workspace, batches, channels, pixels);
  }

  void add_workspace(const std::string& workspace, const char* tensor, int64_t elements) {
    plan_.workspaces.push_back({workspace, elements * bytes_});
    replaced_.push_back({tensor, workspace});
  }

  void transpose(const std::string& from, const std::string& to, int64_t batches, int64_t rows,
                 int64_t columns) {
    const TransposeArguments args = transpose_arguments(batches, rows, columns);
    const char* bits = bytes_ == 8 ? "unsigned long long" : bytes_ == 4 ? "unsigned int" : "unsigned short";
    plan_.launches.push_back(
        {text("pyconvx::transpose<", bits, ">"),
         "conv/transpose.cuh",
         {std::min<int64_t>(args.tiles, kMostBlocks), 1, 1},
         256,
         0,
         bytes_of(args),
         {{from, offsetof(TransposeArguments, from), 0}, {to, offsetof(TransposeArguments, to), 0}}});
  }

  // The buffer that the convolution finds a tensor in.
  std::string buffer(const std::string& tensor) const {
    for (const auto& [name, workspace] : replaced_)
      if (name == tensor) return workspace;
    return tensor;
  }

  std::string convolve() {
    switch (family_of(x_, options_.tf32)) {
    case Family::tensor_core:
      return tensor_core();
    case Family::ffma:
      return ffma();
    case Family::few_channels:
      return few_channels();
    case Family::depthwise:
      return depthwise();
    default:
      return plain();
    }
  }

  // One launch for as many images as a kernel can count the pixels of; more than one only beyond 2^31.
  // `blocks` finishes the arguments of so many images, and says how many blocks they take.
  template <class Blocks>
  void add_launches(const std::string& kernel, const char* header, const Conv2dArguments& whole,
                    Blocks blocks, int block, int shared_bytes, int64_t most_images) {
    const auto of_images = [&](int64_t images) {
      Conv2dArguments args = whole;
      args.n = static_cast<int>(images);
      args.pixels = static_cast<int>(std::min(images * x_.p() * x_.q(), kMostPixels));
      return args;
    };
    for (Conv2dArguments args = of_images(most_images); blocks(args) > kMostBlocks && most_images > 1;
         args = of_images(most_images))
      most_images /= 2;

    for (int64_t first = 0; first < x_.n; first += most_images) {
      Conv2dArguments args = of_images(std::min(most_images, x_.n - first));
      const int64_t grid = blocks(args);
      const int64_t input = first * x_.h * x_.w * x_.c * bytes_;
      const int64_t output = first * x_.p() * x_.q() * x_.k * bytes_;
      plan_.launches.push_back({kernel, header, {grid, 1, 1}, block, shared_bytes, bytes_of(args), {}});
      plan_.launches.back().pointers = {
          {buffer("input"), offsetof(Conv2dArguments, input), input},
          {buffer("filter"), offsetof(Conv2dArguments, filter), 0},
          {buffer("output"), offsetof(Conv2dArguments, output), output},
          {"bias", offsetof(Conv2dArguments, bias), 0},
          {"scale", offsetof(Conv2dArguments, scale), 0},
          {"shift", offsetof(Conv2dArguments, shift), 0},
          {buffer("residual"), offsetof(Conv2dArguments, residual), output},
      };
    }
  }

  int64_t images_in_31_bits() const { return std::clamp<int64_t>(kMostPixels / (x_.p() * x_.q()), 1, x_.n); }

  Conv2dArguments arguments() const {
    Conv2dArguments args = conv2d_arguments(x_);
    args.vector_output = common_vector(x_.k / x_.groups, bytes_, options_.alignment) == 16;
    return args;
  }

  ProductSize product() const {
    return {x_.n * x_.p() * x_.q(), x_.k / x_.groups, x_.groups, x_.r * x_.s * (x_.c / x_.groups)};
  }

  // The tile that was asked for, or the one with the best rating; null, with the reason in `sentence`, if
  // none can run.
  template <class Rate>
  const TileShape* choose(const std::vector<TileShape>& tiles, Rate rate, std::string& sentence) {
    const TileShape* best = nullptr;
    double least = 0;
    for (const TileShape& tile : tiles) {
      const Candidate candidate = rate(tile);
      if (candidate.blocks_per_sm < 1) continue;
      plan_.candidates.push_back(candidate);
      const bool wanted =
          options_.tile.empty() ? !best || candidate.clocks < least : candidate.tile == options_.tile;
      if (!wanted) continue;
      best = &tile, least = candidate.clocks;
      plan_.tile = candidate.tile;
    }
    if (best) return best;
    sentence = text("conv2d: ", plan_.family, " has no tile ", options_.tile, " that fits ", device_.name,
                    "; leave the tile open, or take one of the plan's candidates");
    return nullptr;
  }

  std::string tensor_core() {
    plan_.family = "fprop_tensor_core";
    const int vector = common_vector(x_.c / x_.groups, bytes_, options_.alignment);
    std::string sentence;
    const TileShape* tile = choose(
        tensor_core_tiles(bytes_),
        [&](const TileShape& tile) {
          Candidate candidate = rate_tensor_core(tile, product(), bytes_, device_);
          // Elements that are copied one by one need registers, which the largest tiles have not to spare.
          const bool no_registers = vector < 4 && tile.pixels * tile.filters > 64 * tile.threads();
          if (no_registers || tensor_core_shared_bytes(tile, bytes_) > device_.shared_per_block)
            candidate.blocks_per_sm = 0;
          return candidate;
        },
        sentence);
    if (!tile) return sentence;
    Conv2dArguments args = arguments();
    set_filter_tiles(args, tile->filters);
    const auto [r, s] = constant_taps(x_);
    const std::string kernel = text("pyconvx::fprop_tensor_core<", element_name(x_.dtype, options_.tf32),
                                    ", ", tile_name(*tile), ", ", r, ", ", s, ", ", vector, ">");
    const auto blocks = [&](const Conv2dArguments& args) {
      return int64_t{ceil_div(args.pixels, tile->pixels)} * args.by_filter_tiles.divisor;
    };
    add_launches(kernel, "conv/fprop_tensor_core.cuh", args, blocks, tile->threads(),
                 tensor_core_shared_bytes(*tile, bytes_), images_in_31_bits());
    return {};
  }

  std::string ffma() {
    plan_.family = "fprop_ffma";
    std::string sentence;
    const TileShape* tile = choose(
        ffma_tiles(), [&](const TileShape& tile) { return rate_ffma(tile, product(), device_); }, sentence);
    if (!tile) return sentence;
    Conv2dArguments args = arguments();
    set_filter_tiles(args, tile->filters);
    const auto blocks = [&](const Conv2dArguments& args) {
      return int64_t{ceil_div(args.pixels, tile->pixels)} * args.by_filter_tiles.divisor;
    };
    add_launches(text("pyconvx::fprop_ffma<", tile_name(*tile), ">"), "conv/fprop_ffma.cuh", args, blocks,
                 tile->threads(), ffma_shared_bytes(*tile), images_in_31_bits());
    return {};
  }

  std::string few_channels() {
    plan_.family = "fprop_few_channels";
    std::string sentence;
    const TileShape* tile = choose(
        few_channels_tiles(), [&](const TileShape& tile) { return rate_few_channels(tile, x_, device_); },
        sentence);
    if (!tile) return sentence;
    Conv2dArguments args = arguments();
    set_filter_tiles(args, tile->filters);
    const bool square =
        x_.r == x_.s && x_.stride_h == x_.stride_w && x_.dilation_h == 1 && x_.dilation_w == 1;
    const bool constant = square && ((x_.r == 3 && x_.stride_h <= 2) || (x_.r == 5 && x_.stride_h == 1) ||
                                     (x_.r == 7 && x_.stride_h == 2) || (x_.r == 11 && x_.stride_h == 4));
    const int64_t r = constant ? x_.r : 0, s = constant ? x_.s : 0, stride = constant ? x_.stride_h : 0;
    const int vector = common_vector(x_.c, bytes_, options_.alignment);
    const std::string kernel = text("pyconvx::fprop_few_channels<", element_name(x_.dtype, options_.tf32),
                                    ", ", tile->filters, ", ", r, ", ", s, ", ", stride, ", ", vector, ">");
    // As many blocks as are resident at once: each keeps its filters and walks over tiles of pixels.
    const int64_t filter_tiles = args.by_filter_tiles.divisor;
    const int64_t resident = rate_few_channels(*tile, x_, device_).blocks_per_sm * device_.sms;
    const auto blocks = [&](Conv2dArguments& args) {
      set_pixel_tiles(args, 8, 16);
      return std::min<int64_t>(args.tiles, std::max<int64_t>(1, resident / filter_tiles)) * filter_tiles;
    };
    add_launches(kernel, "conv/fprop_few_channels.cuh", args, blocks, 128,
                 static_cast<int>(few_channels_shared_bytes(x_, tile->filters)), images_in_31_bits());
    return {};
  }

  std::string depthwise() {
    plan_.family = "fprop_depthwise";
    Conv2dArguments args = arguments();
    const int channels = kDepthwiseVectors * (16 / bytes_), runs = kDepthwiseThreads / kDepthwiseVectors;
    args.vector_output = common_vector(x_.k, bytes_, options_.alignment) == 16;
    args.by_filter_tiles = division_by(static_cast<unsigned>(ceil_div(x_.k, channels)));
    const bool square =
        x_.r == x_.s && x_.stride_h == x_.stride_w && x_.dilation_h == 1 && x_.dilation_w == 1;
    const bool constant = square && (x_.r == 3 || x_.r == 5 || x_.r == 7) && x_.stride_h <= 2;
    const bool wide = x_.k == x_.c && args.vector_output;
    const std::string kernel =
        text("pyconvx::fprop_depthwise<", element_name(x_.dtype, false), ", ", constant ? x_.r : 0, ", ",
             constant ? x_.s : 0, ", ", constant ? x_.stride_h : 0, ", ", wide ? "true" : "false", ">");
    const auto blocks = [&](Conv2dArguments& args) {
      set_pixel_tiles(args, 1, kDepthwiseRun);
      return ceil_div(args.tiles, runs) * args.by_filter_tiles.divisor;
    };
    add_launches(kernel, "conv/fprop_depthwise.cuh", args, blocks, kDepthwiseThreads,
                 static_cast<int>(depthwise_shared_bytes(x_)), images_in_31_bits());
    return {};
  }

  std::string plain() {
    plan_.family = "fprop_plain";
    const Conv2dArguments args = arguments();
    // The kernel's threads walk on by a whole grid until all outputs are done.
    const auto blocks = [&](const Conv2dArguments&) {
      const int64_t vectors = x_.groups * ceil_div(x_.k / x_.groups, 16 / bytes_);
      return std::min(ceil_div(x_.n * x_.p() * x_.q() * vectors, 256), kMostBlocks);
    };
    add_launches(text("pyconvx::fprop_plain<", element_name(x_.dtype, false), ">"), "conv/fprop_plain.cuh",
                 args, blocks, 256, 0, x_.n);
    return {};
  }

  const Conv2dProblem& x_;
  const Device& device_;
  const PlanOptions& options_;
  const int bytes_;  // of an element
  LaunchPlan plan_;
  std::vector<std::pair<std::string, std::string>> replaced_;  // tensor, workspace
};

}  // namespace

std::variant<LaunchPlan, Refusal> plan_conv2d(const Conv2dProblem& problem, const Device& device,
                                              const PlanOptions& options) {
  return Planner(problem, device, options).run();
}

}  // namespace pyconvx
