// The backward pass of max unpooling: every input takes the gradient from where it was put, unless a later
// input, in row-major order, was put there too.
#include "cpu/kernels.h"
#include "cpu/places.h"
#include "cpu/unpool_walk.h"

#include <atomic>

namespace pyconvx::cpu::PYCONVX_ISA {
namespace {

// The way for indices that lie in their own windows, as those of pooling do: then only the few windows that
// overlap can hold the same place, and they are looked at. In a flat run of windows each is a fixed distance
// ahead. (Where that leads into the next line or plane, the window there holds another place.)
template <class T, class Index>
class Gather {
public:
  explicit Gather(const Unpool2dProblem& x)
      : chunks_(rows(x), columns(x), x.layout == Layout::nhwc ? x.c : 1),
        planes_(x.layout == Layout::nhwc ? x.n : x.n * x.c) {
    const auto later = [](const Axis& axis) {
      return min(ceil_div(axis.span(), axis.stride), axis.windows) - 1;
    };
    const int64_t below = later(chunks_.rows), right = later(chunks_.columns);
    if (below > kMostLater || right > kMostLater || below + right + 2 * below * right > kMostLater) {
      chunks_.max_lines = 0;
      return;
    }
    lines_below_ = below;
    for (int64_t q = 1; q <= right; ++q) later_[count_++] = q * chunks_.channels;
    for (int64_t p = 1; p <= below; ++p)
      for (int64_t q = -right; q <= right; ++q)
        later_[count_++] = (p * chunks_.columns.windows + q) * chunks_.channels;
  }

  // False if some index lies elsewhere, or the windows are not of the kind that is done here.
  bool run(const T* grad_output, const Index* indices, T* grad_input) const {
    if (chunks_.max_lines <= 0) return false;
    const int64_t step = chunks_.planes ? chunks_.rows.windows : 1;
    std::atomic<bool> good{true};
    parallel_for(planes_ * chunks_.rows.windows / step, unpool_grain(step * chunks_.run),
                 [&](int64_t begin, int64_t end) {
                   if (!run_lines(begin * step, end * step, grad_output, indices, grad_input)) good = false;
                 });
    return good;
  }

private:
  static constexpr int64_t kMostLater = 24;  // comparisons that are faster than a map of the plane

  bool run_lines(int64_t begin, int64_t end, const T* grad_output, const Index* indices,
                 T* grad_input) const {
    constexpr int64_t kWidth = Places<Index>::kWidth;
    const int64_t ahead = count_ ? later_[count_ - 1] : 0, windows = chunks_.rows.windows;
    const int64_t room = (chunks_.max_lines + lines_below_) * chunks_.run + ahead + kWidth;
    Places<Index> decoder(chunks_, Reach::window);
    Scratch<uint16_t> places(room), wins(room);
    for (int64_t line = begin, next; line < end; line = next) {
      next = chunks_.end(line, end);
      // Decoded are also the lines below that the last windows reach into; after them, places that none
      // holds.
      const int64_t plane_end = (line / windows + 1) * windows, base = chunks_.base(line);
      const int64_t stop = chunks_.planes ? next : min(plane_end, next + lines_below_);
      if (!decoder.decode(indices, line, stop, base, places)) return false;
      for (int64_t i = (stop - line) * chunks_.run, end = i + ahead; i < end; ++i) places[i] = 0xffff;

      const int64_t count = (next - line) * chunks_.run;
      if (count_) compare(count, places, wins);
      const T* from = grad_output + base * chunks_.channels;
      T* to = grad_input + line * chunks_.run;
      if (chunks_.channels == 1)
        count_ ? gather<true>(count, from, places, wins, to) : gather<false>(count, from, places, wins, to);
      else
        count_ ? gather_pixels<true>(count, from, places, wins, to)
               : gather_pixels<false>(count, from, places, wins, to);
    }
    return true;
  }

  // wins[i]: all ones if no later window holds the same place.
  [[gnu::noinline]] void compare(int64_t count, const uint16_t* places, uint16_t* wins) const {
    using V = Vector<uint16_t>;
    for (int64_t i = 0; i < count; i += kLanes<uint16_t>) {
      const V place = load<uint16_t>(places + i);
      Vector<int16_t> lost{};
      for (int64_t k = 0; k < count_; ++k) lost |= load<uint16_t>(places + i + later_[k]) == place;
      const Vector<int16_t> won = ~lost;
      std::memcpy(wins + i, &won, sizeof won);
    }
  }

  template <bool kMasked>
  [[gnu::noinline]] void gather(int64_t count, const T* from, const uint16_t* places, const uint16_t* wins,
                                T* to) const {
    constexpr int64_t kUnroll = 8;
    const auto take = [=](int64_t i) {
      const T grad = from[places[i]];
      return kMasked ? static_cast<T>(grad & static_cast<int16_t>(wins[i])) : grad;
    };
    int64_t i = 0;
    for (; i + kUnroll <= count; i += kUnroll)
      for (int64_t k = 0; k < kUnroll; ++k) to[i + k] = take(i + k);
    for (; i < count; ++i) to[i] = take(i);
  }

  template <bool kMasked>
  [[gnu::noinline]] void gather_pixels(int64_t count, const T* from, const uint16_t* places,
                                       const uint16_t* wins, T* to) const {
    const int64_t channels = chunks_.channels;
    for (int64_t pixel = 0; pixel < count; pixel += channels)
      for (int64_t c = 0; c < channels; ++c) {
        const int64_t i = pixel + c;
        const T grad = from[places[i] * channels + c];
        to[i] = kMasked ? static_cast<T>(grad & static_cast<int16_t>(wins[i])) : grad;
      }
  }

  Chunks chunks_;
  int64_t planes_;  // in NHWC, images
  int64_t lines_below_ = 0, count_ = 0;
  int64_t later_[kMostLater] = {};  // how many elements ahead the later windows that overlap one are
};

// An index in its own window is a good one, so the fast way needs no check before it.
template <class T, class Index>
int64_t backward(const Unpool2dProblem& x, const T* grad_output, const Index* indices, T* grad_input) {
  if (Gather<T, Index>(x).run(grad_output, indices, grad_input)) return -1;
  if (const int64_t bad = first_bad_index(x, indices); bad >= 0) return bad;
  if (x.layout == Layout::nhwc)
    Walk<T, Index, false>(x).scatter_backward(grad_output, indices, grad_input);
  else
    Walk<T, Index, true>(x).scatter_backward(grad_output, indices, grad_input);
  return -1;
}

}  // namespace

int64_t max_unpool2d_backward(const Unpool2dProblem& problem, const void* grad_output, const void* indices,
                              void* grad_input) {
  return for_bits(problem.dtype, [&](auto element) {
    return for_index(problem.index, [&](auto index) {
      using T = decltype(element);
      using Index = decltype(index);
      return backward(problem, static_cast<const T*>(grad_output), static_cast<const Index*>(indices),
                      static_cast<T*>(grad_input));
    });
  });
}

}  // namespace pyconvx::cpu::PYCONVX_ISA
