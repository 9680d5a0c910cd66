#include "problem.h"

#include <initializer_list>
#include <sstream>

namespace pyconvx {
namespace {

template <class... Parts>
std::string text(const Parts&... parts) {
  std::ostringstream stream;
  (stream << ... << parts);
  return stream.str();
}

std::string pair(int64_t vertical, int64_t horizontal) {
  return text("(", vertical, ", ", horizontal, ")");
}

// The extent of a window, holes included.
int64_t extent(int64_t taps, int64_t dilation) {
  return dilation * (taps - 1) + 1;
}

int64_t conv_windows(int64_t padded, int64_t taps, int64_t stride, int64_t dilation) {
  const int64_t room = padded - extent(taps, dilation);
  return room < 0 ? 0 : room / stride + 1;
}

// With ceil_mode one more window may hang over the far edge, but it has to start inside the input or the
// padding before it: one that starts in the far padding would hold nothing.
int64_t pool_windows(int64_t size, int64_t pad_before, int64_t pad_after, int64_t taps, int64_t stride,
                     int64_t dilation, bool ceil_mode) {
  const int64_t room = size + pad_before + pad_after - extent(taps, dilation);
  if (!ceil_mode) return room < 0 ? 0 : room / stride + 1;
  const int64_t rounded = room + stride - 1;
  int64_t windows = rounded < 0 ? 0 : rounded / stride + 1;
  if (windows > 0 && (windows - 1) * stride >= size + pad_before) --windows;
  return windows;
}

// Geometry stays below 2^31, so that no sum or product of two such numbers, nor their sum with a size below
// 2^62, can overflow. Tensor sizes themselves are bounded by has_room.
constexpr int64_t kGeometryLimit = int64_t{1} << 31;

bool below_limit(std::initializer_list<int64_t> values) {
  for (int64_t value : values)
    if (value >= kGeometryLimit) return false;
  return true;
}

// Can a tensor of these sizes be addressed by byte in 64 bits, whatever its dtype?
bool has_room(std::initializer_list<int64_t> sizes) {
  int64_t bytes = 8;
  for (int64_t size : sizes)
    if (size > 0 && __builtin_mul_overflow(bytes, size, &bytes)) return false;
  return true;
}

template <class Problem>
std::string geometry_refusal(const char* op, const Problem& x) {
  if (x.r < 1 || x.s < 1)
    return text(op, ": kernel_size must be at least 1 in both directions, got ", pair(x.r, x.s),
                "; use kernel_size=1 for a window of one element");
  if (x.stride_h < 1 || x.stride_w < 1)
    return text(op, ": stride must be at least 1 in both directions, got ", pair(x.stride_h, x.stride_w),
                "; use stride=1 for dense output");
  if (x.dilation_h < 1 || x.dilation_w < 1)
    return text(op, ": dilation must be at least 1 in both directions, got ",
                pair(x.dilation_h, x.dilation_w), "; use dilation=1 for a window without holes");
  if (x.pad_top < 0 || x.pad_bottom < 0 || x.pad_left < 0 || x.pad_right < 0)
    return text(op, ": padding must not be negative, got (top, bottom, left, right) = (", x.pad_top, ", ",
                x.pad_bottom, ", ", x.pad_left, ", ", x.pad_right,
                "); use padding=0 and slice the input to crop it");
  if (!below_limit({x.r, x.s, x.stride_h, x.stride_w, x.dilation_h, x.dilation_w, x.pad_top, x.pad_bottom,
                    x.pad_left, x.pad_right}))
    return text(op, ": kernel_size, stride, padding and dilation must be below 2^31, got kernel_size=",
                pair(x.r, x.s), ", stride=", pair(x.stride_h, x.stride_w), ", padding=(", x.pad_top, ", ",
                x.pad_bottom, ", ", x.pad_left, ", ", x.pad_right,
                "), dilation=", pair(x.dilation_h, x.dilation_w), "; reduce the one that is not");
  return {};
}

template <class Problem>
std::string window_refusal(const char* op, const Problem& x) {
  const int64_t height = x.h + x.pad_top + x.pad_bottom, width = x.w + x.pad_left + x.pad_right;
  const int64_t tall = extent(x.r, x.dilation_h), wide = extent(x.s, x.dilation_w);
  if (tall > height || wide > width)
    return text(op, ": the window covers ", tall, " x ", wide, " with kernel_size=", pair(x.r, x.s),
                " and dilation=", pair(x.dilation_h, x.dilation_w), ", but the padded input is only ", height,
                " x ", width, "; use a smaller kernel_size or dilation, or more padding");
  return {};
}

template <class Problem>
std::string half_padding_refusal(const char* op, const Problem& x) {
  const int64_t tall = extent(x.r, x.dilation_h), wide = extent(x.s, x.dilation_w);
  if (x.pad_top > tall / 2 || x.pad_bottom > tall / 2 || x.pad_left > wide / 2 || x.pad_right > wide / 2)
    return text(
        op, ": padding must be at most half of the window on each side, got (top, bottom, left, right) = (",
        x.pad_top, ", ", x.pad_bottom, ", ", x.pad_left, ", ", x.pad_right, ") for a window that covers ",
        tall, " x ", wide, "; use a larger kernel_size, or pad the input with -inf beforehand");
  return {};
}

template <class Problem>
std::string index_refusal(const char* op, const Problem& x) {
  const int64_t taps = x.r * x.s;
  if (x.index == IndexType::u8 && taps > 255)
    return text(op, ": torch.uint8 indices tell at most 255 elements of a window apart, got kernel_size=",
                pair(x.r, x.s), " with ", taps, "; use torch.int32 or torch.int64 indices");
  if (x.index == IndexType::i32 && taps >= kGeometryLimit)
    return text(op, ": torch.int32 indices tell fewer than 2^31 elements of a window apart, got kernel_size=",
                pair(x.r, x.s), " with ", taps, "; use torch.int64 indices");
  return {};
}

std::string size_refusal(const char* op, const char* what, int64_t n, int64_t c, int64_t h, int64_t w) {
  if (n < 0 || c < 1 || h < 1 || w < 1)
    return text(op, ": ", what, " must have at least one channel, row and column, got [N, C, H, W] = [", n,
                ", ", c, ", ", h, ", ", w, "]; only the batch may be empty");
  if (!has_room({n, c, h, w}))
    return text(op, ": ", what, " has more elements than 64 bits can address, got [N, C, H, W] = [", n, ", ",
                c, ", ", h, ", ", w, "]; split the batch or the image");
  return {};
}

template <class Problem>
std::string output_refusal(const char* op, const Problem& x) {
  if (x.p() < 1 || x.q() < 1)
    return text(op, ": the output would be ", x.p(), " x ", x.q(), " for an input of ", x.h, " x ", x.w,
                "; use a smaller kernel_size or dilation, or more padding");
  return {};
}

template <class Problem>
std::string geometry_text(const Problem& x) {
  return text("r", x.r, " s", x.s, " stride ", x.stride_h, "x", x.stride_w, " pad ", x.pad_top, ",",
              x.pad_bottom, ",", x.pad_left, ",", x.pad_right, " dilation ", x.dilation_h, "x", x.dilation_w);
}

std::string index_text(IndexType index) {
  return index == IndexType::none ? std::string() : text(" indices ", name(index));
}

// The first sentence that is not empty; each check may rely on those before it.
template <class... Checks>
std::string first_refusal(Checks... checks) {
  std::string sentence;
  static_cast<void>((... || !(sentence = checks()).empty()));
  return sentence;
}

}  // namespace

const char* name(DType dtype) {
  constexpr const char* names[] = {"float64", "float32", "bfloat16", "float16"};
  return names[static_cast<int>(dtype)];
}

const char* name(Layout layout) {
  return layout == Layout::nhwc ? "nhwc" : "nchw";
}

const char* name(IndexType index) {
  constexpr const char* names[] = {"none", "uint8", "int32", "int64"};
  return names[static_cast<int>(index)];
}

const char* name(Pass pass) {
  constexpr const char* names[] = {"fprop", "dgrad", "wgrad"};
  return names[static_cast<int>(pass)];
}

const char* name(Activation activation) {
  return activation == Activation::relu ? "relu" : "none";
}

int64_t Conv2dProblem::p() const {
  return conv_windows(h + pad_top + pad_bottom, r, stride_h, dilation_h);
}

int64_t Conv2dProblem::q() const {
  return conv_windows(w + pad_left + pad_right, s, stride_w, dilation_w);
}

double Conv2dProblem::flops() const {
  double result = 2;
  for (int64_t factor : {n, k, p(), q(), r, s, c / groups}) result *= static_cast<double>(factor);
  return result;
}

std::string Conv2dProblem::refusal() const {
  constexpr const char* op = "conv2d";
  return first_refusal(
      [&] { return geometry_refusal(op, *this); },
      [&] {
        return groups > 0
                   ? std::string()
                   : text(op, ": groups must be at least 1, got ", groups, "; use groups=1 for a dense one");
      },
      [&] { return size_refusal(op, "the input", n, c, h, w); },
      [&] {
        return k > 0 ? std::string()
                     : text(op, ": there must be at least one filter, got ", k,
                            "; give the weight out_channels >= 1");
      },
      [&] {
        return c % groups == 0 && k % groups == 0
                   ? std::string()
                   : text(op, ": groups must divide both the channels and the filters, got groups=", groups,
                          " for ", c, " channels and ", k, " filters; use a common divisor of the two");
      },
      [&] { return window_refusal(op, *this); },
      [&] { return size_refusal(op, "the output", n, k, p(), q()); },
      [&] { return size_refusal(op, "the weight", k, c / groups, r, s); },
      [&] {
        return masked && pass == Pass::fprop
                   ? text(op,
                          ": only a gradient is masked, and fprop has none; use pass dgrad or wgrad, or an "
                          "activation")
                   : std::string();
      });
}

std::string Conv2dProblem::str() const {
  return text("conv2d ", name(pass), " n", n, " c", c, " h", h, " w", w, " k", k, " ", geometry_text(*this),
              " groups ", groups, " ", name(dtype), " ", name(layout), bias ? " +bias" : "",
              residual ? " +residual" : "", activation == Activation::relu ? " relu" : "",
              masked ? " masked" : "");
}

int64_t Pool2dProblem::p() const {
  return pool_windows(h, pad_top, pad_bottom, r, stride_h, dilation_h, ceil_mode);
}

int64_t Pool2dProblem::q() const {
  return pool_windows(w, pad_left, pad_right, s, stride_w, dilation_w, ceil_mode);
}

bool Pool2dProblem::overlapping() const {
  return stride_h < extent(r, dilation_h) || stride_w < extent(s, dilation_w);
}

std::string Pool2dProblem::refusal() const {
  constexpr const char* op = "max_pool2d";
  return first_refusal([&] { return geometry_refusal(op, *this); },
                       [&] { return size_refusal(op, "the input", n, c, h, w); },
                       [&] { return half_padding_refusal(op, *this); },
                       [&] { return ceil_mode ? std::string() : window_refusal(op, *this); },
                       [&] { return output_refusal(op, *this); },
                       [&] { return size_refusal(op, "the output", n, c, p(), q()); },
                       [&] { return index_refusal(op, *this); });
}

std::string Pool2dProblem::str() const {
  return text("max_pool2d n", n, " c", c, " h", h, " w", w, " ", geometry_text(*this),
              ceil_mode ? " ceil" : "", " ", name(dtype), " ", name(layout), index_text(index),
              activation == Activation::relu ? " relu" : "");
}

bool Unpool2dProblem::overlapping() const {
  return stride_h < extent(r, dilation_h) || stride_w < extent(s, dilation_w);
}

std::string Unpool2dProblem::refusal() const {
  constexpr const char* op = "max_unpool2d";
  return first_refusal(
      [&] { return geometry_refusal(op, *this); }, [&] { return size_refusal(op, "the input", n, c, p, q); },
      [&] { return size_refusal(op, "the output", n, c, h, w); },
      [&] {
        return index != IndexType::none
                   ? std::string()
                   : text(op, ": indices are needed, got none; pass those that max_pool2d returned "
                              "with return_indices=True");
      },
      [&] { return index_refusal(op, *this); });
}

std::string Unpool2dProblem::str() const {
  return text("max_unpool2d n", n, " c", c, " p", p, " q", q, " h", h, " w", w, " ", geometry_text(*this),
              " ", name(dtype), " ", name(layout), index_text(index));
}

int64_t NearestUnpool2dProblem::h() const {
  return p * scale_h;
}

int64_t NearestUnpool2dProblem::w() const {
  return q * scale_w;
}

std::string NearestUnpool2dProblem::refusal() const {
  constexpr const char* op = "nearest_unpool2d";
  return first_refusal(
      [&] {
        return scale_h >= 1 && scale_w >= 1
                   ? std::string()
                   : text(op, ": scale must be at least 1 in both directions, got ", pair(scale_h, scale_w),
                          "; use scale=1 to leave a direction as it is");
      },
      [&] {
        return below_limit({scale_h, scale_w, p, q})
                   ? std::string()
                   : text(op, ": scale and the image's rows and columns must be below 2^31, got scale=",
                          pair(scale_h, scale_w), " for ", p, " x ", q, "; reduce the one that is not");
      },
      [&] { return size_refusal(op, "the input", n, c, p, q); },
      [&] { return size_refusal(op, "the output", n, c, h(), w()); });
}

std::string NearestUnpool2dProblem::str() const {
  return text("nearest_unpool2d n", n, " c", c, " p", p, " q", q, " scale ", scale_h, "x", scale_w, " ",
              name(dtype), " ", name(layout));
}

}  // namespace pyconvx
