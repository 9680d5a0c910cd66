#include "../../../kernels/cuda/pool/nearest_arguments.cuh"
#include "plan/conv_arguments.h"
#include "plan/pool/bands.h"
#include "plan/pool/max_unpool.h"
#include "plan/pool/sweep.h"

namespace pyconvx {
namespace {

std::string refusal(const NearestUnpool2dProblem& x, const char* op, const PlanOptions& options) {
  if (std::string sentence = x.refusal(); !sentence.empty()) return sentence;
  const int bytes = element_bytes(x.dtype);
  if (options.ahead_of_time && bytes == 8) return not_ahead_of_time(op, "float64");
  if (options.alignment < bytes || (options.alignment & (options.alignment - 1)))
    return text(op, ": the alignment must be a power of two and at least an element's ", bytes,
                " bytes, got ", options.alignment, "; pass the largest that all addresses have");
  for (double size : {double(x.h()), double(x.w()) * double(x.layout == Layout::nhwc ? x.c : 1)})
    if (size >= double(kMostSwept))
      return text(op, ": the kernels count rows, and the elements of a row, in 31 bits, got ", x.str(),
                  "; split the dimension that has 2^31 or more");
  return {};
}

std::variant<LaunchPlan, Refusal> plan(const NearestUnpool2dProblem& x, const Device& device,
                                       const PlanOptions& options, bool backward) {
  const char* op = backward ? "nearest_unpool2d_backward" : "nearest_unpool2d";
  if (std::string sentence = refusal(x, op, options); !sentence.empty()) return Refusal{sentence};
  LaunchPlan plan;
  plan.family = backward ? "nearest_unpool_backward" : "nearest_unpool";
  if (x.n == 0) return plan;
  const bool nhwc = x.layout == Layout::nhwc, rows = !nhwc && !backward && !options.ahead_of_time;
  const int64_t bytes = element_bytes(x.dtype), channels = nhwc ? x.c : 1, images = nhwc ? x.n : x.n * x.c;
  NearestArguments args{};
  args.p = static_cast<int>(x.p), args.q = static_cast<int>(x.q), args.w = static_cast<int>(x.w());
  args.c = static_cast<int>(channels);
  args.scale_h = static_cast<int>(x.scale_h), args.scale_w = static_cast<int>(x.scale_w);
  args.by_scale_w = division_by(args.scale_w);
  const int64_t small = x.p * x.q * channels * bytes, large = x.h() * x.w() * channels * bytes;
  const std::vector<SweptBuffer> buffers = {
      {backward ? "grad_output" : "input", offsetof(NearestArguments, from), backward ? large : small},
      {backward ? "grad_input" : "output", offsetof(NearestArguments, to), backward ? small : large}};
  if (!nhwc && backward && !options.ahead_of_time && x.h() * x.w() < kMostSwept) {
    const BandChoice band =
        choose_band(plan, images, x.p, x.q, {rows_under(x.w() * bytes, x.h(), x.p, x.scale_h, x.scale_h)},
                    {rows_under(x.q * bytes, x.p, x.p, 1, 1)}, device, options.tile);
    if (band.rows) {
      const Kernel kernel{text("pyconvx::nearest_unpool_rows_backward<", element_name(x.dtype), ">"),
                          "pool/nearest_unpool_rows.cuh"};
      add_bands(plan, kernel, args, band, images, x.p, x.q, buffers);
      return plan;
    }
  }
  if (!options.tile.empty()) return Refusal{no_tile(op, options.tile)};
  int64_t vector = channels_at_once(rows ? x.w() : channels, {bytes}, options.alignment);
  // Ahead of time, 16 bytes or an element.
  if (options.ahead_of_time && vector * bytes < 16) vector = 1;
  const char* element = backward ? element_name(x.dtype) : value_name(static_cast<int>(bytes));
  add_sweep(plan, text("pyconvx::", plan.family, rows ? "_rows<" : "<", element, ", ", vector, ">"),
            "pool/nearest_unpool.cuh", args,
            {images, x.p, rows ? x.w() / vector : x.q, rows ? 1 : channels / vector}, buffers);
  return plan;
}

}  // namespace

std::variant<LaunchPlan, Refusal> plan_nearest_unpool2d(const NearestUnpool2dProblem& x, const Device& device,
                                                        const PlanOptions& options) {
  return plan(x, device, options, false);
}

std::variant<LaunchPlan, Refusal> plan_nearest_unpool2d_backward(const NearestUnpool2dProblem& x,
                                                                 const Device& device,
                                                                 const PlanOptions& options) {
  return plan(x, device, options, true);
}

void list_nearest_unpool(std::vector<Kernel>& kernels) {
  constexpr const char* header = "pool/nearest_unpool.cuh";
  for (int bytes : {2, 4})
    for (int vector : {16 / bytes, 1})
      kernels.push_back({text("pyconvx::nearest_unpool<", value_name(bytes), ", ", vector, ">"), header});
  for (DType dtype : {DType::f16, DType::bf16, DType::f32})
    for (int vector : {16 / element_bytes(dtype), 1})
      kernels.push_back(
          {text("pyconvx::nearest_unpool_backward<", element_name(dtype), ", ", vector, ">"), header});
}

}  // namespace pyconvx
