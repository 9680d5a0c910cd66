// The backward pass of max pooling. Each gradient of the input is the sum of those of the windows it won, in
// row-major order of the windows, taken in single precision at least and rounded once. No two threads share a
// sum, so nothing depends on their number.
#include "cpu/disjoint.h"
#include "cpu/kernels.h"
#include "cpu/parallel.h"
#include "cpu/places.h"
#include "cpu/simd.h"
#include "cpu/window.h"

#include <atomic>

namespace pyconvx::cpu::PYCONVX_ISA {
namespace {

constexpr int64_t kGrain = 1 << 14;      // gradients worth waking a thread for
constexpr int64_t kBandBytes = 1 << 14;  // sums that are cleared and finished together: half of an L1 cache
constexpr int64_t kShortRow = 8;         // windows; a row of fewer takes longer to begin than to add

int64_t grain(int64_t work_per_item) {
  return max(1, kGrain / max(1, work_per_item));
}

// The general way, for windows that overlap. A thread owns a range of the input's rows; the windows that
// reach into it add their gradients there, one row of windows after the other. kPlanar says that neighbours
// in memory are columns, not channels.
template <class T, class Index, bool kPlanar>
class Scatter {
public:
  using A = Accumulator<T>;

  Scatter(const Pool2dProblem& problem, const T* grad_output, const Index* indices, T* grad_input)
      : rows_(rows(problem)), columns_(columns(problem)), step_(kPlanar ? 1 : problem.c),
        pitch_(columns_.size * step_), distance_(rows_, columns_), grad_output_(grad_output),
        indices_(indices), grad_input_(grad_input) {
    const int64_t row_bytes = pitch_ * static_cast<int64_t>(sizeof(A));
    band_ = min(rows_.size, max(rows_.span(), kBandBytes / row_bytes));
  }

  // Rows [begin, end) of all planes, or images.
  void sum(int64_t begin, int64_t end) const {
    Scratch<A> scratch(is_half<T> ? band_ * pitch_ : 0);
    for (int64_t line = begin, next; line < end; line = next) {
      const int64_t image = line / rows_.size;
      next = min(end, (image + 1) * rows_.size);
      sum_rows(image, line - image * rows_.size, next - image * rows_.size, scratch);
    }
  }

private:
  static constexpr bool kFlat = Distances<Index>::kFlat;

  // Rows [top, bottom) of one image. A band of them, [low, high), is being summed: in place if T can hold the
  // sums, otherwise in scratch. Those that no further window reaches are finished when room is needed.
  void sum_rows(int64_t image, int64_t top, int64_t bottom, A* scratch) const {
    T* output = grad_input_ + image * rows_.size * pitch_;
    int64_t low = top, high = top;
    const auto sums = [&](int64_t h) {
      if constexpr (is_half<T>)
        return scratch + (h - low) * pitch_;
      else
        return output + h * pitch_;
    };
    const auto finish = [&](int64_t end) {  // the rows before `end`
      const int64_t summed = min(high, end);
      if constexpr (is_half<T>) {
        narrow((summed - low) * pitch_, static_cast<const A*>(scratch), output + low * pitch_);
        std::memmove(scratch, sums(summed), static_cast<size_t>((high - summed) * pitch_) * sizeof(A));
      }
      if (high < end) clear(output + high * pitch_, end - high);
      low = end;
      high = max(high, end);
      const int64_t next = min(bottom, low + band_);
      clear(sums(high), next - high);
      high = next;
    };
    finish(top);
    const int64_t end_p = rows_.end_window(bottom - 1);
    for (int64_t p = rows_.first_window(top); p < end_p; ++p) {
      const int64_t first = max(top, rows_.origin(p)), last = min(bottom, rows_.origin(p) + rows_.span());
      if (high < last) finish(first);
      add(image, p, first, last, sums(first));
    }
    finish(bottom);
  }

  template <class E>
  void clear(E* row, int64_t count) const {
    std::memset(static_cast<void*>(row), 0, static_cast<size_t>(count * pitch_) * sizeof(E));
  }

  // Adds the gradients of a row of windows to rows [first, last), which begin at `sums`. What leads elsewhere
  // belongs to another thread, or to nobody.
  void add(int64_t image, int64_t p, int64_t first, int64_t last, A* sums) const {
    const int64_t step = kPlanar ? 1 : step_;
    const int64_t begin = (image * rows_.windows + p) * columns_.windows * step;
    const uint64_t extent = static_cast<uint64_t>((last - first) * columns_.size);
    const int64_t origin =
        kFlat ? -first * columns_.size : (rows_.origin(p) - first) * columns_.size + columns_.origin(0);
    add_row(grad_output_ + begin, indices_ + begin, origin, kFlat ? 0 : columns_.stride, extent, sums);
  }

  // Not inlined: a few cycles a gradient matter here, and the callers' variables would take the registers.
  [[gnu::noinline]] void add_row(const T* grad, const Index* index, int64_t origin, int64_t across,
                                 uint64_t extent, A* sums) const {
    const int64_t step = kPlanar ? 1 : step_, windows = columns_.windows;
    for (int64_t q = 0; q < windows; ++q, origin += across)
      for (int64_t c = 0; c < step; ++c, ++grad, ++index) {
        const uint64_t at = distance_.place(origin, distance_(*index));
        if (at < extent) sums[static_cast<int64_t>(at) * step + c] += widen(*grad);
      }
  }

  Axis rows_, columns_;
  int64_t step_, pitch_;  // from column to column, from row to row
  int64_t band_;          // rows that are summed together
  Distances<Index> distance_;
  const T* grad_output_;
  const Index* indices_;
  T* grad_input_;
};

template <class T>
[[gnu::noinline]] void add_places(int64_t count, const T* grad, const uint16_t* places,
                                  Accumulator<T>* sums) {
  constexpr int64_t kUnroll = 4;
  int64_t i = 0;
  for (; i + kUnroll <= count; i += kUnroll)
    for (int64_t k = 0; k < kUnroll; ++k) sums[places[i + k]] += widen(grad[i + k]);
  for (; i < count; ++i) sums[places[i]] += widen(grad[i]);
}

// The way for small planes of NCHW: a thread owns whole planes, and adds the gradients of some of them in one
// loop. False if planes are large or too few, or some windows are without a winner.
template <class T, class Index>
bool sum_planes(const Pool2dProblem& x, const T* grad_output, const Index* indices, T* grad_input) {
  using A = Accumulator<T>;
  const Chunks chunks(rows(x), columns(x), 1);
  const int64_t planes = x.n * x.c, pixels = x.h * x.w, windows = chunks.rows.windows;
  // Flat indices are fast as they are, but for the time that it takes to begin a row.
  const bool slow_rows = chunks.run < kShortRow || !std::is_same_v<Index, int64_t>;
  if (x.layout == Layout::nhwc || !chunks.planes || chunks.max_lines <= 0 || !slow_rows) return false;
  if (planes < 4 * num_threads() && planes % num_threads() != 0) return false;
  const int64_t most = chunks.max_lines / windows;  // planes that are summed together
  std::atomic<bool> good{true};
  parallel_for(planes, grain(pixels), [&](int64_t begin, int64_t end) {
    Places<Index> decoder(chunks, Reach::plane);
    Scratch<uint16_t> places(chunks.max_lines * chunks.run + Places<Index>::kWidth);
    Scratch<A> scratch(is_half<T> ? most * pixels : 0);
    for (int64_t plane = begin, next; plane < end; plane = next) {
      next = min(end, plane + most);
      const int64_t line = plane * windows, size = (next - plane) * pixels;
      if (!decoder.decode(indices, line, next * windows, chunks.base(line), places)) {
        good = false;
        return;
      }
      T* to = grad_input + plane * pixels;
      A* sums;
      if constexpr (is_half<T>)
        sums = scratch;
      else
        sums = to;
      std::memset(static_cast<void*>(sums), 0, static_cast<size_t>(size) * sizeof(A));
      add_places((next - plane) * windows * chunks.run, grad_output + line * chunks.run, places, sums);
      if constexpr (is_half<T>) narrow(size, static_cast<const A*>(sums), to);
    }
  });
  return good;
}

template <class T, class Index>
void backward(const Pool2dProblem& x, const T* grad_output, const Index* indices, T* grad_input) {
  const bool nhwc = x.layout == Layout::nhwc;
  const int64_t lines = nhwc ? x.n * x.h : x.n * x.c * x.h, line_grain = grain(nhwc ? x.w * x.c : x.w);
  const auto for_lines = [&](const auto& body) { parallel_for(lines, line_grain, body); };
  if (!x.overlapping() && (nhwc ? x.c : x.q()) >= kVectorRun) {
    const Axis row_axis = rows(x), column_axis = columns(x);
    const Disjoint<Lane<T>, Index> disjoint{row_axis,
                                            column_axis,
                                            Codes(row_axis, column_axis, std::is_same_v<Index, int64_t>),
                                            x.c,
                                            reinterpret_cast<const Lane<T>*>(grad_output),
                                            indices,
                                            reinterpret_cast<Lane<T>*>(grad_input)};
    for_lines([&](int64_t begin, int64_t end) {
      nhwc ? disjoint.fill_nhwc(begin, end) : disjoint.fill_nchw(begin, end);
    });
  } else if (sum_planes(x, grad_output, indices, grad_input)) {
    return;
  } else if (nhwc) {
    const Scatter<T, Index, false> scatter(x, grad_output, indices, grad_input);
    for_lines([&](int64_t begin, int64_t end) { scatter.sum(begin, end); });
  } else {
    const Scatter<T, Index, true> scatter(x, grad_output, indices, grad_input);
    for_lines([&](int64_t begin, int64_t end) { scatter.sum(begin, end); });
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
