// Putting values where their windows' winners are, for windows that do not overlap: an output belongs to one
// window at most, and looks whether it is the winner there. Every output is written once, none is scattered.
// This is unpooling, and also the backward pass of pooling.
#pragma once

#include "cpu/simd.h"
#include "cpu/window.h"

namespace pyconvx::cpu::PYCONVX_ISA {

constexpr int64_t kVectorRun = 32;  // neighbours in memory that make vectors worth their set-up

// T is an integer of the element's size: values are only moved.
template <class T, class Index>
struct Disjoint {
  Axis rows, columns;
  Codes codes;
  int64_t channels;
  const T* input;
  const Index* indices;
  T* output;

  // The one window that may hold a position, and its tap there; false if there is none.
  static bool find(const Axis& axis, int64_t position, int64_t& window, int64_t& tap) {
    window = axis.first_window(position);
    tap = window < axis.end_window(position) ? axis.tap_on(position, window) : -1;
    return tap >= 0;
  }

  // Rows [begin, end) of all planes.
  void fill_nchw(int64_t begin, int64_t end) const {
    // Are there columns that no tap of any window is on?
    const bool gaps =
        columns.stride > columns.taps || columns.pad > 0 || columns.origin(columns.windows) < columns.size;
    for (int64_t line = begin; line < end; ++line) {
      const int64_t plane = line / rows.size, h = line % rows.size;
      T* row = output + line * columns.size;
      int64_t p, r;
      const bool found = find(rows, h, p, r);
      if (!found || gaps) std::memset(row, 0, static_cast<size_t>(columns.size) * sizeof(T));
      if (!found) continue;
      const int64_t place = (plane * rows.windows + p) * columns.windows;
      const Index winner = static_cast<Index>(codes.base(p, 0) + codes.code(r, 0));
      if (columns.stride == 2 && columns.taps == 2 && columns.pad == 0 && 2 * columns.windows <= columns.size)
        fill_pairs(input + place, indices + place, winner, row);
      else
        for (int64_t s = 0; s < columns.taps; ++s)
          fill_tap(input + place, indices + place, s, static_cast<Index>(winner + codes.code(0, s)), row);
    }
  }

  // Pixels of rows [begin, end) of all images.
  void fill_nhwc(int64_t begin, int64_t end) const {
    Scratch<int64_t> window(columns.size), tap(columns.size);
    for (int64_t w = 0; w < columns.size; ++w) find(columns, w, window[w], tap[w]);
    for (int64_t line = begin; line < end; ++line) {
      int64_t p, r;
      const bool found = find(rows, line % rows.size, p, r);
      const int64_t first = (line / rows.size * rows.windows + p) * columns.windows;
      for (int64_t w = 0; w < columns.size; ++w) {
        T* to = output + (line * columns.size + w) * channels;
        if (!found || tap[w] < 0) {
          std::memset(to, 0, static_cast<size_t>(channels) * sizeof(T));
          continue;
        }
        const T* value = input + (first + window[w]) * channels;
        const Index* index = indices + (first + window[w]) * channels;
        const Index winner = static_cast<Index>(codes.base(p, window[w]) + codes.code(r, tap[w]));
        for (int64_t c = 0; c < channels; ++c) to[c] = select(index[c] == winner, value[c]);
      }
    }
  }

private:
  // Takes the value, and not a reference to it, so that it may be loaded whether or not it is the winner:
  // then there is no branch, and loops become vectors.
  static T select(bool wins, T value) { return wins ? value : T(0); }

  // One tap of all windows of a row. The winner's index grows from window to window if it is flat.
  void fill_tap(const T* value, const Index* index, int64_t s, Index winner, T* row) const {
    const int64_t start = columns.origin(0) + s * columns.dilation, across = codes.across;
    const int64_t first = ceil_div(max(0, -start), columns.stride);
    const int64_t last = min(columns.windows, ceil_div(max(0, columns.size - start), columns.stride));
    T* to = row + start;
    for (int64_t q = first; q < last; ++q)
      to[columns.stride * q] = select(index[q] == static_cast<Index>(winner + q * across), value[q]);
  }

  // The common windows of two columns side by side: stores in full vectors.
  void fill_pairs(const T* value, const Index* index, Index winner, T* row) const {
    constexpr Index across = std::is_same_v<Index, int64_t> ? 2 : 0;
    for (int64_t q = 0; q < columns.windows; ++q) {
      const Index left = static_cast<Index>(winner + static_cast<Index>(q) * across);
      row[2 * q] = select(index[q] == left, value[q]);
      row[2 * q + 1] = select(index[q] == static_cast<Index>(left + 1), value[q]);
    }
  }
};

}  // namespace pyconvx::cpu::PYCONVX_ISA
