// Which kernels unpool, and how their threads are laid out.
#include "plan/pool/max_unpool.h"
#include "../../../kernels/cuda/pool/unpool_arguments.cuh"
#include "plan/conv_arguments.h"
#include "plan/pool/bands.h"
#include "plan/pool/sweep.h"

namespace pyconvx {
namespace {

// Windows over one output, up to which they are all looked at. Each costs an index, of which neighbours share
// the cache line; a workspace that says who comes last costs 12 bytes an output and an atomic for each input.
constexpr int64_t kMostWindows = 9;

class UnpoolPlanner {
public:
  UnpoolPlanner(const Unpool2dProblem& problem, const Device& device, const PlanOptions& options,
                bool backward)
      : x_(problem), device_(device), options_(options), backward_(backward),
        bytes_(element_bytes(problem.dtype)), index_bytes_(problem.index == IndexType::u8    ? 1
                                                           : problem.index == IndexType::i32 ? 4
                                                                                             : 8),
        nhwc_(problem.layout == Layout::nhwc), images_(nhwc_ ? problem.n : problem.n * problem.c),
        channels_(nhwc_ ? problem.c : 1),
        stride_h_(problem.p > 1 ? problem.stride_h : std::max(problem.stride_h, span_h())),
        stride_w_(problem.q > 1 ? problem.stride_w : std::max(problem.stride_w, span_w())) {}

  std::variant<LaunchPlan, Refusal> plan() {
    if (std::string sentence = refusal(); !sentence.empty()) return Refusal{sentence};
    if (images_ == 0) return plan_;
    fill_arguments();
    const int64_t windows = int64_t{args_.reach_h} * args_.reach_w;
    const bool ahead = options_.ahead_of_time;
    if (x_.index == IndexType::i64 || (windows > kMostWindows && !ahead))
      plan_last();
    else if (windows > 1 || (ahead && !(constant() && x_.r == 2 && bytes_ == 2 && wide())))
      plan_overlapping();
    else if (nhwc_ || ahead || !plan_rows())
      plan_apart();
    if (plan_.tile != options_.tile && !options_.tile.empty()) return Refusal{no_tile(name(), options_.tile)};
    return plan_;
  }

private:
  const char* name() const { return backward_ ? "max_unpool2d_backward" : "max_unpool2d"; }
  const char* kernel() const { return backward_ ? "pyconvx::max_unpool_backward" : "pyconvx::max_unpool"; }
  const char* header() const { return backward_ ? "pool/max_unpool_backward.cuh" : "pool/max_unpool.cuh"; }

  static int64_t span(int64_t taps, int64_t dilation) { return (taps - 1) * dilation + 1; }
  int64_t span_h() const { return span(x_.r, x_.dilation_h); }
  int64_t span_w() const { return span(x_.s, x_.dilation_w); }

  std::string refusal() const {
    if (std::string sentence = x_.refusal(); !sentence.empty()) return sentence;
    if (options_.ahead_of_time && bytes_ == 8) return not_ahead_of_time(name(), "float64");
    if (options_.ahead_of_time && x_.index == IndexType::i32)
      return not_ahead_of_time(name(), "indices of int32");
    if (options_.ahead_of_time && rank_size() == 8)
      return not_ahead_of_time(name(), "planes of 2^32 pooled values");
    if (options_.alignment < bytes_ || (options_.alignment & (options_.alignment - 1)))
      return text(name(), ": the alignment must be a power of two and at least an element's ", bytes_,
                  " bytes, got ", options_.alignment, "; pass the largest that all addresses have");
    for (double size : {double(x_.c), double(x_.h), double(x_.w), double(x_.r) * double(x_.s),
                        double(x_.p + 1) * double(stride_h_) + double(span_h()) + double(x_.pad_top),
                        double(x_.q + 1) * double(stride_w_) + double(span_w()) + double(x_.pad_left),
                        double(std::max(x_.w + x_.pad_left, x_.q)) * double(channels_)})
      if (size >= double(kMostSwept))
        return text(name(),
                    ": the kernels count channels, rows, columns and taps, and the channels of a row, in "
                    "31 bits, got ",
                    x_.str(), "; split the dimension that has 2^31 or more");
    return {};
  }

  void fill_arguments() {
    const auto narrow = [](int64_t size) { return static_cast<int>(size); };
    args_.p = narrow(x_.p), args_.q = narrow(x_.q), args_.h = narrow(x_.h), args_.w = narrow(x_.w);
    args_.c = narrow(channels_), args_.r = narrow(x_.r), args_.s = narrow(x_.s);
    args_.stride_h = narrow(stride_h_), args_.stride_w = narrow(stride_w_);
    args_.pad_top = narrow(x_.pad_top), args_.pad_left = narrow(x_.pad_left);
    args_.dilation_h = narrow(x_.dilation_h), args_.dilation_w = narrow(x_.dilation_w);
    args_.reach_h = narrow(ceil_div(span_h(), stride_h_)),
    args_.reach_w = narrow(ceil_div(span_w(), stride_w_));
    args_.by_s = division_by(args_.s);
    args_.by_dilation_h = division_by(args_.dilation_h);
    args_.by_dilation_w = division_by(args_.dilation_w);
  }

  // Pooled positions, and forward also the cells beyond the last of them.
  SweepExtent windows(int64_t chunks) const {
    if (backward_) return {images_, x_.p, x_.q, chunks};
    return {images_, std::max(x_.p, ceil_div(x_.h + x_.pad_top, stride_h_)),
            std::max(x_.q, ceil_div(x_.w + x_.pad_left, stride_w_)), chunks};
  }

  // Is the window a constant to the kernels? Forward it must fill its cell.
  bool constant() const {
    const bool square = x_.r == x_.s && (x_.r == 2 || x_.r == 3) && x_.dilation_h == 1 && x_.dilation_w == 1;
    return square && (backward_ || (stride_h_ == x_.r && stride_w_ == x_.s));
  }

  // Do lanes share 16 indices each? Of any window, in float64, eight chunks a thread take more registers than
  // there are.
  bool wide() const {
    return (constant() || bytes_ < 8) && x_.index == IndexType::u8 && channels_ % 16 == 0 &&
           options_.alignment >= 16;
  }

  // Rows of planes in shared memory. False where a row does not fit, positions in a plane have more than 31
  // bits, or strides leave out so many rows that reading all of them would not do.
  bool plan_rows() {
    if ((x_.h + x_.pad_top + span_h() + stride_h_) * (x_.w + x_.pad_left + stride_w_) >= kMostSwept ||
        (x_.p + 1) * (x_.q + 1) >= kMostSwept || (backward_ && stride_h_ > 2 * span_h()))
      return false;
    const SweepExtent owned = windows(1);
    const BandRun plane = rows_under(x_.w * bytes_, x_.h, owned.rows, stride_h_,
                                     backward_ ? span_h() : stride_h_),
                  values = rows_under(x_.q * bytes_, x_.p, owned.rows, 1, 1),
                  indices = rows_under(x_.q * index_bytes_, x_.p, owned.rows, 1, 1);
    const BandChoice band =
        choose_band(plan_, images_, owned.rows, owned.columns, {backward_ ? plane : values, indices},
                    {backward_ ? values : plane}, device_, options_.tile);
    if (!band.rows) return false;
    plan_.family = "max_unpool_rows";
    const std::string types = text("<", value_name(bytes_), ", ", index_name());
    const int64_t size = constant() ? x_.r : 0;
    const Kernel kernel{backward_ ? text("pyconvx::max_unpool_rows_backward", types, ">")
                                  : text("pyconvx::max_unpool_rows", types, ", ", size, ", ", size, ">"),
                        "pool/max_unpool_rows.cuh"};
    add_bands(plan_, kernel, args_, band, images_, owned.rows, owned.columns, buffers());
    return true;
  }

  void plan_apart() {
    plan_.family = "max_unpool";
    const bool wide = this->wide();
    const int64_t size = constant() ? x_.r : 0;
    const int64_t vector = wide ? 16 / bytes_ : at_once(), lanes = wide ? 16 / vector : 1;
    const int64_t chunks = ceil_div(channels_, vector * lanes * lanes) * lanes;
    const std::string name = text(kernel(), "<", value_name(bytes_), ", ", index_name(), ", ", vector, ", ",
                                  wide ? "true" : "false", ", ", size, ", ", size, ">");
    add(name, header(), windows(chunks));
  }

  void plan_overlapping() {
    plan_.family = "max_unpool_overlapping";
    const int64_t vector = at_once();
    add(text(kernel(), "_overlapping<", value_name(bytes_), ", ", index_name(), ", ", vector, ">"), header(),
        windows(channels_ / vector));
  }

  void plan_last() {
    plan_.family = "unpool_last";
    constexpr const char* header = "pool/unpool_last.cuh";
    const int rank_bytes = rank_size();
    const char* rank = value_name(rank_bytes);
    const int64_t ranks = images_ * x_.h * x_.w * channels_;
    const FillArguments fill{nullptr, ceil_div(ranks * rank_bytes, 16)};
    plan_.workspaces.push_back({"last", fill.vectors * 16});
    plan_.launches.push_back({"pyconvx::fill_zeros<uint4>",
                              header,
                              {std::min(ceil_div(fill.vectors, 256), kMostBlocks), 1, 1},
                              256,
                              0,
                              bytes_of(fill),
                              {{"last", offsetof(FillArguments, to), 0}}});
    rank_bytes_ = rank_bytes;
    const int64_t marked =
        options_.ahead_of_time ? 1 : channels_at_once(channels_, {index_bytes_}, options_.alignment);
    add(text("pyconvx::mark_last<", index_name(), ", ", rank, ", ", marked, ">"), header,
        {images_, x_.p, x_.q, channels_ / marked});
    if (backward_) {
      const int64_t vector = at_once();
      add(text("pyconvx::take_last_backward<", value_name(bytes_), ", ", index_name(), ", ", rank, ", ",
               vector, ">"),
          header, {images_, x_.p, x_.q, channels_ / vector});
    } else {
      const int64_t vector =
          options_.ahead_of_time ? 1 : channels_at_once(channels_, {bytes_, rank_bytes}, options_.alignment);
      add(text("pyconvx::take_last<", value_name(bytes_), ", ", rank, ", ", vector, ">"), header,
          {images_, x_.h, x_.w, channels_ / vector});
    }
  }

  // Ahead of time, kernels whose lanes share no indices take one channel at a time.
  int64_t at_once() const {
    if (options_.ahead_of_time) return 1;
    return channels_at_once(channels_, {bytes_, index_bytes_}, options_.alignment);
  }

  int rank_size() const { return x_.p * x_.q < (int64_t{1} << 32) - 1 ? 4 : 8; }

  const char* index_name() const {
    return x_.index == IndexType::u8 ? "unsigned char" : x_.index == IndexType::i32 ? "int" : "long long";
  }

  std::vector<SweptBuffer> buffers() const {
    const int64_t pooled = x_.p * x_.q * channels_, plane = x_.h * x_.w * channels_;
    std::vector<SweptBuffer> all = {
        {backward_ ? "grad_output" : "input", offsetof(UnpoolArguments, from),
         (backward_ ? plane : pooled) * bytes_},
        {"indices", offsetof(UnpoolArguments, indices), pooled * index_bytes_},
        {backward_ ? "grad_input" : "output", offsetof(UnpoolArguments, to),
         (backward_ ? pooled : plane) * bytes_},
        {"bad_index", offsetof(UnpoolArguments, bad_index), 0},
    };
    if (rank_bytes_) all.push_back({"last", offsetof(UnpoolArguments, last), plane * rank_bytes_});
    return all;
  }

  void add(const std::string& kernel, const char* header, const SweepExtent& extent) {
    add_sweep(plan_, kernel, header, args_, extent, buffers());
  }

  const Unpool2dProblem& x_;
  const Device& device_;
  const PlanOptions& options_;
  const bool backward_;
  const int bytes_, index_bytes_;
  const bool nhwc_;
  const int64_t images_, channels_;
  const int64_t stride_h_, stride_w_;  // of a window that is the only one: so large that it is its cell
  UnpoolArguments args_{};
  int rank_bytes_ = 0;
  LaunchPlan plan_;
};

}  // namespace

std::variant<LaunchPlan, Refusal> plan_max_unpool2d(const Unpool2dProblem& problem, const Device& device,
                                                    const PlanOptions& options) {
  return UnpoolPlanner(problem, device, options, false).plan();
}

std::variant<LaunchPlan, Refusal>
plan_max_unpool2d_backward(const Unpool2dProblem& problem, const Device& device, const PlanOptions& options) {
  return UnpoolPlanner(problem, device, options, true).plan();
}

void list_max_unpool(std::vector<Kernel>& kernels) {
  constexpr const char* forward = "pool/max_unpool.cuh";
  constexpr const char* backward = "pool/max_unpool_backward.cuh";
  constexpr const char* last = "pool/unpool_last.cuh";
  // 2 x 2, of eight channels of 16 bits; and element by element any window.
  kernels.push_back({"pyconvx::max_unpool<unsigned short, unsigned char, 8, true, 2, 2>", forward});
  kernels.push_back({"pyconvx::max_unpool_backward<unsigned short, unsigned char, 8, true, 2, 2>", backward});
  kernels.push_back({"pyconvx::fill_zeros<uint4>", last});
  kernels.push_back({"pyconvx::mark_last<long long, unsigned int, 1>", last});
  for (int bytes : {2, 4}) {
    const char* value = value_name(bytes);
    kernels.push_back({text("pyconvx::max_unpool_overlapping<", value, ", unsigned char, 1>"), forward});
    kernels.push_back(
        {text("pyconvx::max_unpool_backward_overlapping<", value, ", unsigned char, 1>"), backward});
    kernels.push_back({text("pyconvx::take_last<", value, ", unsigned int, 1>"), last});
    kernels.push_back({text("pyconvx::take_last_backward<", value, ", long long, unsigned int, 1>"), last});
  }
}

}  // namespace pyconvx
