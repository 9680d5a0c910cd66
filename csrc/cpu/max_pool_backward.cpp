// The backward pass of max pooling. Each gradient of the input is the sum of those of the windows it won, in
// row-major order of the windows, taken in single precision at least and rounded once. No two threads share a
// sum, so nothing depends on their number.
#include "cpu/disjoint.h"
#include "cpu/kernels.h"
#include "cpu/parallel.h"
#include "cpu/simd.h"
#include "cpu/window.h"

namespace pyconvx::cpu::PYCONVX_ISA {
namespace {

constexpr int64_t kGrain = 1 << 14;  // gradients worth waking a thread for

int64_t grain(int64_t work_per_item) {
  return max(1, kGrain / max(1, work_per_item));
}

// Windows that overlap. A thread owns a range of the input's rows; the windows that reach into it add their
// gradients there, one row of windows after the other. Rows that no further window reaches are finished. kPlanar
// says that neighbours in memory are columns, not channels.
template <class T, class Index, bool kPlanar>
class Overlapping {
public:
  using A = Accumulator<T>;

  Overlapping(const Pool2dProblem& problem, const T* grad_output, const Index* indices, T* grad_input)
      : rows_(rows(problem)), columns_(columns(problem)), position_(rows_, columns_),
        step_(kPlanar ? 1 : problem.c), pitch_(columns_.size * step_), taps_(rows_.taps * columns_.taps),
        grad_output_(grad_output), indices_(indices), grad_input_(grad_input) {
    for (int64_t tap = 0; tap < min(kTable, taps_); ++tap)
      distance_[tap] = tap / columns_.taps * rows_.dilation * pitch_ + tap % columns_.taps * columns_.dilation * step_;
    while (first_inside_ < columns_.windows && columns_.origin(first_inside_) < 0) ++first_inside_;
    end_inside_ = first_inside_;
    while (end_inside_ < columns_.windows && columns_.interior(end_inside_)) ++end_inside_;
  }

  // Rows [begin, end) of all planes, or images.
  void sum(int64_t begin, int64_t end) const {
    Scratch<A> scratch(is_half<T> ? min(rows_.span(), rows_.size) * pitch_ : 0);
    for (int64_t line = begin, next; line < end; line = next) {
      const int64_t image = line / rows_.size;
      next = min(end, (image + 1) * rows_.size);
      sum_rows(image, line - image * rows_.size, next - image * rows_.size, scratch);
    }
  }

private:
  static constexpr bool kFlat = std::is_same_v<Index, int64_t>;
  static constexpr int64_t kTable = kFlat ? 0 : 256;  // windows of more taps are rare, and take the slow way

  // Rows [top, bottom) of one image. Rows [low, high) are those being summed: in place if T can hold the sums,
  // otherwise in scratch, where they move up as they are finished.
  void sum_rows(int64_t image, int64_t top, int64_t bottom, A* scratch) const {
    T* output = grad_input_ + image * rows_.size * pitch_;
    int64_t low = top, high = top;
    const auto finish = [&](int64_t end) {  // all rows before `end`
      if constexpr (is_half<T>) {
        const int64_t summed = max(0, min(high, end) - low), rest = max(0, high - end);
        narrow(summed * pitch_, static_cast<const A*>(scratch), output + low * pitch_);
        std::memmove(scratch, scratch + summed * pitch_, static_cast<size_t>(rest * pitch_) * sizeof(A));
      }
      if (high < end) clear(output + high * pitch_, end - high);
      low = end;
      high = max(high, end);
    };
    const int64_t end_p = rows_.end_window(bottom - 1);
    for (int64_t p = rows_.first_window(top); p < end_p; ++p) {
      const int64_t first = max(top, rows_.origin(p)), last = min(bottom, rows_.origin(p) + rows_.span());
      if (low < first) finish(first);
      A* sums = scratch;
      if constexpr (!is_half<T>) sums = output + first * pitch_;
      if (high < last) clear(sums + (high - first) * pitch_, last - high);
      high = max(high, last);
      add(image, p, first, last, sums);
    }
    finish(bottom);
  }

  template <class E>
  void clear(E* row, int64_t count) const {
    std::memset(static_cast<void*>(row), 0, static_cast<size_t>(count * pitch_) * sizeof(E));
  }

  // Adds the gradients of a row of windows to rows [first, last), which begin at `sums`.
  void add(int64_t image, int64_t p, int64_t first, int64_t last, A* sums) const {
    const int64_t line = (image * rows_.windows + p) * columns_.windows;
    const bool whole = last - first == rows_.span() && taps_ <= kTable;
    const int64_t begin_fast = whole ? first_inside_ : columns_.windows, end_fast = whole ? end_inside_ : begin_fast;
    add_checked(line, p, 0, begin_fast, first, last, sums);
    add_inside(line, begin_fast, end_fast, sums);
    add_checked(line, p, end_fast, columns_.windows, first, last, sums);
  }

  // Windows that lie inside as a whole: every tap is good.
  void add_inside(int64_t line, int64_t begin, int64_t end, A* sums) const {
    if constexpr (!kFlat) {
      const int64_t step = kPlanar ? 1 : step_;
      for (int64_t q = begin; q < end; ++q) {
        A* window = sums + columns_.origin(q) * step;
        const T* grad = grad_output_ + (line + q) * step;
        const Index* index = indices_ + (line + q) * step;
        for (int64_t c = 0; c < step; ++c)
          if (static_cast<uint32_t>(index[c]) < taps_) window[distance_[index[c]] + c] += widen(grad[c]);
      }
    }
  }

  // An index counts if it leads into the rows; so none, whatever it is, can lead out of them.
  void add_checked(int64_t line, int64_t p, int64_t begin, int64_t end, int64_t first, int64_t last, A* sums) const {
    const int64_t step = kPlanar ? 1 : step_, low = first * columns_.size;
    const uint64_t extent = static_cast<uint64_t>((last - first) * columns_.size);
    for (int64_t q = begin; q < end; ++q)
      for (int64_t c = 0, i = (line + q) * step; c < step; ++c, ++i) {
        const int64_t position = kFlat ? static_cast<int64_t>(indices_[i]) : position_(p, q, indices_[i]);
        const uint64_t at = static_cast<uint64_t>(position) - static_cast<uint64_t>(low);
        if (at < extent) sums[static_cast<int64_t>(at) * step + c] += widen(grad_output_[i]);
      }
  }

  Axis rows_, columns_;
  Positions<Index> position_;
  int64_t step_, pitch_;  // from column to column, from row to row
  int64_t taps_, distance_[kFlat ? 1 : kTable];
  int64_t first_inside_ = 0, end_inside_ = 0;  // the windows of a row that have all their columns inside
  const T* grad_output_;
  const Index* indices_;
  T* grad_input_;
};

template <class T, class Index>
void backward(const Pool2dProblem& x, const T* grad_output, const Index* indices, T* grad_input) {
  const bool nhwc = x.layout == Layout::nhwc;
  const int64_t lines = nhwc ? x.n * x.h : x.n * x.c * x.h, line_grain = grain(nhwc ? x.w * x.c : x.w);
  const auto for_lines = [&](const auto& body) { parallel_for(lines, line_grain, body); };
  if (!x.overlapping()) {
    const Axis row_axis = rows(x), column_axis = columns(x);
    const Disjoint<T, Index> disjoint{row_axis,
                                      column_axis,
                                      Codes(row_axis, column_axis, std::is_same_v<Index, int64_t>),
                                      x.c,
                                      reinterpret_cast<const Raw<T>*>(grad_output),
                                      indices,
                                      reinterpret_cast<Raw<T>*>(grad_input)};
    for_lines([&](int64_t begin, int64_t end) {
      nhwc ? disjoint.fill_nhwc(begin, end) : disjoint.fill_nchw(begin, end);
    });
  } else if (nhwc) {
    const Overlapping<T, Index, false> overlapping(x, grad_output, indices, grad_input);
    for_lines([&](int64_t begin, int64_t end) { overlapping.sum(begin, end); });
  } else {
    const Overlapping<T, Index, true> overlapping(x, grad_output, indices, grad_input);
    for_lines([&](int64_t begin, int64_t end) { overlapping.sum(begin, end); });
  }
}

}  // namespace

void max_pool2d_backward(const Pool2dProblem& problem, const void* grad_output, const void* indices,
                         void* grad_input) {
  for_dtype(problem.dtype, [&](auto element) {
    for_index(problem.index, [&](auto index) {
      using T = decltype(element);
      using Index = decltype(index);
      backward(problem, static_cast<const T*>(grad_output), static_cast<const Index*>(indices),
               static_cast<T*>(grad_input));
    });
  });
}

}  // namespace pyconvx::cpu::PYCONVX_ISA
