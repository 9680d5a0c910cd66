// Which kernel pools, and how its threads are laid out. No choice here changes a result.
#include "../../../kernels/cuda/pool/arguments.cuh"
#include "plan/conv_arguments.h"
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

class MaxPoolPlanner {
public:
  MaxPoolPlanner(const char* name, const Pool2dProblem& problem, const Device& device,
                 const PlanOptions& options)
      : name_(name), x_(problem), device_(device), options_(options), bytes_(element_bytes(problem.dtype)),
        images_(problem.layout == Layout::nhwc ? problem.n : problem.n * problem.c),
        channels_(problem.layout == Layout::nhwc ? problem.c : 1),
        vector_(channels_at_once(channels_, {bytes_}, options.alignment) * bytes_) {}

  std::variant<LaunchPlan, Refusal> forward() {
    if (std::string sentence = refusal(); !sentence.empty()) return Refusal{sentence};
    if (images_ == 0) return plan_;
    MaxPoolArguments args = arguments();
    const int64_t columns = std::max<int64_t>(2, lanes_that_exchange_windows());
    const std::string types = text(element_name(x_.dtype), ", ", index_name(x_.index), ", ", vector_, ", ");
    const bool large = x_.index == IndexType::i64 && x_.h * x_.w >= kLimit;  // are positions?
    std::string kernel;
    if (constant_window() && !large) {
      plan_.family = "max_pool";
      args.rows = choose_rows(columns);
      kernel = text("pyconvx::max_pool<", types, x_.r, ", ", x_.s, ", ", x_.stride_h, ", false>");
    } else {
      plan_.family = "max_pool_any";
      args.rows = choose({1}, columns);
      kernel = text("pyconvx::max_pool_any<", types, large ? "long long" : "int", ", false>");
    }
    if (args.rows == 0) return Refusal{no_tile()};
    const int64_t pooled = x_.p() * x_.q() * channels_;
    add_sweep(plan_, kernel, "pool/max_pool.cuh", args,
              {images_, ceil_div(x_.p(), args.rows), ceil_div(x_.q(), columns), channels_ * bytes_ / vector_},
              {{"input", offsetof(MaxPoolArguments, from), x_.h * x_.w * channels_ * bytes_},
               {"indices", offsetof(MaxPoolArguments, indices), pooled * index_bytes(x_.index)},
               {"output", offsetof(MaxPoolArguments, to), pooled * bytes_}});
    return plan_;
  }

private:
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
                        number(x_.w) * number(channels_) * bytes_})
      if (size >= static_cast<double>(kLimit))
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
    args.rows = 1;
    // Lanes that exchange indices hold 16 bytes of them in all, or of values.
    const int64_t lane = vector_ / bytes_ * index_bytes(x_.index);
    const int64_t lanes = lane == 0 ? 1 : lane < 16 ? 16 / lane : lane / 16;
    args.exchange_indices = vector_ == 16 && channels_ * bytes_ / vector_ % lanes == 0;
    return args;
  }

  bool constant_window() const {
    if (x_.dilation_h != 1 || x_.dilation_w != 1 || x_.r != x_.s || x_.stride_h != x_.stride_w) return false;
    return (x_.r == 2 && x_.stride_h == 2) || (x_.r == 3 && x_.stride_h <= 2);
  }

  // As max_pool.cuh's kPoolColumns.
  int64_t lanes_that_exchange_windows() const {
    const int64_t lane = vector_ / bytes_ * index_bytes(x_.index);
    return vector_ == 16 && lane > 0 && lane < 16 ? 16 / lane : 1;
  }

  int choose_rows(int64_t columns) {
    if (x_.r <= x_.stride_h) return choose({1}, columns);
    return choose({1, 2, 4, 8}, columns);
  }

  // How many windows a thread walks down: more share more, and leave fewer threads. The model: a chip needs a
  // quarter of its threads to keep its memory busy, and then takes as long as the pixels read, and windows
  // written, take to move. 0 if the tile that was asked for is none.
  int choose(std::initializer_list<int> rows, int64_t columns) {
    int best = 0;
    double least = 0;
    for (int walk : rows) {
      const double threads = static_cast<double>(images_) * static_cast<double>(ceil_div(x_.p(), walk)) *
                             static_cast<double>(ceil_div(x_.q(), columns)) *
                             static_cast<double>(channels_ * bytes_ / vector_);
      const double pixels = static_cast<double>((walk - 1) * x_.stride_h + x_.r) *
                            static_cast<double>((columns - 1) * x_.stride_w + x_.s);
      const double bytes =
          pixels * static_cast<double>(vector_) +
          static_cast<double>(walk * columns * (vector_ + vector_ / bytes_ * index_bytes(x_.index)));
      const double needed = device_.sms * device_.threads_per_sm / 4.0;
      constexpr double kBytesPerClock = 14;  // from DRAM, for each SM, within a fifth of every chip's
      const Candidate candidate{text(walk, "x", columns), device_.threads_per_sm / 4 / kSweepThreads,
                                threads / needed,
                                std::max(threads, needed) * bytes / (device_.sms * kBytesPerClock)};
      plan_.candidates.push_back(candidate);
      const bool wanted =
          options_.tile.empty() ? best == 0 || candidate.clocks < least : candidate.tile == options_.tile;
      if (!wanted) continue;
      best = walk, least = candidate.clocks;
      plan_.tile = candidate.tile;
    }
    return best;
  }

  std::string no_tile() const {
    return text(name_, ": ", plan_.family, " has no tile ", options_.tile,
                "; leave the tile open, or take one of the plan's candidates");
  }

  const char* name_;
  const Pool2dProblem& x_;
  const Device& device_;
  const PlanOptions& options_;
  const int64_t bytes_;
  const int64_t images_, channels_;  // planes of one channel in NCHW
  const int64_t vector_;             // bytes that are accessed at once
  LaunchPlan plan_;
};

}  // namespace

std::variant<LaunchPlan, Refusal> plan_max_pool2d(const Pool2dProblem& problem, const Device& device,
                                                  const PlanOptions& options) {
  return MaxPoolPlanner("max_pool2d", problem, device, options).forward();
}

}  // namespace pyconvx
