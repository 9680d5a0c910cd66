// Which kernels pool, and how their threads are laid out. No choice here changes a result.
#include "plan/pool/max_pool.h"
#include "../../../kernels/cuda/pool/arguments.cuh"
#include "plan/conv_arguments.h"
#include "plan/pool/bands.h"
#include "plan/pool/sweep.h"

#include <algorithm>

namespace pyconvx {
namespace {

constexpr int64_t kLimit = int64_t{1} << 31;  // of sizes and of where windows end

int64_t index_bytes(IndexType index) {
  return index == IndexType::none ? 0 : index == IndexType::u8 ? 1 : index == IndexType::i32 ? 4 : 8;
}

const char* index_name(IndexType index) {
  switch (index) {
  case IndexType::none:
    return "pyconvx::NoIndex";
  case IndexType::u8:
    return "unsigned char";
  case IndexType::i32:
    return "int";
  default:
    return "long long";
  }
}

int64_t extent(int64_t taps, int64_t dilation) {
  return (taps - 1) * dilation + 1;
}

// A window that kernels know when they are compiled: size x size, or 0.
struct ConstantWindow {
  int64_t size = 0, stride = 0;
};

constexpr ConstantWindow kConstantWindows[] = {{2, 2}, {3, 2}, {3, 1}};

// What the kernels are told apart by.
struct Variant {
  DType dtype;
  IndexType index;
  int64_t vector;  // bytes that are accessed at once
  ConstantWindow window;
  bool large;  // positions of 64 bits, for planes with as many elements
  bool relu;   // of the input
};

Kernel forward_kernel(const Variant& x) {
  const std::string types = text("<", element_name(x.dtype), ", ", index_name(x.index), ", ", x.vector, ", ");
  const char* relu = x.relu ? "true>" : "false>";
  return {x.window.size ? text("pyconvx::max_pool", types, x.window.size, ", ", x.window.size, ", ",
                               x.window.stride, ", ", relu)
                        : text("pyconvx::max_pool_any", types, x.large ? "long long>" : "int>"),
          "pool/max_pool.cuh"};
}

Kernel forward_rows_kernel(const Variant& x, int64_t size) {
  return {text("pyconvx::max_pool_rows<", element_name(x.dtype), ", ", index_name(x.index), ", ", size, ", ",
               size, x.relu ? ", true>" : ", false>"),
          "pool/max_pool_rows.cuh"};
}

Kernel backward_kernel(const Variant& x) {
  const std::string types = text("<", element_name(x.dtype), ", ", index_name(x.index), ", ", x.vector, ", ");
  return {x.window.size ? text("pyconvx::max_pool_backward", types, x.window.size, ", ", x.window.size, ", ",
                               x.window.stride, x.relu ? ", true>" : ", false>")
                        : text("pyconvx::max_pool_backward_any", types,
                               x.large ? "unsigned long long" : "unsigned int", ">"),
          "pool/max_pool_backward.cuh"};
}

Kernel backward_rows_kernel(const Variant& x) {
  return {text("pyconvx::max_pool_rows_backward<", element_name(x.dtype), ", ", index_name(x.index), ", ",
               x.window.size, ", ", x.window.stride, x.relu ? ", true>" : ", false>"),
          "pool/max_pool_rows_backward.cuh"};
}

Kernel gather_kernel(const Variant& x) {
  return {text("pyconvx::max_pool_gather<", value_name(element_bytes(x.dtype)), ", ", index_name(x.index),
               ", ", x.vector, ">"),
          "pool/max_pool_gather.cuh"};
}

// Of the kernels, those that are compiled ahead of time: the most common windows for vectors of what the
// library remembers by itself, and any window element by element.
bool is_ahead_of_time(const Variant& x) {
  if (!x.window.size) return x.vector == element_bytes(x.dtype) && x.large == (x.index == IndexType::i64);
  if (x.window.stride != 2 || (x.relu && x.window.size != 3)) return false;
  return x.vector == 16 && x.dtype != DType::f64 && (x.index == IndexType::none || x.index == IndexType::u8);
}

class MaxPoolPlanner {
public:
  MaxPoolPlanner(const char* name, const Pool2dProblem& problem, bool relu, const Device& device,
                 const PlanOptions& options)
      : name_(name), x_(problem), device_(device), options_(options), bytes_(element_bytes(problem.dtype)),
        images_(problem.layout == Layout::nhwc ? problem.n : problem.n * problem.c),
        channels_(problem.layout == Layout::nhwc ? problem.c : 1) {
    kind_ = {x_.dtype,
             x_.index,
             channels_at_once(channels_, {bytes_}, options.alignment) * bytes_,
             {},
             x_.index == IndexType::i64 && x_.h * x_.w >= kLimit,
             relu};
    const bool square =
        x_.r == x_.s && x_.stride_h == x_.stride_w && x_.dilation_h == 1 && x_.dilation_w == 1;
    for (const ConstantWindow& window : kConstantWindows)
      if (square && !kind_.large && x_.r == window.size && x_.stride_h == window.stride)
        kind_.window = window;
    if (options.ahead_of_time && !is_ahead_of_time(kind_)) {
      kind_.window = {}, kind_.vector = bytes_;
      kind_.large = x_.index == IndexType::i64;
    }
  }

  std::variant<LaunchPlan, Refusal> forward() {
    if (std::string sentence = refusal(); !sentence.empty()) return Refusal{sentence};
    if (images_ == 0) return plan_;
    if (x_.layout == Layout::nchw && forward_rows()) return plan_;
    // Windows of a row: as many as have their indices exchanged, and at least two.
    const int64_t columns = lane_bytes() > 0 && lane_bytes() < 16 && kind_.vector == 16
                                ? std::max<int64_t>(2, 16 / lane_bytes())
                                : 2;
    MaxPoolArguments args = arguments();
    const auto bytes = [&](int64_t rows) {
      const int64_t pixels = ((rows - 1) * x_.stride_h + x_.r) * ((columns - 1) * x_.stride_w + x_.s);
      return pixels * kind_.vector + rows * columns * window_bytes();
    };
    args.rows = choose_rows(kind_.window.size > kind_.window.stride, x_.p(), x_.q(), columns, bytes);
    plan_.family = kind_.window.size ? "max_pool" : "max_pool_any";
    if (args.rows == 0) return Refusal{no_tile(name_, options_.tile)};
    add(forward_kernel(kind_), args, ceil_div(x_.p(), args.rows), ceil_div(x_.q(), columns),
        forward_buffers());
    return plan_;
  }

  std::variant<LaunchPlan, Refusal> backward() {
    if (std::string sentence = refusal_of_indexed(); !sentence.empty()) return Refusal{sentence};
    if (images_ == 0) return plan_;
    if (x_.layout == Layout::nchw && backward_rows()) return plan_;
    MaxPoolArguments args = arguments();
    int64_t rows = x_.h, columns = x_.w;
    if (const auto [size, stride] = kind_.window; size) {
      // Blocks of stride x stride pixels, two in a row.
      const int64_t blocks_h = ceil_div(x_.h + x_.pad_top, stride),
                    blocks_w = ceil_div(x_.w + x_.pad_left, stride);
      const int64_t reach = (size - 1) / stride, pixels = stride * stride;
      const auto bytes = [&, reach, pixels](int64_t rows) {
        return (rows + reach) * (2 + reach) * window_bytes() + rows * 2 * pixels * kind_.vector;
      };
      args.rows = choose_rows(reach > 0, blocks_h, blocks_w, 2, bytes);
      if (args.rows == 0) return Refusal{no_tile(name_, options_.tile)};
      rows = ceil_div(blocks_h, args.rows), columns = ceil_div(blocks_w, 2);
    }
    plan_.family = kind_.window.size ? "max_pool_backward" : "max_pool_backward_any";
    add(backward_kernel(kind_), args, rows, columns, backward_buffers());
    return plan_;
  }

  std::variant<LaunchPlan, Refusal> gather() {
    if (std::string sentence = refusal_of_indexed(); !sentence.empty()) return Refusal{sentence};
    if (images_ == 0) return plan_;
    if (options_.ahead_of_time && x_.index == IndexType::i32)
      return Refusal{not_ahead_of_time(name_, "indices of int32")};
    plan_.family = "max_pool_gather";
    if (options_.ahead_of_time) kind_.vector = bytes_;
    add(gather_kernel(kind_), arguments(), x_.p(), x_.q(),
        {{"input", offsetof(MaxPoolArguments, from), image_bytes()},
         {"indices", offsetof(MaxPoolArguments, indices), pooled() * index_bytes(x_.index)},
         {"output", offsetof(MaxPoolArguments, to), pooled() * bytes_}});
    return plan_;
  }

private:
  // Plans for rows of planes in shared memory. False where a row of outputs does not fit, or strides leave
  // out so many rows that reading all of them would not do.
  bool forward_rows() {
    if (options_.ahead_of_time || skips_rows()) return false;
    const BandChoice band =
        choose_band(plan_, images_, x_.p(), x_.q(),
                    {rows_under(x_.w * bytes_, x_.h, x_.p(), x_.stride_h, extent(x_.r, x_.dilation_h))},
                    {rows_under(x_.q() * bytes_, x_.p(), x_.p(), 1, 1),
                     rows_under(x_.q() * index_bytes(x_.index), x_.p(), x_.p(), 1, 1)},
                    device_, options_.tile);
    if (!band.rows) return false;
    plan_.family = "max_pool_rows";
    const bool constant =
        x_.r == x_.s && (x_.r == 2 || x_.r == 3) && x_.dilation_h == 1 && x_.dilation_w == 1;
    add_bands(plan_, forward_rows_kernel(kind_, constant ? x_.r : 0), arguments(), band, images_, x_.p(),
              x_.q(), forward_buffers());
    return true;
  }

  // The same for the gradient: a block has rows of pixels, or of blocks of stride x stride pixels.
  bool backward_rows() {
    if (options_.ahead_of_time || skips_rows()) return false;
    const auto [size, stride] = kind_.window;
    const int64_t step = size ? stride : 1, pad_h = size ? x_.pad_top : 0, pad_w = size ? x_.pad_left : 0;
    const int64_t rows = ceil_div(x_.h + pad_h, step), columns = ceil_div(x_.w + pad_w, step);
    const int64_t above = size ? (size - 1) / stride : 0, p = x_.p(), span = extent(x_.r, x_.dilation_h);
    const auto windows = [&](int64_t row_bytes) -> BandRun {
      if (size) return rows_under(row_bytes, p, rows, 1, above + 1);
      return {row_bytes, [span, p, down = x_.stride_h](int64_t owned, int64_t planes) {
                return planes ? (planes + 1) * p : std::min(p, (owned + span - 2) / down + 2);
              }};
    };
    std::vector<BandRun> read = {windows(x_.q() * bytes_), windows(x_.q() * index_bytes(x_.index))};
    if (kind_.relu) read.push_back(windows(x_.q() * bytes_));
    const BandChoice band =
        choose_band(plan_, images_, rows, columns, read, {rows_under(x_.w * bytes_, x_.h, rows, step, step)},
                    device_, options_.tile);
    if (!band.rows) return false;
    plan_.family = "max_pool_rows_backward";
    add_bands(plan_, backward_rows_kernel(kind_), arguments(), band, images_, rows, columns,
              backward_buffers());
    return true;
  }

  std::vector<SweptBuffer> backward_buffers() const {
    std::vector<SweptBuffer> buffers = {
        {"grad_output", offsetof(MaxPoolArguments, from), pooled() * bytes_},
        {"indices", offsetof(MaxPoolArguments, indices), pooled() * index_bytes(x_.index)},
        {"grad_input", offsetof(MaxPoolArguments, to), image_bytes()}};
    if (kind_.relu) buffers.push_back({"relu_output", offsetof(MaxPoolArguments, pooled), pooled() * bytes_});
    return buffers;
  }

  // Are there planes of so many places that their positions, and rows beyond them, have more than 31 bits, or
  // rows that no window reads?
  bool skips_rows() const {
    return (x_.h + x_.pad_top + extent(x_.r, x_.dilation_h) + x_.stride_h) * (x_.w + x_.pad_left) >= kLimit ||
           x_.stride_h > 2 * extent(x_.r, x_.dilation_h);
  }

  std::vector<SweptBuffer> forward_buffers() const {
    return {{"input", offsetof(MaxPoolArguments, from), image_bytes()},
            {"indices", offsetof(MaxPoolArguments, indices), pooled() * index_bytes(x_.index)},
            {"output", offsetof(MaxPoolArguments, to), pooled() * bytes_}};
  }

  std::string refusal_of_indexed() const {
    if (x_.index != IndexType::none) return refusal();
    return text(name_, ": indices are needed, got none; pass those that max_pool2d returned");
  }

  std::string refusal() const {
    if (std::string sentence = x_.refusal(); !sentence.empty())
      return text(name_, sentence.substr(sentence.find(':')));
    if (options_.alignment < bytes_ || (options_.alignment & (options_.alignment - 1)))
      return text(name_, ": the alignment must be a power of two and at least an element's ", bytes_,
                  " bytes, got ", options_.alignment, "; pass the largest that all addresses have");
    if (device_.capability < 75)
      return text(name_, ": the CUDA kernels need compute capability 7.5, and ", device_.name, " has ",
                  device_.capability / 10, ".", device_.capability % 10, "; use another backend on it");
    const auto number = [](int64_t size) { return static_cast<double>(size); };
    const double tall = number(extent(x_.r, x_.dilation_h)), wide = number(extent(x_.s, x_.dilation_w));
    for (double size : {number(x_.h) + number(x_.pad_top + x_.pad_bottom) + tall + number(x_.stride_h),
                        number(x_.w) + number(x_.pad_left + x_.pad_right) + wide + number(x_.stride_w),
                        (number(x_.w) + number(x_.pad_left)) * number(channels_) * number(bytes_)})
      if (size >= number(kLimit))
        return text(name_, ": the kernels count rows, columns and the bytes of a row in 31 bits, got ",
                    x_.str(), "; split the dimension that has 2^31 or more");
    return {};
  }

  MaxPoolArguments arguments() const {
    const auto narrow = [](int64_t size) { return static_cast<int>(size); };
    MaxPoolArguments args{};
    args.h = narrow(x_.h), args.w = narrow(x_.w), args.c = narrow(channels_);
    args.p = narrow(x_.p()), args.q = narrow(x_.q());
    args.r = narrow(x_.r), args.s = narrow(x_.s);
    args.stride_h = narrow(x_.stride_h), args.stride_w = narrow(x_.stride_w);
    args.pad_top = narrow(x_.pad_top), args.pad_left = narrow(x_.pad_left);
    args.dilation_h = narrow(x_.dilation_h), args.dilation_w = narrow(x_.dilation_w);
    args.by_dilation_h = division_by(args.dilation_h), args.by_dilation_w = division_by(args.dilation_w);
    args.by_stride_h = division_by(args.stride_h), args.by_stride_w = division_by(args.stride_w);
    args.by_s = division_by(args.s);
    args.relu = kind_.relu;
    args.rows = 1;
    // Lanes that exchange have 16 bytes of indices in all, or as many vectors of them as they are.
    const int64_t lanes = lane_bytes() == 0 ? 1 : lane_bytes() < 16 ? 16 / lane_bytes() : lane_bytes() / 16;
    args.exchange_indices = kind_.vector == 16 && chunks() % lanes == 0;
    return args;
  }

  int64_t chunks() const { return channels_ * bytes_ / kind_.vector; }
  int64_t lane_bytes() const {
    return kind_.vector / bytes_ * index_bytes(x_.index);
  }  // of a thread's indices
  int64_t window_bytes() const { return kind_.vector + lane_bytes(); }
  int64_t image_bytes() const { return x_.h * x_.w * channels_ * bytes_; }
  int64_t pooled() const { return x_.p() * x_.q() * channels_; }

  // How many rows a thread walks down: where they share windows or pixels, more rows share more, and leave
  // fewer threads. The model: a chip needs a quarter of its threads to keep its memory busy, and then takes
  // as long as the bytes that threads move. 0 if the tile that was asked for is none.
  template <class Bytes>
  int choose_rows(bool shared, int64_t rows, int64_t columns, int64_t columns_at_once, Bytes bytes) {
    int best = 0;
    double least = 0;
    for (int walk : {1, 2, 4, 8}) {
      if (walk > 1 && !shared) break;
      const double threads = static_cast<double>(images_) * static_cast<double>(ceil_div(rows, walk)) *
                             static_cast<double>(ceil_div(columns, columns_at_once) * chunks());
      const double needed = device_.sms * device_.threads_per_sm / 4.0;
      constexpr double kBytesPerClock = 14;  // from DRAM, for each SM, within a fifth of every chip's
      const Candidate candidate{
          text(walk, "x", columns_at_once), device_.threads_per_sm / 4 / kSweepThreads, threads / needed,
          std::max(threads, needed) * static_cast<double>(bytes(walk)) / (device_.sms * kBytesPerClock)};
      plan_.candidates.push_back(candidate);
      const bool wanted =
          options_.tile.empty() ? best == 0 || candidate.clocks < least : candidate.tile == options_.tile;
      if (!wanted) continue;
      best = walk, least = candidate.clocks;
      plan_.tile = candidate.tile;
    }
    return best;
  }

  void add(const Kernel& kernel, const MaxPoolArguments& args, int64_t rows, int64_t columns,
           const std::vector<SweptBuffer>& buffers) {
    add_sweep(plan_, kernel.name, kernel.header.c_str(), args, {images_, rows, columns, chunks()}, buffers);
  }

  const char* name_;
  const Pool2dProblem& x_;
  const Device& device_;
  const PlanOptions& options_;
  const int64_t bytes_;
  const int64_t images_, channels_;  // planes of one channel in NCHW
  Variant kind_;
  LaunchPlan plan_;
};

}  // namespace

std::variant<LaunchPlan, Refusal> plan_max_pool2d(const Pool2dProblem& problem, const Device& device,
                                                  const PlanOptions& options) {
  const bool relu = problem.activation == Activation::relu;
  return MaxPoolPlanner("max_pool2d", problem, relu, device, options).forward();
}

std::variant<LaunchPlan, Refusal> plan_max_pool2d_backward(const Pool2dProblem& problem, const Device& device,
                                                           const PlanOptions& options) {
  const bool relu = problem.activation == Activation::relu;
  return MaxPoolPlanner("max_pool2d_backward", problem, relu, device, options).backward();
}

std::variant<LaunchPlan, Refusal> plan_max_pool2d_gather(const Pool2dProblem& problem, const Device& device,
                                                         const PlanOptions& options) {
  return MaxPoolPlanner("max_pool2d_gather", problem, false, device, options).gather();
}

void list_max_pool(std::vector<Kernel>& kernels) {
  for (DType dtype : {DType::f16, DType::bf16, DType::f32, DType::f64})
    for (IndexType index : {IndexType::none, IndexType::u8, IndexType::i32, IndexType::i64}) {
      std::vector<Variant> variants;
      for (const ConstantWindow& window : kConstantWindows)
        for (bool relu : {false, true}) variants.push_back({dtype, index, 16, window, false, relu});
      variants.push_back({dtype, index, element_bytes(dtype), {}, index == IndexType::i64, false});
      for (const Variant& variant : variants) {
        if (!is_ahead_of_time(variant)) continue;
        kernels.push_back(forward_kernel(variant));
        if (index != IndexType::none) kernels.push_back(backward_kernel(variant));
      }
      // Kernels that only move elements are the same for all of a size.
      if ((index == IndexType::u8 || index == IndexType::i64) && dtype != DType::bf16)
        kernels.push_back(gather_kernel({dtype, index, element_bytes(dtype), {}, false, false}));
    }
}

}  // namespace pyconvx
