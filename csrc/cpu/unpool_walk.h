// Unpooling by any indices, and its backward pass: one thread walks through all windows of a plane, or of a
// block of an image's channels, so that who comes last does not depend on the threads.
#pragma once

#include "cpu/parallel.h"
#include "cpu/simd.h"
#include "cpu/window.h"

namespace pyconvx::cpu::PYCONVX_ISA {

// Values are only moved, so all are integers of their size: that is fewer kernels, and selecting one is no
// branch.
template <class Body>
inline auto for_bits(DType dtype, const Body& body) {
  switch (dtype) {
  case DType::f64:
    return body(int64_t{});
  case DType::f32:
    return body(int32_t{});
  default:
    return body(int16_t{});
  }
}

inline int64_t unpool_grain(int64_t work_per_item) {
  constexpr int64_t kGrain = 1 << 14;  // elements worth waking a thread for
  return max(1, kGrain / max(1, work_per_item));
}

template <class T, class Index, bool kPlanar>
class Walk {
public:
  explicit Walk(const Unpool2dProblem& problem)
      : problem_(problem), rows_(rows(problem)), columns_(columns(problem)), distance_(rows_, columns_),
        images_(kPlanar ? problem.n * problem.c : problem.n), channels_(kPlanar ? 1 : problem.c),
        width_(channels_), pixels_(problem.h * problem.w) {
    // Images are only cut into blocks of channels if there are fewer of them than threads.
    constexpr int64_t line = 64 / static_cast<int64_t>(sizeof(T));  // blocks share no cache line
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

private:
  // body(image, first channel, channels)
  template <class Body>
  void for_blocks(const Body& body) const {
    const int64_t blocks = ceil_div(channels_, width_);
    parallel_for(images_ * blocks, unpool_grain(pixels_ * width_), [&](int64_t begin, int64_t end) {
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

  static constexpr bool kFlat = Distances<Index>::kFlat;

  const Unpool2dProblem& problem_;
  Axis rows_, columns_;
  Distances<Index> distance_;
  int64_t images_, channels_, width_, pixels_;  // a plane of NCHW is an image of one channel
};

}  // namespace pyconvx::cpu::PYCONVX_ISA
