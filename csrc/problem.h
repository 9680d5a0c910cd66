// A problem says what is to be computed, and nothing about how: sizes, geometry, dtype and layout.
// Plans, launches and kernels are all chosen from it. Nothing here knows torch.
//
// The letters: N, H, W, C input; K filters of R x S; P, Q output. An array holds both directions as
// {vertical, horizontal} only in stride and dilation's names (_h, _w); paddings are named by their side.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <tuple>

namespace pyconvx {

enum class DType : uint8_t { f64, f32, bf16, f16 };
enum class Layout : uint8_t { nchw, nhwc };

// How a pooling remembers its winners. none: not at all. i64: the flat position h * W + w in the plane, as
// torch does. u8, i32: the tap's offset r * S + s in its own window, which needs one byte instead of eight.
// Of a window without any element inside the input it is -1, which is 255 in a byte: no tap has that.
enum class IndexType : uint8_t { none, u8, i32, i64 };

enum class Pass : uint8_t { fprop, dgrad, wgrad };
enum class Activation : uint8_t { none, relu };

const char* name(DType);
const char* name(Layout);
const char* name(IndexType);
const char* name(Pass);
const char* name(Activation);

// Member functions are defined in problem.cpp, not here: the CPU kernels' files are compiled once for each
// instruction set, and an inline function that all of them emit would be merged into one, which may then
// hold instructions that the running machine lacks.
//
// refusal() is the one judge of validity: empty if the problem can be computed, otherwise one sentence that
// says what was given, what was expected and what to do. All other functions require it to be empty.

struct Conv2dProblem {
  int64_t n, c, h, w;
  int64_t k, r, s;
  int64_t stride_h, stride_w;
  int64_t pad_top, pad_bottom, pad_left, pad_right;
  int64_t dilation_h, dilation_w;
  int64_t groups;
  DType dtype;
  Layout layout;
  Pass pass;
  bool bias;
  bool residual;
  Activation activation;
  bool masked;  // by the output of a ReLU: dgrad and wgrad of a gradient that counts where it is not <= 0

  int64_t p() const;
  int64_t q() const;
  double flops() const;  // the same for all three passes; a double, because large batches overflow 64 bits
  std::string refusal() const;
  std::string str() const;

  auto fields() const {
    return std::tie(n, c, h, w, k, r, s, stride_h, stride_w, pad_top, pad_bottom, pad_left, pad_right,
                    dilation_h, dilation_w, groups, dtype, layout, pass, bias, residual, activation, masked);
  }
};

struct Pool2dProblem {
  int64_t n, c, h, w;
  int64_t r, s;
  int64_t stride_h, stride_w;
  int64_t pad_top, pad_bottom, pad_left, pad_right;
  int64_t dilation_h, dilation_w;
  bool ceil_mode;
  DType dtype;
  Layout layout;
  IndexType index;
  Activation activation;  // of the input, before it is pooled

  int64_t p() const;
  int64_t q() const;
  bool overlapping() const;  // may one input belong to two windows?
  std::string refusal() const;
  std::string str() const;

  auto fields() const {
    return std::tie(n, c, h, w, r, s, stride_h, stride_w, pad_top, pad_bottom, pad_left, pad_right,
                    dilation_h, dilation_w, ceil_mode, dtype, layout, index, activation);
  }
};

// p x q is what is unpooled, h x w what it becomes. The window matters where indices are offsets in it; a
// flat index stands for itself and may lie anywhere in the plane.
struct Unpool2dProblem {
  int64_t n, c, p, q;
  int64_t h, w;
  int64_t r, s;
  int64_t stride_h, stride_w;
  int64_t pad_top, pad_bottom, pad_left, pad_right;
  int64_t dilation_h, dilation_w;
  DType dtype;
  Layout layout;
  IndexType index;

  bool overlapping() const;
  std::string refusal() const;
  std::string str() const;

  auto fields() const {
    return std::tie(n, c, p, q, h, w, r, s, stride_h, stride_w, pad_top, pad_bottom, pad_left, pad_right,
                    dilation_h, dilation_w, dtype, layout, index);
  }
};

// P x Q values, each of which fills a cell of scale_h x scale_w.
struct NearestUnpool2dProblem {
  int64_t n, c, p, q;
  int64_t scale_h, scale_w;
  DType dtype;
  Layout layout;

  int64_t h() const;
  int64_t w() const;
  std::string refusal() const;
  std::string str() const;

  auto fields() const { return std::tie(n, c, p, q, scale_h, scale_w, dtype, layout); }
};

// An operation on each element of tensors of one shape: no geometry, so nothing to refuse.
struct ElementwiseProblem {
  int64_t count;
  DType dtype;
  Activation activation;
};

// Equality and hashing by value make a problem the key of a plan, a tuning result or a compiled kernel.
template <class Problem>
bool same(const Problem& a, const Problem& b) {
  return a.fields() == b.fields();
}

template <class Problem>
size_t hash(const Problem& problem) {
  uint64_t state = 0;
  std::apply(
      [&state](auto... field) {
        ((state = (state ^ static_cast<uint64_t>(field)) * 0x9e3779b97f4a7c15, state ^= state >> 32), ...);
      },
      problem.fields());
  return static_cast<size_t>(state);
}

}  // namespace pyconvx
