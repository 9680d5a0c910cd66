// Where windows lie, along one axis and in the plane, and what a stored index means there.
#pragma once

#include "problem.h"

#include <type_traits>

namespace pyconvx::cpu::PYCONVX_ISA {

inline int64_t min(int64_t a, int64_t b) {
  return a < b ? a : b;
}
inline int64_t max(int64_t a, int64_t b) {
  return a > b ? a : b;
}
inline int64_t ceil_div(int64_t a, int64_t b) {
  return a <= 0 ? -(-a / b) : (a - 1) / b + 1;
}

// The rows, or the columns, of a pooling: `windows` windows of `taps` taps over `size` elements.
struct Axis {
  int64_t size, windows, taps, stride, pad, dilation;

  int64_t span() const { return (taps - 1) * dilation + 1; }
  int64_t origin(int64_t window) const { return window * stride - pad; }

  // The taps [first, end) of a window are inside the axis; none may be.
  int64_t first_tap(int64_t window) const { return ceil_div(max(0, -origin(window)), dilation); }
  int64_t end_tap(int64_t window) const {
    return min(taps, ceil_div(max(0, size - origin(window)), dilation));
  }
  bool interior(int64_t window) const { return origin(window) >= 0 && origin(window) + span() <= size; }

  // The windows [first, end) reach over a position; with dilation they need not have a tap on it.
  int64_t first_window(int64_t position) const {
    return max(0, ceil_div(position + pad - span() + 1, stride));
  }
  int64_t end_window(int64_t position) const { return min(windows, (position + pad) / stride + 1); }

  // The tap of such a window that lies on the position, or -1.
  int64_t tap_on(int64_t position, int64_t window) const {
    const int64_t distance = position - origin(window);
    if (dilation == 1) return distance;
    return distance % dilation ? -1 : distance / dilation;
  }
};

inline Axis rows(const Pool2dProblem& x) {
  return {x.h, x.p(), x.r, x.stride_h, x.pad_top, x.dilation_h};
}
inline Axis columns(const Pool2dProblem& x) {
  return {x.w, x.q(), x.s, x.stride_w, x.pad_left, x.dilation_w};
}
inline Axis rows(const Unpool2dProblem& x) {
  return {x.h, x.p, x.r, x.stride_h, x.pad_top, x.dilation_h};
}
inline Axis columns(const Unpool2dProblem& x) {
  return {x.w, x.q, x.s, x.stride_w, x.pad_left, x.dilation_w};
}

// A winner's code is its distance from its window's first tap: in the plane if indices are flat (then index =
// code + the first tap's own index), in taps if they are offsets (then index = code).
struct Codes {
  int64_t row, column;   // what one more tap down, or to the right, adds
  int64_t down, across;  // what the next window below, or to the right, adds to the index
  int64_t start;         // the index of code 0 in window (0, 0)

  Codes(const Axis& rows, const Axis& columns, bool flat)
      : row(flat ? rows.dilation * columns.size : columns.taps), column(flat ? columns.dilation : 1),
        down(flat ? rows.stride * columns.size : 0), across(flat ? columns.stride : 0),
        start(flat ? rows.origin(0) * columns.size + columns.origin(0) : 0) {}

  int64_t code(int64_t r, int64_t s) const { return r * row + s * column; }
  int64_t base(int64_t p, int64_t q) const { return start + p * down + q * across; }
};

// Resolves a stored index to h * W + w, or to -1 if it points outside the plane or is no tap at all.
template <class Index>
class Positions {
public:
  Positions(const Axis& rows, const Axis& columns) : rows_(rows), columns_(columns), taps_(rows.taps * columns.taps) {
    if constexpr (!kFlat)
      for (int64_t tap = 0; tap < taps_ && tap < kTable; ++tap) taps_at_[tap] = place(tap);
  }

  int64_t operator()(int64_t p, int64_t q, Index index) const {
    if constexpr (kFlat) {
      return index >= 0 && index < rows_.size * columns_.size ? index : -1;
    } else {
      if (index < 0 || index >= taps_) return -1;
      const Place tap = index < kTable ? taps_at_[index] : place(index);
      const int64_t h = rows_.origin(p) + tap.h, w = columns_.origin(q) + tap.w;
      return h >= 0 && h < rows_.size && w >= 0 && w < columns_.size ? h * columns_.size + w : -1;
    }
  }

private:
  struct Place {
    int64_t h, w;
  };

  Place place(int64_t tap) const {
    return {tap / columns_.taps * rows_.dilation, tap % columns_.taps * columns_.dilation};
  }

  static constexpr bool kFlat = std::is_same_v<Index, int64_t>;
  static constexpr int kTable = kFlat ? 1 : 256;  // divisions are slow, and windows of more taps rare

  Axis rows_, columns_;
  int64_t taps_;
  Place taps_at_[kTable];
};

}  // namespace pyconvx::cpu::PYCONVX_ISA
