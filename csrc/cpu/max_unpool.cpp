// Max unpooling, which puts every input back where its index says among zeros, and its backward pass. Of
// several inputs for one place the last in row-major order wins.
#include "cpu/disjoint.h"
#include "cpu/kernels.h"
#include "cpu/parallel.h"
#include "cpu/simd.h"
#include "cpu/window.h"

#include <atomic>

namespace pyconvx::cpu::PYCONVX_ISA {
namespace {

constexpr int64_t kGrain = 1 << 14;  // elements worth waking a thread for
constexpr int64_t kChannelBytes =
    64;  // NHWC is cut into channel blocks of a cache line, which no two threads share

int64_t grain(int64_t work_per_item) {
  return max(1, kGrain / max(1, work_per_item));
}

void lower(std::atomic<int64_t>& least, int64_t value) {
  int64_t seen = least.load();
  while (value < seen && !least.compare_exchange_weak(seen, value)) {
  }
}

// ---------------------------------------------------------------------------------------------------------
// Are all indices good?

template <class Index>
int64_t first_bad(const Unpool2dProblem& problem, const Index* indices) {
  const Axis row_axis = rows(problem), column_axis = columns(problem);
  const Positions<Index> position(row_axis, column_axis);
  constexpr bool flat = std::is_same_v<Index, int64_t>;
  const int64_t limit = flat ? problem.h * problem.w : problem.r * problem.s;
  const bool nhwc = problem.layout == Layout::nhwc;
  const int64_t channels = nhwc ? problem.c : 1, runs = nhwc ? problem.n : problem.n * problem.c;
  const int64_t run = problem.q * channels;
  std::atomic<int64_t> least{std::numeric_limits<int64_t>::max()};
  parallel_for(runs * problem.p, grain(run), [&](int64_t begin, int64_t end) {
    // An index below its limit is good in any window that lies inside: those are checked by the row, fast.
    const bool inside = flat || (column_axis.interior(0) && column_axis.interior(problem.q - 1));
    for (int64_t line = begin; line < end; ++line) {
      const int64_t p = line % problem.p;
      const Index* index = indices + line * run;
      if (inside && (flat || row_axis.interior(p))) {
        int bad = 0;
        for (int64_t i = 0; i < run; ++i) bad |= (index[i] < 0) | (index[i] >= limit);
        if (!bad) continue;
      }
      for (int64_t i = 0; i < run; ++i)
        if (position(p, i / channels, index[i]) < 0) return lower(least, line * run + i);
    }
  });
  return least == std::numeric_limits<int64_t>::max() ? -1 : least.load();
}

// ---------------------------------------------------------------------------------------------------------
// Any indices: one thread walks through all windows of a plane, or of a block of an image's channels, so that
// who comes last does not depend on the threads.

struct Blocks {
  int64_t images, channels, width;  // channels is the distance between pixels, width that of a block

  template <class T>
  static Blocks of(const Unpool2dProblem& problem, T) {
    if (problem.layout == Layout::nchw) return {problem.n * problem.c, 1, 1};
    return {problem.n, problem.c, min(problem.c, kChannelBytes / static_cast<int64_t>(sizeof(T)))};
  }

  // body(the image's number, first channel, end channel)
  template <class Body>
  void for_each(int64_t pixels, const Body& body) const {
    const int64_t blocks = ceil_div(channels, width);
    parallel_for(images * blocks, grain(pixels * width), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t channel = i % blocks * width;
        body(i / blocks, channel, min(channel + width, channels));
      }
    });
  }
};

template <class T, class Index>
void scatter(const Unpool2dProblem& problem, const Raw<T>* input, const Index* indices, Raw<T>* output) {
  const Positions<Index> position(rows(problem), columns(problem));
  const Blocks blocks = Blocks::of(problem, T{});
  const int64_t windows = problem.p * problem.q, pixels = problem.h * problem.w, channels = blocks.channels;
  blocks.for_each(pixels, [&](int64_t image, int64_t first, int64_t last) {
    Raw<T>* to = output + image * pixels * channels;
    for (int64_t i = 0; i < pixels; ++i)
      std::memset(to + i * channels + first, 0, static_cast<size_t>(last - first) * sizeof(Raw<T>));
    for (int64_t window = 0; window < windows; ++window) {
      const int64_t p = window / problem.q, q = window % problem.q,
                    place = (image * windows + window) * channels;
      for (int64_t c = first; c < last; ++c)
        to[position(p, q, indices[place + c]) * channels + c] = input[place + c];
    }
  });
}

// Walks backwards: who comes first to a place is the one whose value was left there.
template <class T, class Index>
void scatter_backward(const Unpool2dProblem& problem, const Raw<T>* grad_output, const Index* indices,
                      Raw<T>* grad_input) {
  const Positions<Index> position(rows(problem), columns(problem));
  const Blocks blocks = Blocks::of(problem, T{});
  const int64_t windows = problem.p * problem.q, pixels = problem.h * problem.w, channels = blocks.channels;
  blocks.for_each(pixels, [&](int64_t image, int64_t first, int64_t last) {
    const int64_t width = last - first;
    Scratch<uint8_t> taken(pixels * width);
    std::memset(taken, 0, static_cast<size_t>(pixels * width));
    const Raw<T>* from = grad_output + image * pixels * channels;
    for (int64_t window = windows - 1; window >= 0; --window) {
      const int64_t p = window / problem.q, q = window % problem.q,
                    place = (image * windows + window) * channels;
      for (int64_t c = first; c < last; ++c) {
        const int64_t at = position(p, q, indices[place + c]);
        uint8_t& is_taken = taken[at * width + c - first];
        grad_input[place + c] = is_taken ? Raw<T>(0) : from[at * channels + c];
        is_taken = 1;
      }
    }
  });
}

// With one index to a window and windows apart, no two inputs share a place.
template <class T, class Index>
void disjoint_backward(const Unpool2dProblem& problem, const Raw<T>* grad_output, const Index* indices,
                       Raw<T>* grad_input) {
  const Positions<Index> position(rows(problem), columns(problem));
  const Blocks blocks = Blocks::of(problem, T{});
  const int64_t channels = blocks.channels, run = problem.q * channels, pixels = problem.h * problem.w;
  parallel_for(blocks.images * problem.p, grain(run), [&](int64_t begin, int64_t end) {
    for (int64_t line = begin; line < end; ++line) {
      const Raw<T>* from = grad_output + line / problem.p * pixels * channels;
      for (int64_t q = 0, i = line * run; q < problem.q; ++q)
        for (int64_t c = 0; c < channels; ++c, ++i)
          grad_input[i] = from[position(line % problem.p, q, indices[i]) * channels + c];
    }
  });
}

}  // namespace

int64_t first_bad_index(const Unpool2dProblem& problem, const void* indices) {
  return for_index(problem.index, [&](auto index) {
    return first_bad(problem, static_cast<const decltype(index)*>(indices));
  });
}

void max_unpool2d(const Unpool2dProblem& problem, const void* input, const void* indices, void* output) {
  for_dtype(problem.dtype, [&](auto element) {
    for_index(problem.index, [&](auto index) {
      using T = decltype(element);
      using Index = decltype(index);
      const auto* from = static_cast<const Raw<T>*>(input);
      const auto* where = static_cast<const Index*>(indices);
      auto* to = static_cast<Raw<T>*>(output);
      if (std::is_same_v<Index, int64_t> || problem.overlapping())
        return scatter<T, Index>(problem, from, where, to);
      const Axis row_axis = rows(problem), column_axis = columns(problem);
      const Disjoint<T, Index> unpool{row_axis, column_axis, Codes(row_axis, column_axis, false),
                                      problem.c, from, where, to};
      if (problem.layout == Layout::nhwc)
        parallel_for(problem.n * problem.h, grain(problem.w * problem.c),
                     [&](int64_t begin, int64_t end) { unpool.fill_nhwc(begin, end); });
      else
        parallel_for(problem.n * problem.c * problem.h, grain(problem.w),
                     [&](int64_t begin, int64_t end) { unpool.fill_nchw(begin, end); });
    });
  });
}

void max_unpool2d_backward(const Unpool2dProblem& problem, const void* grad_output, const void* indices,
                           void* grad_input) {
  for_dtype(problem.dtype, [&](auto element) {
    for_index(problem.index, [&](auto index) {
      using T = decltype(element);
      using Index = decltype(index);
      const auto body = std::is_same_v<Index, int64_t> || problem.overlapping() ? scatter_backward<T, Index>
                                                                                : disjoint_backward<T, Index>;
      body(problem, static_cast<const Raw<T>*>(grad_output), static_cast<const Index*>(indices),
           static_cast<Raw<T>*>(grad_input));
    });
  });
}

}  // namespace pyconvx::cpu::PYCONVX_ISA
