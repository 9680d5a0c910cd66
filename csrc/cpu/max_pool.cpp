// Max pooling, and the gather of other values at the winners' places.
//
// A tap wins if it is greater than the best so far or NaN, in row-major order of taps, starting from -inf at
// the window's first tap inside the input: so the first of equals wins, and the last of NaNs.
#include "cpu/kernels.h"
#include "cpu/parallel.h"
#include "cpu/simd.h"
#include "cpu/window.h"

namespace pyconvx::cpu::PYCONVX_ISA {
namespace {

constexpr int64_t kGrain = 1 << 14;  // outputs times taps worth waking a thread for

int64_t grain(int64_t work_per_item) {
  return max(1, kGrain / max(1, work_per_item));
}

// ---------------------------------------------------------------------------------------------------------
// The winner of a contest among taps, in one vector of windows or channels.

// 16-bit floats in an order that integers have: -0 equals +0, and both kinds of NaN come last.
template <class T, class V>
inline V ordered(V bits) {
  const V sign = bits >> 15, magnitude = bits & 0x7fff;
  const V finite = (magnitude ^ sign) - sign;
  return magnitude > infinity<T>() ? V{} + int16_t{0x7fff} : finite;
}

template <class T, bool kIndexed>
struct Contest {
  using Value = Vector<Raw<T>>;
  using Code = Vector<Lane<T>>;

  Value best;
  Code code;
  Vector<Lane<T>> key;  // of the best; only for 16-bit floats

  void open(Value first, Code first_code) {
    best = first;
    code = first_code;
    if constexpr (is_half<T>) key = ordered<T>(first);
  }

  void offer(Value value, Code tap) {
    Code wins;
    if constexpr (is_half<T>) {
      const Code challenger = ordered<T>(value);
      wins = (challenger > key) | (challenger == 0x7fff);
      key = wins ? challenger : key;
    } else {
      wins = (value > best) | (value != value);
    }
    best = wins ? value : best;
    if constexpr (kIndexed) code = wins ? tap : code;
  }
};

// The same for one window of one channel.
template <class T>
inline bool beats(Raw<T> value, Raw<T> best) {
  if constexpr (is_half<T>) {
    const auto key = [](int bits) {
      const int magnitude = bits & 0x7fff;
      return magnitude > infinity<T>() ? 0x7fff : bits < 0 ? -magnitude : magnitude;
    };
    return key(value) > key(best) || key(value) == 0x7fff;
  } else {
    return value > best || value != value;
  }
}

// ---------------------------------------------------------------------------------------------------------
// Forward.

template <class T>
struct Forward {
  Axis rows, columns;
  Codes codes;
  int64_t channels;
  bool nhwc;
  IndexType index;
  const Raw<T>* input;
  Raw<T>* output;
  void* indices;

  // The taps of one window that are inside the input.
  struct Taps {
    int64_t first_r, end_r, first_s, end_s;
    int64_t origin;  // of the window, in the plane
  };

  // Can every code be held in a vector lane?
  bool codes_fit() const {
    return codes.code(rows.taps, columns.taps) <= std::numeric_limits<Lane<T>>::max();
  }

  template <bool kIndexed>
  void pool_rows(int64_t begin, int64_t end) const;
  template <bool kIndexed>
  void pool_pixels(int64_t begin, int64_t end) const;
  template <bool kIndexed>
  void pool_windows(int64_t begin, int64_t end) const;

private:
  template <bool kIndexed, int kUnroll>
  void pool_channels(const Raw<T>* image, const Taps& taps, int64_t channel, Raw<T>* best,
                     Lane<T>* code) const;

  // Turns codes into indices. From one to the next, `place` grows by `stride` and `base` by `step`.
  template <class Code>
  void store_indices(int64_t count, const Code* code, int64_t place, int64_t stride, int64_t base,
                     int64_t step) const {
    for_index(index, [&](auto form) {
      using Index = decltype(form);
      Index* to = static_cast<Index*>(indices) + place;
      if (stride == 1)
        for (int64_t i = 0; i < count; ++i) to[i] = static_cast<Index>(code[i] + base + i * step);
      else
        for (int64_t i = 0; i < count; ++i) to[i * stride] = static_cast<Index>(code[i] + base + i * step);
    });
  }
};

// Copies one element for each window, from position `from` on, with -inf where the axis ends: that never
// wins, so windows need no bounds. `pixel` is the distance of neighbouring positions in memory.
template <class T>
void copy_padded(const Raw<T>* row, int64_t pixel, const Axis& axis, int64_t from, int64_t count,
                 Raw<T>* to) {
  const int64_t first = min(count, ceil_div(max(0, -from), axis.stride));
  const int64_t last = max(first, min(count, ceil_div(max(0, axis.size - from), axis.stride)));
  const int64_t step = axis.stride * pixel;
  for (int64_t i = 0; i < first; ++i) to[i] = lowest<T>();
  if (step == 1)
    for (int64_t i = first; i < last; ++i) to[i] = row[from + i];
  else if (step == 2)
    for (int64_t i = first; i < last; ++i) to[i] = row[from * pixel + 2 * i];
  else
    for (int64_t i = first; i < last; ++i) to[i] = row[from * pixel + step * i];
  for (int64_t i = last; i < count; ++i) to[i] = lowest<T>();
}

// Rows of windows, a vector of neighbouring windows at a time: [begin, end) of all planes' rows of windows,
// with channels innermost in NHWC. Each row of the input is first split into its phases, one for each
// remainder modulo the stride: neighbouring windows then read neighbouring elements, whatever the stride and
// the layout.
template <class T>
template <bool kIndexed>
void Forward<T>::pool_rows(int64_t begin, int64_t end) const {
  constexpr int64_t kWidth = kLanes<Raw<T>>;
  const int64_t padded = ceil_div(columns.windows, kWidth) * kWidth;
  const int64_t phases = min(columns.stride, columns.span());
  const int64_t pitch = padded + (columns.span() - 1) / columns.stride;
  const int64_t pixel = nhwc ? channels : 1;
  Scratch<Raw<T>> phase(phases * pitch), best(padded);
  Scratch<Lane<T>> code(padded), first_code(padded);
  Scratch<int64_t> tap_place(columns.taps);
  for (int64_t s = 0; s < columns.taps; ++s) {
    const int64_t distance = s * columns.dilation;
    tap_place[s] = distance % columns.stride * pitch + distance / columns.stride;
  }
  for (int64_t q = 0; q < padded; ++q)
    first_code[q] = static_cast<Lane<T>>(codes.code(0, columns.first_tap(min(q, columns.windows - 1))));

  for (int64_t line = begin; line < end; ++line) {
    const int64_t channel = line % pixel, row_of_windows = line / pixel;  // channel is 0 in NCHW
    const int64_t p = row_of_windows % rows.windows, image = row_of_windows / rows.windows;
    const int64_t first_r = rows.first_tap(p), end_r = rows.end_tap(p);
    const Lane<T> row_code = static_cast<Lane<T>>(codes.code(first_r, 0));
    for (int64_t q = 0; q < padded; ++q) {
      best[q] = lowest<T>();
      code[q] = static_cast<Lane<T>>(first_code[q] + row_code);
    }
    for (int64_t r = first_r; r < end_r; ++r) {
      const int64_t h = rows.origin(p) + r * rows.dilation;
      const Raw<T>* row = input + (image * rows.size + h) * columns.size * pixel + channel;
      for (int64_t f = 0; f < phases; ++f)
        copy_padded<T>(row, pixel, columns, f - columns.pad, pitch, phase + f * pitch);
      for (int64_t q = 0; q < padded; q += kWidth) {
        Contest<T, kIndexed> contest;
        contest.open(load<Raw<T>>(best + q), load<Lane<T>>(code + q));
        for (int64_t s = 0; s < columns.taps; ++s)
          contest.offer(load<Raw<T>>(phase + tap_place[s] + q),
                        broadcast(static_cast<Lane<T>>(codes.code(r, s))));
        store<Raw<T>>(best + q, contest.best);
        if constexpr (kIndexed) store<Lane<T>>(code + q, contest.code);
      }
    }
    const int64_t place = row_of_windows * columns.windows * pixel + channel;
    for (int64_t q = 0; q < columns.windows; ++q) output[place + q * pixel] = best[q];
    if constexpr (kIndexed)
      store_indices<Lane<T>>(columns.windows, code, place, pixel, codes.base(p, 0), codes.across);
  }
}

// kUnroll vectors of channels of one window: several contests at a time hide each other's latency.
template <class T>
template <bool kIndexed, int kUnroll>
void Forward<T>::pool_channels(const Raw<T>* image, const Taps& taps, int64_t channel, Raw<T>* best,
                               Lane<T>* code) const {
  constexpr int64_t kWidth = kLanes<Raw<T>>;
  const auto first_code = static_cast<Lane<T>>(codes.code(taps.first_r, taps.first_s));
  Contest<T, kIndexed> contest[kUnroll];
  for (auto& one : contest) one.open(broadcast(lowest<T>()), broadcast(first_code));
  for (int64_t r = taps.first_r; r < taps.end_r; ++r)
    for (int64_t s = taps.first_s; s < taps.end_s; ++s) {
      const int64_t position = taps.origin + r * rows.dilation * columns.size + s * columns.dilation;
      const auto tap = broadcast(static_cast<Lane<T>>(codes.code(r, s)));
      for (int u = 0; u < kUnroll; ++u)
        contest[u].offer(load<Raw<T>>(image + position * channels + channel + u * kWidth), tap);
    }
  for (int u = 0; u < kUnroll; ++u) {
    store<Raw<T>>(best + channel + u * kWidth, contest[u].best);
    if constexpr (kIndexed) store<Lane<T>>(code + channel + u * kWidth, contest[u].code);
  }
}

// NHWC, vectors of channels: [begin, end) of all images' rows of windows.
template <class T>
template <bool kIndexed>
void Forward<T>::pool_pixels(int64_t begin, int64_t end) const {
  constexpr int kUnroll = is_half<T> ? 2 : 4;  // as many as the registers of AVX2 hold
  constexpr int64_t kWidth = kLanes<Raw<T>>;
  Scratch<Lane<T>> code(channels);
  Scratch<int64_t> first_s(columns.windows), end_s(columns.windows);
  for (int64_t q = 0; q < columns.windows; ++q) {
    first_s[q] = columns.first_tap(q);
    end_s[q] = columns.end_tap(q);
  }
  for (int64_t line = begin; line < end; ++line) {
    const int64_t p = line % rows.windows, n = line / rows.windows;
    const Raw<T>* image = input + n * rows.size * columns.size * channels;
    const int64_t first_r = rows.first_tap(p), end_r = rows.end_tap(p);
    for (int64_t q = 0; q < columns.windows; ++q) {
      const Taps taps{first_r, end_r, first_s[q], end_s[q],
                      rows.origin(p) * columns.size + columns.origin(q)};
      const int64_t place = (line * columns.windows + q) * channels;
      Raw<T>* best = output + place;
      int64_t channel = 0;
      for (; channel + kUnroll * kWidth <= channels; channel += kUnroll * kWidth)
        pool_channels<kIndexed, kUnroll>(image, taps, channel, best, code);
      for (; channel + kWidth <= channels; channel += kWidth)
        pool_channels<kIndexed, 1>(image, taps, channel, best, code);
      // The rest is the end of one last full vector; what that shares with the one before comes out the same.
      if (channel < channels) pool_channels<kIndexed, 1>(image, taps, channels - kWidth, best, code);
      if constexpr (kIndexed) store_indices<Lane<T>>(channels, code, place, 1, codes.base(p, q), 0);
    }
  }
}

// Outputs [begin, end) in memory order, one by one: the way for windows whose codes no lane holds.
template <class T>
template <bool kIndexed>
void Forward<T>::pool_windows(int64_t begin, int64_t end) const {
  const int64_t pixel = nhwc ? channels : 1;
  for (int64_t place = begin; place < end; ++place) {
    const int64_t channel = place % pixel, window = place / pixel;
    const int64_t q = window % columns.windows, line = window / columns.windows;
    const int64_t p = line % rows.windows, image = line / rows.windows;
    const Raw<T>* plane = input + image * rows.size * columns.size * pixel + channel;
    const int64_t first_r = rows.first_tap(p), first_s = columns.first_tap(q);
    const int64_t end_r = rows.end_tap(p), end_s = columns.end_tap(q);
    const int64_t origin = rows.origin(p) * columns.size + columns.origin(q);
    Raw<T> best = lowest<T>();
    int64_t code = codes.code(first_r, first_s);
    for (int64_t r = first_r; r < end_r; ++r)
      for (int64_t s = first_s; s < end_s; ++s) {
        const int64_t position = origin + r * rows.dilation * columns.size + s * columns.dilation;
        if (beats<T>(plane[position * pixel], best)) {
          best = plane[position * pixel];
          code = codes.code(r, s);
        }
      }
    output[place] = best;
    if constexpr (kIndexed) store_indices(1, &code, place, 1, codes.base(p, q), 0);
  }
}

template <class T, bool kIndexed>
void forward(const Pool2dProblem& x, const Forward<T>& pool) {
  const int64_t taps = x.r * x.s, lines = x.n * pool.rows.windows, windows = pool.columns.windows;
  if (!pool.codes_fit())
    parallel_for(lines * windows * x.c, grain(taps),
                 [&](int64_t begin, int64_t end) { pool.template pool_windows<kIndexed>(begin, end); });
  else if (pool.nhwc && x.c >= kLanes<Raw<T>>)
    parallel_for(lines, grain(taps * windows * x.c),
                 [&](int64_t begin, int64_t end) { pool.template pool_pixels<kIndexed>(begin, end); });
  else
    parallel_for(lines * x.c, grain(taps * windows),
                 [&](int64_t begin, int64_t end) { pool.template pool_rows<kIndexed>(begin, end); });
}

// A dilated window may have no tap inside the input, and so no winner: its index is -1, 255 in a byte, which
// is no tap and no position. That of a tap outside could be read as an element of another row.
template <class Index>
void disown_empty_windows(const Pool2dProblem& problem, Index* indices) {
  const Axis row_axis = rows(problem), column_axis = columns(problem);
  const auto is_empty = [](const Axis& axis, int64_t window) {
    return axis.first_tap(window) >= axis.end_tap(window);
  };
  const auto has_empty = [&](const Axis& axis) {
    for (int64_t window = 0; window < axis.windows; ++window)
      if (is_empty(axis, window)) return true;
    return false;
  };
  if (!has_empty(row_axis) && !has_empty(column_axis)) return;
  const bool nhwc = problem.layout == Layout::nhwc;
  const int64_t channels = nhwc ? problem.c : 1, images = nhwc ? problem.n : problem.n * problem.c;
  for (int64_t image = 0; image < images; ++image)
    for (int64_t p = 0; p < row_axis.windows; ++p)
      for (int64_t q = 0; q < column_axis.windows; ++q, indices += channels)
        if (is_empty(row_axis, p) || is_empty(column_axis, q))
          for (int64_t c = 0; c < channels; ++c) indices[c] = static_cast<Index>(-1);
}

// ---------------------------------------------------------------------------------------------------------
// Gather: what lies where the winners were.

template <class T, class Index>
void gather(const Pool2dProblem& problem, const Raw<T>* input, const Index* indices, Raw<T>* output) {
  const Axis row_axis = rows(problem), column_axis = columns(problem);
  const Positions<Index> position(row_axis, column_axis);
  const int64_t plane = problem.h * problem.w;
  const bool nhwc = problem.layout == Layout::nhwc;
  // A run is what shares one p: in NCHW one window after the other, in NHWC all channels of each.
  const int64_t channels = nhwc ? problem.c : 1, runs = nhwc ? problem.n : problem.n * problem.c;
  const int64_t run = column_axis.windows * channels;
  parallel_for(runs * row_axis.windows, grain(run), [&](int64_t begin, int64_t end) {
    for (int64_t line = begin; line < end; ++line) {
      const int64_t p = line % row_axis.windows;
      const Raw<T>* image = input + line / row_axis.windows * plane * channels;
      for (int64_t q = 0, i = line * run; q < column_axis.windows; ++q)
        for (int64_t c = 0; c < channels; ++c, ++i) {
          const int64_t from = position(p, q, indices[i]);
          output[i] = from < 0 ? Raw<T>(0) : image[from * channels + c];
        }
    }
  });
}

}  // namespace

void max_pool2d(const Pool2dProblem& problem, const void* input, void* output, void* indices) {
  for_dtype(problem.dtype, [&](auto element) {
    using T = decltype(element);
    const Axis row_axis = rows(problem), column_axis = columns(problem);
    const Forward<T> pool{row_axis,
                          column_axis,
                          Codes(row_axis, column_axis, problem.index == IndexType::i64),
                          problem.c,
                          problem.layout == Layout::nhwc,
                          problem.index,
                          static_cast<const Raw<T>*>(input),
                          static_cast<Raw<T>*>(output),
                          indices};
    if (problem.index == IndexType::none)
      forward<T, false>(problem, pool);
    else
      forward<T, true>(problem, pool);
  });
  if (problem.index != IndexType::none)
    for_index(problem.index,
              [&](auto index) { disown_empty_windows(problem, static_cast<decltype(index)*>(indices)); });
}

void max_pool2d_gather(const Pool2dProblem& problem, const void* input, const void* indices, void* output) {
  for_dtype(problem.dtype, [&](auto element) {
    for_index(problem.index, [&](auto index) {
      using T = decltype(element);
      using Index = decltype(index);
      gather<T, Index>(problem, static_cast<const Raw<T>*>(input), static_cast<const Index*>(indices),
                       static_cast<Raw<T>*>(output));
    });
  });
}

}  // namespace pyconvx::cpu::PYCONVX_ISA
