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

// Values are only moved, so all are integers of their size: that is fewer kernels, and selecting one is no
// branch.
template <class Body>
void for_bits(DType dtype, const Body& body) {
  switch (dtype) {
  case DType::f64:
    return body(int64_t{});
  case DType::f32:
    return body(int32_t{});
  default:
    return body(int16_t{});
  }
}

constexpr int64_t kGrain = 1 << 14;  // elements worth waking a thread for
constexpr int64_t kLineBytes = 64;   // NHWC is cut into blocks of channels that share no cache line

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
  int64_t first_inside = 0, end_inside = run;
  if (!flat) {
    while (first_inside < run && !column_axis.interior(first_inside / channels)) first_inside += channels;
    while (end_inside > first_inside && !column_axis.interior(end_inside / channels - 1))
      end_inside -= channels;
  }
  std::atomic<int64_t> least{std::numeric_limits<int64_t>::max()};
  parallel_for(runs * problem.p, grain(run), [&](int64_t begin, int64_t end) {
    for (int64_t line = begin; line < end; ++line) {
      const int64_t p = line % problem.p;
      const Index* index = indices + line * run;
      // In windows that lie inside, any index below the limit is good, which a vector of them tells at once.
      const bool whole = flat || row_axis.interior(p);
      const int64_t first = whole ? first_inside : run, last = whole ? end_inside : run;
      int bad = 0;
      for (int64_t i = first; i < last; ++i) bad |= (index[i] < 0) | (index[i] >= limit);
      const auto is_bad = [&](int64_t i) { return position(p, i / channels, index[i]) < 0; };
      for (int64_t i = 0; i < run; ++i) {
        if (i == first && !bad) i = last;
        if (i < run && is_bad(i)) return lower(least, line * run + i);
      }
    }
  });
  return least == std::numeric_limits<int64_t>::max() ? -1 : least.load();
}

// ---------------------------------------------------------------------------------------------------------
// Any indices: one thread walks through all windows of a plane, or of a block of an image's channels, so that
// who comes last does not depend on the threads.

template <class T, class Index, bool kPlanar>
class Walk {
public:
  explicit Walk(const Unpool2dProblem& problem)
      : problem_(problem), rows_(rows(problem)), columns_(columns(problem)), distance_(rows_, columns_),
        images_(kPlanar ? problem.n * problem.c : problem.n), channels_(kPlanar ? 1 : problem.c),
        width_(channels_), pixels_(problem.h * problem.w) {
    // Images are only cut into blocks of channels if there are fewer of them than threads.
    constexpr int64_t line = kLineBytes / static_cast<int64_t>(sizeof(T));
    const int64_t blocks = images_ > 0 ? ceil_div(num_threads(), images_) : 1;
    width_ = min(channels_, ceil_div(ceil_div(channels_, blocks), line) * line);
  }

  void scatter(const T* input, const Index* indices, T* output) const {
    for_blocks([&](int64_t image, int64_t first, int64_t count) {
      T* to = output + image * pixels_ * channels_ + first;
      if (kPlanar || count == channels_)
        std::memset(to, 0, static_cast<size_t>(pixels_ * channels_) * sizeof(T));
      else
        for (int64_t i = 0; i < pixels_; ++i)
          std::memset(to + i * channels_, 0, static_cast<size_t>(count) * sizeof(T));
      for (int64_t p = 0; p < problem_.p; ++p) {
        const int64_t place = (image * problem_.p + p) * problem_.q * channels_ + first;
        scatter_row(input + place, indices + place, row_origin(p), count, to);
      }
    });
  }

  // Walks backwards: who comes first to a place is the one whose value was left there.
  void scatter_backward(const T* grad_output, const Index* indices, T* grad_input) const {
    for_blocks([&](int64_t image, int64_t first, int64_t count) {
      Scratch<uint8_t> taken(pixels_ * count);
      std::memset(taken, 0, static_cast<size_t>(pixels_ * count));
      for (int64_t p = problem_.p - 1; p >= 0; --p) {
        const int64_t place = (image * problem_.p + p) * problem_.q * channels_ + first;
        take_row(grad_output + image * pixels_ * channels_ + first, indices + place, row_origin(p), count,
                 taken, grad_input + place);
      }
    });
  }

  // With one index to a window and windows apart, no two inputs share a place: each takes its gradient.
  void gather(const T* grad_output, const Index* indices, T* grad_input) const {
    const int64_t run = problem_.q * channels_;
    parallel_for(images_ * problem_.p, grain(run), [&](int64_t begin, int64_t end) {
      for (int64_t line = begin; line < end; ++line)
        gather_row(grad_output + line / problem_.p * pixels_ * channels_, indices + line * run,
                   row_origin(line % problem_.p), grad_input + line * run);
    });
  }

private:
  // body(image, first channel, channels)
  template <class Body>
  void for_blocks(const Body& body) const {
    const int64_t blocks = ceil_div(channels_, width_);
    parallel_for(images_ * blocks, grain(pixels_ * width_), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t first = i % blocks * width_;
        body(i / blocks, first, min(width_, channels_ - first));
      }
    });
  }

  // What distances in the first window of a row count from, and how that moves from window to window.
  int64_t row_origin(int64_t p) const {
    return kFlat ? 0 : rows_.origin(p) * columns_.size + columns_.origin(0);
  }
  int64_t across() const { return kFlat ? 0 : columns_.stride; }

  // The rows are functions of their own so that their few variables stay in registers. They hold every place
  // against the plane's end although all indices are known to be good: another thread might have changed one
  // since.

  [[gnu::noinline]] void scatter_row(const T* value, const Index* index, int64_t origin, int64_t count,
                                     T* to) const {
    const int64_t channels = kPlanar ? 1 : channels_, width = kPlanar ? 1 : count, step = across();
    const int64_t windows = problem_.q;
    const uint64_t pixels = static_cast<uint64_t>(pixels_);
    for (int64_t q = 0; q < windows; ++q, value += channels, index += channels, origin += step)
      for (int64_t c = 0; c < width; ++c) {
        const uint64_t at = distance_.place(origin, distance_(index[c]));
        if (at < pixels) to[static_cast<int64_t>(at) * channels + c] = value[c];
      }
  }

  [[gnu::noinline]] void take_row(const T* from, const Index* index, int64_t origin, int64_t count,
                                  uint8_t* taken, T* to) const {
    const int64_t channels = kPlanar ? 1 : channels_, width = kPlanar ? 1 : count, step = across();
    const uint64_t pixels = static_cast<uint64_t>(pixels_);
    for (int64_t q = problem_.q - 1; q >= 0; --q)
      for (int64_t c = 0; c < width; ++c) {
        const uint64_t at = distance_.place(origin + q * step, distance_(index[q * channels + c]));
        T grad = 0;
        if (at < pixels) {
          uint8_t& is_taken = taken[static_cast<int64_t>(at) * width + c];
          grad = from[static_cast<int64_t>(at) * channels + c];
          grad = is_taken ? T(0) : grad;
          is_taken = 1;
        }
        to[q * channels + c] = grad;
      }
  }

  [[gnu::noinline]] void gather_row(const T* from, const Index* index, int64_t origin, T* to) const {
    const int64_t channels = kPlanar ? 1 : channels_, step = across(), windows = problem_.q;
    const uint64_t pixels = static_cast<uint64_t>(pixels_);
    for (int64_t q = 0; q < windows; ++q, index += channels, to += channels, origin += step)
      for (int64_t c = 0; c < channels; ++c) {
        const uint64_t at = distance_.place(origin, distance_(index[c]));
        to[c] = at < pixels ? from[static_cast<int64_t>(at) * channels + c] : T(0);
      }
  }

  static constexpr bool kFlat = Distances<Index>::kFlat;

  const Unpool2dProblem& problem_;
  Axis rows_, columns_;
  Distances<Index> distance_;
  int64_t images_, channels_, width_, pixels_;  // a plane of NCHW is an image of one channel
};

template <class T, class Index>
void unpool(const Unpool2dProblem& x, const T* input, const Index* indices, T* output) {
  const bool nhwc = x.layout == Layout::nhwc;
  if (!std::is_same_v<Index, int64_t> && !x.overlapping() && (nhwc ? x.c : x.q) >= kVectorRun) {
    const Axis row_axis = rows(x), column_axis = columns(x);
    const Codes codes(row_axis, column_axis, false);
    const Disjoint<T, Index> disjoint{row_axis, column_axis, codes, x.c, input, indices, output};
    parallel_for(nhwc ? x.n * x.h : x.n * x.c * x.h, grain(nhwc ? x.w * x.c : x.w),
                 [&](int64_t begin, int64_t end) {
                   nhwc ? disjoint.fill_nhwc(begin, end) : disjoint.fill_nchw(begin, end);
                 });
  } else if (nhwc) {
    Walk<T, Index, false>(x).scatter(input, indices, output);
  } else {
    Walk<T, Index, true>(x).scatter(input, indices, output);
  }
}

template <class T, class Index, bool kPlanar>
void backward(const Unpool2dProblem& x, const T* grad_output, const Index* indices, T* grad_input) {
  const Walk<T, Index, kPlanar> walk(x);
  if (std::is_same_v<Index, int64_t> || x.overlapping())
    walk.scatter_backward(grad_output, indices, grad_input);
  else
    walk.gather(grad_output, indices, grad_input);
}

}  // namespace

int64_t first_bad_index(const Unpool2dProblem& problem, const void* indices) {
  return for_index(problem.index, [&](auto index) {
    return first_bad(problem, static_cast<const decltype(index)*>(indices));
  });
}

void max_unpool2d(const Unpool2dProblem& problem, const void* input, const void* indices, void* output) {
  for_bits(problem.dtype, [&](auto element) {
    for_index(problem.index, [&](auto index) {
      using T = decltype(element);
      unpool(problem, static_cast<const T*>(input), static_cast<const decltype(index)*>(indices),
             static_cast<T*>(output));
    });
  });
}

void max_unpool2d_backward(const Unpool2dProblem& problem, const void* grad_output, const void* indices,
                           void* grad_input) {
  for_bits(problem.dtype, [&](auto element) {
    for_index(problem.index, [&](auto index) {
      using T = decltype(element);
      using Index = decltype(index);
      const auto body = problem.layout == Layout::nhwc ? backward<T, Index, false> : backward<T, Index, true>;
      body(problem, static_cast<const T*>(grad_output), static_cast<const Index*>(indices),
           static_cast<T*>(grad_input));
    });
  });
}

}  // namespace pyconvx::cpu::PYCONVX_ISA
