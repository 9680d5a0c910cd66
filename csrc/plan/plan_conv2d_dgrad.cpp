// dgrad, and conv_transpose2d, which is dgrad run forward: convolutions of stride 1 over the gradient of the
// output, one for each class of taps. The classes: kernels/cuda/conv/dgrad_filter.cuh.
#include "plan/conv/fprop.h"
#include "plan/conv_arguments.h"

#include <algorithm>
#include <numeric>

namespace pyconvx {
namespace {

// One direction of a class: taps first, first + apart ... below `taps` lead to the rows at, at + stride ...
// of the input, each from row i + offset - tap * dilation of the gradient.
struct Axis {
  int64_t first;  // tap; -1: none
  int64_t taps;
  int64_t taps_before;  // in the classes of smaller first taps
  int64_t at, rows;     // of the input
  int64_t dilation, offset;

  // Padding that makes a convolution of stride 1 out of it, which may be negative.
  int64_t pad_front() const { return reach() - offset; }
  int64_t pad_back(int64_t size) const { return rows + reach() - size - pad_front(); }
  int64_t reach() const { return (std::max<int64_t>(taps, 1) - 1) * dilation; }
};

int64_t apart(int64_t stride, int64_t dilation) {
  return stride / std::gcd(stride, dilation);
}

int64_t taps_of_class(int64_t taps, int64_t apart, int64_t first) {
  return ceil_div(taps - first, apart);
}

// The rows of the input, by their remainder modulo the stride. Rows that do not exist make no class.
std::vector<Axis> axes(int64_t size, int64_t taps, int64_t stride, int64_t pad, int64_t dilation) {
  std::vector<Axis> all;
  const int64_t between = apart(stride, dilation);
  for (int64_t at = 0; at < std::min(stride, size); ++at) {
    Axis axis{-1, 0, 0, at, ceil_div(size - at, stride), dilation * between / stride, 0};
    for (int64_t first = 0; first < std::min(between, taps); ++first) {
      if ((at + pad - first * dilation) % stride != 0) {
        if (axis.first < 0) axis.taps_before += taps_of_class(taps, between, first);
        continue;
      }
      axis.first = first;
      axis.taps = taps_of_class(taps, between, first);
      axis.offset = (at + pad - first * dilation) / stride;
      break;
    }
    all.push_back(axis);
  }
  return all;
}

// The convolution that computes a class.
Conv2dProblem convolution(const Conv2dProblem& x, const Axis& vertical, const Axis& horizontal) {
  Conv2dProblem y = x;
  y.pass = Pass::fprop, y.masked = false;
  y.c = x.k, y.k = x.c;
  y.h = x.p(), y.w = x.q();
  // Where no tap reaches, only the size of the result matters.
  y.r = std::max<int64_t>(vertical.taps, 1), y.s = std::max<int64_t>(horizontal.taps, 1);
  y.stride_h = y.stride_w = 1;
  y.dilation_h = vertical.dilation, y.dilation_w = horizontal.dilation;
  y.pad_top = vertical.pad_front(), y.pad_bottom = vertical.pad_back(y.h);
  y.pad_left = horizontal.pad_front(), y.pad_right = horizontal.pad_back(y.w);
  y.layout = Layout::nhwc;
  return y;
}

Kernel filter_kernel(int bytes) {
  const char* bits = bytes == 8 ? "unsigned long long" : bytes == 4 ? "unsigned int" : "unsigned short";
  return {text("pyconvx::dgrad_filter<", bits, ">"), "conv/dgrad_filter.cuh"};
}
Kernel plain_kernel(const char* element, bool masked) {
  return {text("pyconvx::dgrad_plain<", element, masked ? ", true>" : ">"), "conv/dgrad_plain.cuh"};
}
Kernel fill_kernel(const char* element) {
  return {text("pyconvx::fill<", element, ">"), "conv/fill.cuh"};
}

class DgradPlanner {
public:
  DgradPlanner(const Conv2dProblem& x, const Device& device, const PlanOptions& options,
               const FpropOperands& operands)
      : x_(x), device_(device), options_(options), operands_(operands),
        builder_(x.layout, element_bytes(x.dtype)) {}

  std::variant<LaunchPlan, Refusal> run() {
    LaunchPlan& plan = builder_.plan;
    if (x_.n == 0) return plan;
    bring_gradient();
    builder_.replace_output(operands_.output, x_.n, x_.c, x_.h * x_.w);
    const std::string sentence = too_many_classes() ? plain() : by_classes();
    if (!sentence.empty()) return Refusal{sentence};
    builder_.from_channels_last(operands_.output, x_.n, x_.c, x_.h * x_.w);
    return plan;
  }

private:
  static constexpr const char* kFilters = "dgrad_filter";

  bool too_many_classes() const { return std::min(x_.stride_h, x_.h) * std::min(x_.stride_w, x_.w) > 256; }

  // Masked where it is transposed, else as kernels load it, else before.
  void bring_gradient() {
    const int64_t pixels = x_.p() * x_.q();
    if (!x_.masked)
      builder_.to_channels_last(operands_.input, x_.n, x_.k, pixels);
    else if (!builder_.mask_to_channels_last(operands_.input, x_.dtype, x_.n, x_.k, pixels)) {
      masked_ = kernels_mask();
      if (!masked_)
        builder_.write_masked(operands_.input, x_.dtype, x_.n * x_.k * pixels, options_.alignment);
    }
  }

  // Can the kernels of all classes mask the gradient as they load it?
  bool kernels_mask() {
    if (too_many_classes()) return true;
    masked_ = true;
    const std::string sentence = choose_tile(classes());
    return sentence.empty();
  }

  std::string plain() {
    builder_.to_channels_last(operands_.filter, x_.k, x_.c / x_.groups, x_.r * x_.s);
    builder_.plan.family = "dgrad_plain";
    if (!options_.tile.empty()) return no_tile();
    const DgradArguments args{conv2d_arguments(x_), nullptr, nullptr};
    const Kernel kernel = plain_kernel(element_name(x_.dtype), masked_);
    const int64_t vectors = x_.groups * ceil_div(x_.c / x_.groups, 16 / element_bytes(x_.dtype));
    builder_.plan.launches.push_back(
        {kernel.name,
         kernel.header,
         {std::min(ceil_div(x_.n * x_.h * x_.w * vectors, 256), kMostBlocks), 1, 1},
         256,
         0,
         bytes_of(args),
         {{builder_.buffer(operands_.filter), offsetof(DgradArguments, conv.filter), 0},
          {operands_.bias, offsetof(DgradArguments, conv.bias), 0},
          {builder_.buffer(operands_.input), offsetof(DgradArguments, grad_output), 0},
          {builder_.buffer(operands_.output), offsetof(DgradArguments, grad_input), 0}}});
    if (masked_)
      builder_.plan.launches.back().pointers.push_back(
          {operands_.relu_output, offsetof(DgradArguments, conv.relu_output), 0});
    return {};
  }

  using Class = std::pair<Axis, Axis>;

  // Those with most taps first: they take longest.
  std::vector<Class> classes() const {
    std::vector<Class> all;
    for (const Axis& vertical : axes(x_.h, x_.r, x_.stride_h, x_.pad_top, x_.dilation_h))
      for (const Axis& horizontal : axes(x_.w, x_.s, x_.stride_w, x_.pad_left, x_.dilation_w))
        all.push_back({vertical, horizontal});
    std::stable_sort(all.begin(), all.end(), [](const Class& a, const Class& b) {
      return a.first.taps * a.second.taps > b.first.taps * b.second.taps;
    });
    return all;
  }

  std::string by_classes() {
    rearrange_filters();
    const std::vector<Class> all = classes();
    if (std::string sentence = choose_tile(all); !sentence.empty()) return sentence;
    for (const auto& [vertical, horizontal] : all) {
      LaunchPlan part;
      if (std::string sentence = add_class(vertical, horizontal, options_, part); !sentence.empty())
        return sentence;
      append(part);
    }
    return {};
  }

  void rearrange_filters() {
    const int bytes = element_bytes(x_.dtype);
    const int64_t channels = x_.c / x_.groups, filters = x_.k / x_.groups;
    const bool nhwc = x_.layout == Layout::nhwc;
    DgradFilterArguments args{};
    args.step_k = channels * x_.r * x_.s, args.step_c = nhwc ? 1 : x_.r * x_.s;
    args.step_r = x_.s * (nhwc ? channels : 1), args.step_s = nhwc ? channels : 1;
    args.groups = static_cast<int>(x_.groups);
    args.group_filters = static_cast<int>(filters), args.group_channels = static_cast<int>(channels);
    args.r = static_cast<int>(x_.r), args.s = static_cast<int>(x_.s);
    args.apart_h = static_cast<int>(apart(x_.stride_h, x_.dilation_h));
    args.apart_w = static_cast<int>(apart(x_.stride_w, x_.dilation_w));
    args.filter_tiles = static_cast<int>(ceil_div(filters, 32));
    args.channel_tiles = static_cast<int>(ceil_div(channels, 32));
    const int64_t tiles = x_.r * x_.s * x_.groups * args.filter_tiles * args.channel_tiles;
    const Kernel kernel = filter_kernel(bytes);
    builder_.plan.workspaces.push_back({kFilters, x_.k * channels * x_.r * x_.s * bytes});
    builder_.plan.launches.push_back({kernel.name,
                                      kernel.header,
                                      {std::min(tiles, kMostBlocks), 1, 1},
                                      256,
                                      0,
                                      bytes_of(args),
                                      {{operands_.filter, offsetof(DgradFilterArguments, filter), 0},
                                       {kFilters, offsetof(DgradFilterArguments, rearranged), 0}}});
  }

  // A tile can be asked for if every class has it; the plan's is that of the class with most taps.
  std::string choose_tile(const std::vector<Class>& classes) {
    LaunchPlan& plan = builder_.plan;
    PlanOptions open = options_;
    open.tile.clear();
    bool first = true;
    for (const auto& [vertical, horizontal] : classes) {
      if (vertical.taps * horizontal.taps == 0) continue;
      LaunchPlan part;
      if (std::string sentence = add_class(vertical, horizontal, open, part); !sentence.empty())
        return sentence;
      if (first) {
        plan.family = text("dgrad by ", part.family);
        plan.tile = options_.tile.empty() ? part.tile : options_.tile;
        plan.candidates = part.candidates;
      } else {
        const auto missing = [&](const Candidate& candidate) {
          return std::none_of(part.candidates.begin(), part.candidates.end(),
                              [&](const Candidate& other) { return other.tile == candidate.tile; });
        };
        plan.candidates.erase(std::remove_if(plan.candidates.begin(), plan.candidates.end(), missing),
                              plan.candidates.end());
      }
      first = false;
    }
    const bool known =
        std::any_of(plan.candidates.begin(), plan.candidates.end(),
                    [&](const Candidate& candidate) { return candidate.tile == options_.tile; });
    return options_.tile.empty() || known ? std::string() : no_tile();
  }

  std::string no_tile() const {
    return text("conv2d_dgrad: there is no tile ", options_.tile, " that all parts of the problem have on ",
                device_.name, "; leave the tile open, or take one of the plan's candidates");
  }

  // Classes run one after another, and share workspaces of the same name.
  void append(const LaunchPlan& part) {
    LaunchPlan& plan = builder_.plan;
    plan.launches.insert(plan.launches.end(), part.launches.begin(), part.launches.end());
    for (const Workspace& workspace : part.workspaces) {
      const auto same = std::find_if(plan.workspaces.begin(), plan.workspaces.end(),
                                     [&](const Workspace& other) { return other.name == workspace.name; });
      if (same == plan.workspaces.end())
        plan.workspaces.push_back(workspace);
      else
        same->bytes = std::max(same->bytes, workspace.bytes);
    }
  }

  std::string add_class(const Axis& vertical, const Axis& horizontal, const PlanOptions& options,
                        LaunchPlan& to) {
    const Conv2dProblem part = convolution(x_, vertical, horizontal);
    FpropPlanner planner(part, device_, options);
    planner.operands.input = builder_.buffer(operands_.input);
    planner.operands.output = builder_.buffer(operands_.output);
    planner.operands.bias = operands_.bias, planner.operands.relu_output = operands_.relu_output;
    planner.masked = masked_ && vertical.taps * horizontal.taps > 0;
    planner.operands.filter = kFilters;
    const int64_t before = vertical.taps_before * x_.s + vertical.taps * horizontal.taps_before;
    planner.operands.filter_skip = before * x_.c * (x_.k / x_.groups) * element_bytes(x_.dtype);
    if (x_.stride_h > 1 || x_.stride_w > 1)
      planner.spread = Spread{x_.h, x_.w, vertical.at, horizontal.at, x_.stride_h, x_.stride_w};
    if (vertical.taps * horizontal.taps == 0)
      fill(planner);
    else if (std::string sentence = plan_fprop(planner); !sentence.empty())
      return sentence;
    to = planner.plan;
    return {};
  }

  static void fill(FpropPlanner& planner) {
    const Conv2dProblem& x = planner.x;
    Conv2dArguments args = planner.arguments();
    args.vector_output = common_vector(x.k, planner.bytes, planner.options.alignment) == 16;
    const auto blocks = [&](const Conv2dArguments&) {
      return std::min(ceil_div(x.n * x.p() * x.q() * ceil_div(x.k, 16 / planner.bytes), 256), kMostBlocks);
    };
    planner.add_launches(fill_kernel(element_name(x.dtype)), args, blocks, 256, 0, x.n);
  }

  const Conv2dProblem& x_;
  const Device& device_;
  const PlanOptions& options_;
  const FpropOperands& operands_;
  bool masked_ = false;  // do the kernels mask the gradient?
  PlanBuilder builder_;
};

std::variant<LaunchPlan, Refusal> plan_dgrad(const char* operation, const FpropOperands& operands,
                                             const Conv2dProblem& x, const Device& device,
                                             const PlanOptions& options) {
  if (x.pass != Pass::dgrad && x.refusal().empty())
    return Refusal{text(operation, ": its plan needs a problem of pass dgrad, got one of ", name(x.pass),
                        "; make its plan with plan_conv2d", x.pass == Pass::wgrad ? "_wgrad" : "")};
  if (std::string sentence = device_refusal(x, device, options); !sentence.empty()) return Refusal{sentence};
  return DgradPlanner(x, device, options, operands).run();
}

}  // namespace

void list_dgrad(std::vector<Kernel>& kernels) {
  for (int bytes : {2, 4, 8}) kernels.push_back(filter_kernel(bytes));
  for (const char* element : {"pyconvx::f16", "pyconvx::bf16", "pyconvx::f32", "pyconvx::f64"}) {
    kernels.push_back(plain_kernel(element, false));
    kernels.push_back(fill_kernel(element));
  }
}

std::variant<LaunchPlan, Refusal> plan_conv2d_dgrad(const Conv2dProblem& x, const Device& device,
                                                    const PlanOptions& options) {
  FpropOperands operands;
  operands.input = "grad_output", operands.output = "grad_input";
  return plan_dgrad("conv2d_dgrad", operands, x, device, options);
}

std::variant<LaunchPlan, Refusal> plan_conv_transpose2d(const Conv2dProblem& x, const Device& device,
                                                        const PlanOptions& options) {
  return plan_dgrad("conv_transpose2d", FpropOperands{}, x, device, options);
}

}  // namespace pyconvx
