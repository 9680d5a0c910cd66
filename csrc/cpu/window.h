// Where windows lie, along one axis and in the plane, and what a stored index means there.
#pragma once

#include "problem.h"

#include <limits>
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

// What a stored index means as a distance in the plane: from its window's first tap if it is an offset, from
// the plane's first element if it is flat. Fast, but only half a check: a distance has still to be held
// against the ends of the plane, or of the rows that one works on.
template <class Index>
class Distances {
public:
  static constexpr bool kFlat = std::is_same_v<Index, int64_t>;
  static constexpr int64_t kNowhere = std::numeric_limits<int64_t>::min() / 2;  // of what is no tap

  Distances(const Axis& rows, const Axis& columns)
      : down_(rows.dilation * columns.size), across_(columns.dilation), columns_(columns.taps),
        taps_(rows.taps * columns.taps) {
    for (int64_t tap = 0; tap < kTable; ++tap) table_[tap] = tap < taps_ ? compute(tap) : kNowhere;
  }

  int64_t operator()(Index index) const {
    if constexpr (kFlat) return index;
    if constexpr (sizeof(Index) == 1) return table_[index];
    if (index < 0 || index >= taps_) return kNowhere;
    return index < kTable ? table_[index] : compute(index);
  }

  // The place `distance` after `origin`; what lies before the start comes out large, as does what would
  // overflow.
  static uint64_t place(int64_t origin, int64_t distance) {
    return static_cast<uint64_t>(origin) + static_cast<uint64_t>(distance);
  }

private:
  static constexpr int64_t kTable = kFlat ? 0 : 256;  // all values of a byte; divisions are slow

  int64_t compute(int64_t tap) const { return tap / columns_ * down_ + tap % columns_ * across_; }

  int64_t down_, across_, columns_, taps_;
  int64_t table_[kFlat ? 1 : 256];
};

// The full check: resolves a stored index to h * W + w, or to -1 if it points outside the plane or is no tap.
template <class Index>
class Positions {
public:
  Positions(const Axis& rows, const Axis& columns) : rows_(rows), columns_(columns) {}

  int64_t operator()(int64_t p, int64_t q, Index index) const {
    if constexpr (std::is_same_v<Index, int64_t>) {
      return index >= 0 && index < rows_.size * columns_.size ? index : -1;
    } else {
      if (index < 0 || index >= rows_.taps * columns_.taps) return -1;
      const uint32_t tap = static_cast<uint32_t>(index), taps = static_cast<uint32_t>(columns_.taps);
      const int64_t r = tap / taps, s = tap % taps;
      const int64_t h = rows_.origin(p) + r * rows_.dilation, w = columns_.origin(q) + s * columns_.dilation;
      return h >= 0 && h < rows_.size && w >= 0 && w < columns_.size ? h * columns_.size + w : -1;
    }
  }

private:
  Axis rows_, columns_;
};

}  // namespace pyconvx::cpu::PYCONVX_ISA
