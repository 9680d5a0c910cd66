// Do all indices of an unpooling point into their planes? If not: the first that does not, in memory order.
#include "cpu/kernels.h"
#include "cpu/parallel.h"
#include "cpu/simd.h"
#include "cpu/window.h"

#include <atomic>

namespace pyconvx::cpu::PYCONVX_ISA {
namespace {

constexpr int64_t kGrain = 1 << 15;  // indices worth waking a thread for
constexpr int64_t kNone = std::numeric_limits<int64_t>::max();

void lower(std::atomic<int64_t>& least, int64_t value) {
  int64_t seen = least.load();
  while (value < seen && !least.compare_exchange_weak(seen, value)) {
  }
}

template <class Index>
struct Indices {
  Axis rows, columns;
  int64_t channels;  // neighbours of one window
  const Index* indices;

  // The first bad one of [begin, end), one by one.
  int64_t find(int64_t begin, int64_t end) const {
    const Positions<Index> position(rows, columns);
    for (int64_t i = begin; i < end; ++i) {
      const int64_t window = i / channels, line = window / columns.windows;
      if (position(line % rows.windows, window % columns.windows, indices[i]) < 0) return i;
    }
    return kNone;
  }
};

// Flat indices, [begin, end).
bool all_good(const int64_t* indices, int64_t begin, int64_t end, int64_t limit) {
  uint64_t outside = 0;  // its sign says whether any is
  for (int64_t i = begin; i < end; ++i) {
    const auto index = static_cast<uint64_t>(indices[i]);
    outside |= index | (static_cast<uint64_t>(limit - 1) - index);
  }
  return static_cast<int64_t>(outside) >= 0;
}

// Offsets in windows of at most 255 taps. The taps that are inside are a rectangle of the window; tables hold
// it for each element of a group of lines: of some planes if they are small, so that loops are long.
template <class Index>
class Rectangles {
public:
  Rectangles(const Axis& rows, const Axis& columns, int64_t channels)
      : rows_(rows), columns_(columns), channels_(channels), run_(columns.windows * channels),
        lines_(group_lines(rows.windows, run_)), size_(lines_ * run_), first_r_(size_), first_s_(size_),
        count_r_(size_), count_s_(size_) {}

  static int64_t group_lines(int64_t plane_lines, int64_t run) {
    return plane_lines * run <= kPlane ? plane_lines * max(1, kGroup / (plane_lines * run)) : 1;
  }

  // Those of `lines` lines, of which the first is line p of a plane. They are a group, or the start of one.
  bool all_good(const Index* index, int64_t p, int64_t lines) {
    if (rows_.first_tap(p) != first_tap_ || rows_.end_tap(p) != end_tap_) fill_tables(p);
    const auto across = static_cast<uint32_t>(columns_.taps);
    const uint32_t reciprocal = (0xffff + across) / across;  // exact for codes of a byte
    const uint16_t *first_r = first_r_, *first_s = first_s_, *count_r = count_r_, *count_s = count_s_;
    uint16_t bad = 0;
    uint32_t high_bits = 0;
    for (int64_t i = 0, count = lines * run_; i < count; ++i) {
      const auto code = static_cast<uint16_t>(index[i]);
      if constexpr (sizeof(Index) > 1) high_bits |= static_cast<uint32_t>(index[i]);
      const auto r = static_cast<uint16_t>(code * reciprocal >> 16);
      const auto s = static_cast<uint16_t>(code - r * across);
      const auto below = static_cast<uint16_t>(r - first_r[i]), right = static_cast<uint16_t>(s - first_s[i]);
      bad |= static_cast<uint16_t>((below >= count_r[i]) | (right >= count_s[i]));
    }
    return !bad && high_bits < 256;
  }

private:
  static constexpr int64_t kPlane = 4096;  // elements of what counts as a small plane
  static constexpr int64_t kGroup = 256;   // elements, at least, that keep a loop busy

  void fill_tables(int64_t p) {
    first_tap_ = rows_.first_tap(p), end_tap_ = rows_.end_tap(p);
    int64_t i = 0;
    for (int64_t line = p; line < p + lines_; ++line) {
      const int64_t first_r = rows_.first_tap(line % rows_.windows),
                    end_r = rows_.end_tap(line % rows_.windows);
      for (int64_t q = 0; q < columns_.windows; ++q)
        for (int64_t c = 0; c < channels_; ++c, ++i) {
          first_r_[i] = static_cast<uint16_t>(min(255, first_r));
          first_s_[i] = static_cast<uint16_t>(min(255, columns_.first_tap(q)));
          count_r_[i] = static_cast<uint16_t>(max(0, end_r - first_r));
          count_s_[i] = static_cast<uint16_t>(max(0, columns_.end_tap(q) - columns_.first_tap(q)));
        }
    }
  }

  Axis rows_, columns_;
  int64_t channels_, run_, lines_, size_;  // of a line, of a group
  Scratch<uint16_t> first_r_, first_s_, count_r_, count_s_;
  int64_t first_tap_ = -1, end_tap_ = -1;  // of the line that the tables begin with
};

template <class Index>
int64_t first_bad(const Unpool2dProblem& problem, const Index* indices) {
  const bool nhwc = problem.layout == Layout::nhwc;
  const int64_t channels = nhwc ? problem.c : 1, planes = nhwc ? problem.n : problem.n * problem.c;
  const Indices<Index> all{rows(problem), columns(problem), channels, indices};
  const int64_t plane = problem.p * problem.q * channels;
  std::atomic<int64_t> least{kNone};
  const auto look = [&](int64_t begin, int64_t end) { lower(least, all.find(begin, end)); };
  if constexpr (std::is_same_v<Index, int64_t>) {
    parallel_for(planes * plane, kGrain, [&](int64_t begin, int64_t end) {
      if (!all_good(indices, begin, end, problem.h * problem.w)) look(begin, end);
    });
  } else if (problem.r * problem.s > 255) {
    parallel_for(planes * plane, kGrain, look);
  } else {
    const int64_t lines = planes * problem.p, run = problem.q * channels;
    const int64_t step = Rectangles<Index>::group_lines(problem.p, run);
    parallel_for(ceil_div(lines, step), max(1, kGrain / (run * step)), [&](int64_t begin, int64_t end) {
      Rectangles<Index> rectangles(all.rows, all.columns, channels);
      for (int64_t line = begin * step, last = min(lines, end * step); line < last; line += step) {
        const int64_t count = min(step, last - line);
        if (!rectangles.all_good(indices + line * run, line % problem.p, count))
          return look(line * run, (line + count) * run);
      }
    });
  }
  return least == kNone ? -1 : least.load();
}

}  // namespace

int64_t first_bad_index(const Unpool2dProblem& problem, const void* indices) {
  return for_index(problem.index, [&](auto index) {
    return first_bad(problem, static_cast<const decltype(index)*>(indices));
  });
}

}  // namespace pyconvx::cpu::PYCONVX_ISA
